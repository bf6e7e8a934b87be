// Root-mean-square norms of rows, and the last phase of a block.
#pragma once

#include <cmath>
#include <cstdint>

#include "dispatch.h"
#include "pool.h"

namespace matryo {

// What a row is multiplied by: 1 / sqrt(mean(x²) + eps).
inline float rms_factor(const float* x, int64_t n, float eps) {
  return 1.0f / std::sqrt(kernels().sum_squares(x, n) / static_cast<float>(n) + eps);
}

// out = x / rms, times weight unless it is null. `out` may be x.
inline void rms_norm_row(const float* x, int64_t n, const float* weight, float eps, float* out) {
  kernels().norm_row(x, n, rms_factor(x, n, eps), weight, out);
}

// Floats between the rows of an array that a phase walks through token by token: rows a power of
// two apart would share the sets of a cache. One cache line, so that rows stay aligned.
constexpr int64_t kRowPadding = 16;

// Phase: out (T, n) = residual + rms(x) · weight, token t of x at x + t · stride. One token is cut
// by columns, several by tokens; no barrier inside.
inline void add_normed_phase(const Worker& worker, const float* x, int64_t stride,
                             const float* weight, float eps, const float* residual, int64_t tokens,
                             int64_t n, float* out) {
  const auto [first_token, last_token] =
      tokens == 1 ? std::pair<int64_t, int64_t>{0, 1} : worker.slice(tokens);
  const auto [first, last] =
      tokens == 1 ? worker.slice(n, kGroup) : std::pair<int64_t, int64_t>{0, n};
  if (first == last) return;
  for (int64_t t = first_token; t < last_token; ++t) {
    const float* row = x + t * stride;
    kernels().add_norm_row(row + first, last - first, rms_factor(row, n, eps), weight + first,
                           residual + t * n + first, 1.0f, out + t * n + first);
  }
}

}  // namespace matryo
