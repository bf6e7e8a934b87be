// The operations of the sound encoder; docs/sound.md describes them, the numpy twins are in
// src/matryo/kernels/reference_audio.py.
//
//   T frames · d width · F ffn units · P past frames · K taps · M values a frame
#pragma once

#include <cstdint>

#include "kernels.h"

namespace matryo {

struct AudioFeedForward {
  MatrixView up, down;                // (F, d), (d, F), panels
  const float *pre_norm, *post_norm;  // (d)
  float gain, clip, eps;
};

// out (T, d) = x + gain · rms(clipped(down · silu(up · rms(clipped(x))))). Not in place.
void audio_feed_forward(const AudioFeedForward& call, const float* x, int64_t frames, float* out);

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
