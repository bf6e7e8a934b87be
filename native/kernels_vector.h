// The second part of the kernel table: norms, AltUp streams, the gate of sparse layers.
//
//   n columns of one row · A altup streams (4) · m root mean square
//
// Sums over a row use 64 partial sums (32 in `route`), column c in partial sum c mod 64, folded by
// halves at the end: one order a row, so the same bits for any number of tokens and threads, and on
// every instruction set. Everything else is elementwise: a row may be handed over in pieces.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace matryo {

// One token's four streams mixed: out_i = x_i + Σ_j mix[4 i + j] x_j, j ascending with one fma
// each.
struct MixStreams {
  const float* x;
  int64_t x_stride;  // floats from stream to stream
  float mix[16];
  int64_t n;
  float* out;  // not x
  int64_t out_stride;
};

// One token's four streams corrected by what the layer made of the first one, and the per-layer
// input added: out_i = fma(gains[i], active - predictions_0, predictions_i), streams 1..3 plus
// (added · added_factor) · added_weight.
struct CorrectStreams {
  const float* predictions;
  int64_t predictions_stride;  // floats from stream to stream
  const float* active;
  float gains[4];
  const float* added;
  float added_factor;
  const float* added_weight;
  int64_t n;
  float* out;  // may be `predictions`
  int64_t out_stride;
};

struct Moments {
  double mean, variance;  // of the population
};

struct VectorKernels {
  float (*sum_squares)(const float* x, int64_t n);
  // out = (x · factor) · weight; no weight if null. `out` may be x.
  void (*norm_row)(const float* x, int64_t n, float factor, const float* weight, float* out);
  // out = (residual + (x · factor) · weight) · gain. `out` may be x or residual.
  void (*add_norm_row)(const float* x, int64_t n, float factor, const float* weight,
                       const float* residual, float gain, float* out);

  // out[a] = tanh(Σ_c (x_c norm_c) router[a][c] / (m n)), m = sqrt(mean x² + eps), a in 0..3;
  // router (4, n).
  void (*route)(const float* x, const float* norm, const float* router, int64_t n, float eps,
                float* out);
  void (*mix_streams)(const MixStreams& call);
  // out = fma(gain, active - prediction, prediction) · scale: the first stream as the per-layer
  // gate sees it.
  void (*correct_first)(const float* prediction, const float* active, float gain,
                        const float* scale, int64_t n, float* out);
  void (*correct_streams)(const CorrectStreams& call);
  // out = (x + Σ_i factors[i] · y_i) / 4, i = 0..2 in order; y_i at y + i · y_stride.
  void (*average_streams)(const float* x, const float* y, int64_t y_stride, const float* factors,
                          int64_t n, float* out);
  // out = gelu_tanh(gate) · other. `out` may be either.
  void (*gelu_multiply)(const float* gate, const float* other, int64_t n, float* out);

  // Mean and variance: second moments about the mean, pieces of 1,024 columns added in double.
  Moments (*moments)(const float* x, int64_t n);
  // The units whose gate exceeds the cut, ascending: ids[i] = first + its index, values[i] =
  // gelu_tanh(gate - cut). Returns how many. `ids` and `values` have room for n; `values` may be
  // `gate`. NaN is kept, so that it shows.
  int32_t (*select_units)(const float* gate, int32_t n, float cut, int32_t first, int32_t* ids,
                          float* values);
};

}  // namespace matryo
