// The part of the kernel table that only the sound encoder uses: SiLU, banded attention, the light
// convolution, norms over everything heard so far.
//
//   n columns of one row · K taps · Dh head dim
//
// Every entry handles rows by themselves, in a fixed order: the same bits for any number of frames
// and threads, and on every instruction set.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace matryo {

// One head of one frame: `count` keys, oldest first.
struct FrameAttention {
  const float* query;     // (Dh)
  const float* scale;     // (Dh): query · scale is what meets the keys
  const float* keys;      // key i at keys + i · stride
  const float* values;    // likewise
  const float* position;  // added to key i: position + (count - 1 - i) · stride
  const uint8_t* valid;   // valid[i] = 0: key i is not seen
  int64_t stride;         // floats
  int32_t count, head_dim;
  float cap;      // score = cap · tanh(score / cap)
  float* scores;  // room for `count` and head_dim floats, each rounded up to 16
  float* out;     // (Dh); zeros if no key is seen
};

struct AudioKernels {
  // x = silu(x).
  void (*silu_row)(float* x, int64_t n);
  // Columns [0, depth) of a stored bf16 panel as floats, (depth, 16); depth is even.
  void (*widen_bf16_panel)(const uint8_t* panel, int64_t depth, float* out);
  void (*attend_frame)(const FrameAttention& call);
  // out = a · sigmoid(b).
  void (*gate_row)(const float* a, const float* b, int64_t n, float* out);
  // out = Σ_i taps[i · n + c] · rows[i · n + c], i ascending, held within -clip .. clip.
  void (*convolve_row)(const float* rows, const float* taps, int32_t count, int64_t n, float clip,
                       float* out);
  // out = silu((x · factor) · weight). `out` may be x.
  void (*norm_silu_row)(const float* x, int64_t n, float factor, const float* weight, float* out);
  // out = max(0, ((x - mean) · factor) · weight). `out` may be x.
  void (*center_row)(const float* x, int64_t n, float mean, float factor, const float* weight,
                     float* out);
  // out = a + b. `out` may be either.
  void (*add_row)(const float* a, const float* b, int64_t n, float* out);
  // out = x held within -limit .. limit. `out` may be x.
  void (*clip_row)(const float* x, int64_t n, float limit, float* out);
};

}  // namespace matryo
