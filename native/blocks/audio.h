// The operations of the sound encoder; docs/sound.md describes them, the numpy twins are in
// src/matryo/kernels/reference_audio.py.
//
//   T frames · d width · F ffn units · P past frames · K taps · M values a frame
#pragma once

#include <cstdint>

#include "blocks/dense_rows.h"
#include "kernels.h"

namespace matryo {

struct AudioFeedForward {
  DenseView up, down;                 // (F, d), (d, F)
  const float *pre_norm, *post_norm;  // (d)
  const float* end_norm;              // (d) or null
  float gain, clip, eps;
};

// out (T, d) = x + gain · rms(clipped(down · silu(up · rms(clipped(x))))), and rms(clipped(out)) of
// that if there is an end norm. Not in place.
void audio_feed_forward(const AudioFeedForward& call, const float* x, int64_t frames, float* out);

// outs[i] (T, ws[i].rows) = rms(clipped(x); norm) · ws[i]ᵀ; x itself if norm is null. All of one
// kind, of one input width.
struct AudioProjection {
  const DenseView* ws;
  int64_t count;
  const float* norm;
  float clip, eps;
};

void audio_project(const AudioProjection& call, const float* x, int64_t frames, float* const* outs);

// out (T, d) = residual + rms(clipped(x · wᵀ); norm), without clipping and norm if it is null.
// `out` may be the residual.
struct AudioAddition {
  DenseView w;
  const float* norm;
  float clip, eps;
};

void audio_add(const AudioAddition& call, const float* x, const float* residual, int64_t frames,
               float* out);

// A 3 x 3 filter (C, 9 C_in) of f32, columns ordered time, frequency, channel, with strides of two:
// out (count, ceil(F / 2), C) from rows (2 count + 1, F, C_in), a zero on both sides of F.
void audio_stem_conv(const DenseView& filter, const float* rows, int64_t count, int64_t bins,
                     int64_t channels, float* out);

struct BandedAttention {
  const float *q, *k, *v;  // (T, H · Dh), (P + T, H · Dh) twice
  const uint8_t* valid;    // (P + T)
  const float* position;   // (P + 1, H · Dh)
  const float* scale;      // (Dh)
  int64_t frames, past, heads, head_dim;
  float cap;
};

// out (T, H · Dh): frame t sees rows t .. t + P of the keys.
void audio_attend(const BandedAttention& call, float* out);

struct LightConvolution {
  const float* gates;  // (T, 2 d)
  float* past;         // (K - 1, d): read, then replaced
  const float* taps;   // (K, d)
  const float* norm;   // (d)
  int64_t frames, width, taps_count;
  float clip, eps;
};

void audio_light_conv(const LightConvolution& call, float* out);

// out (T, M) = max(0, norm of x over all frames so far); sums: frames, values, squares. In place if
// out is x.
void audio_group_norm(const float* x, int64_t frames, int64_t size, const float* weight,
                      double* sums, float eps, float* out);

}  // namespace matryo
