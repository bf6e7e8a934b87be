// The AltUp blocks around a layer: predictions before it, corrections and the per-layer input after
// it.
//
//   T tokens · d model · A streams (4) · P per-layer dim; arrays are contiguous, streams outermost
#pragma once

#include <cstdint>

#include "layer.h"

namespace matryo {

// predictions (A, T, d) of the streams x (A, T, d); normed (T, d) is the input norm of
// predictions[0].
void altup_predict(const LayerView& layer, const float* x, int64_t tokens, float* predictions,
                   float* normed);

// x (A, T, d): predictions corrected by active_out (T, d), the per-layer inputs ple (T, P) added to
// streams 1..3.
void altup_correct(const LayerView& layer, const float* predictions, const float* active_out,
                   const float* ple, int64_t tokens, float* x);

// out (T, n) = x / rms, times weight (n) unless it is null.
void rms_norm_rows(const float* x, int64_t tokens, int64_t n, const float* weight, float eps,
                   float* out);

// y (A-1, T, d), in place, rescaled to the magnitude of e (T, d).
void altup_expand(const float* e, int64_t tokens, int64_t n, float* y);

// out (T, d): the average of x[0] and the rescaled y (A-1, T, d), normed. Only stream 0 of x is
// read.
void altup_merge(const float* x, const float* y, const float* weight, float eps, int64_t tokens,
                 int64_t n, float* out);

// out (T, slots · dim) = (rms(projection, slot by slot) · weight + raw) / sqrt 2.
void ple_combine(const float* projection, const float* raw, const float* weight, float eps,
                 int64_t tokens, int64_t slots, int64_t dim, float* out);

}  // namespace matryo
