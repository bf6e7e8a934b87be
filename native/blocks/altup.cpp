#include "blocks/altup.h"

#include <algorithm>
#include <cmath>

#include "blocks/norms.h"
#include "dispatch.h"
#include "matrix.h"
#include "pool.h"
#include "scratch.h"

namespace matryo {
namespace {

constexpr float kMagnitudeFloor = 1e-5f;  // of a mean square, before the root
constexpr float kHalfRoot = 0.70710678118654752f;

// Below this many tokens the work takes less time than waking a team.
constexpr int64_t kTokensWorthATeam = 2;

template <class Body>
void for_each_token(int64_t tokens, Body body) {
  if (tokens < kTokensWorthATeam) {
    for (int64_t t = 0; t < tokens; ++t) body(t);
    return;
  }
  pool().run([&](Worker& worker) {
    const auto [first, last] = worker.slice(tokens);
    for (int64_t t = first; t < last; ++t) body(t);
  });
}

// out[i] = coefs[i] · route, for `rows` rows of A coefficients.
void mix_coefficients(const float* coefs, const float* route, int rows, float* out) {
  for (int i = 0; i < rows; ++i) {
    float sum = 0.0f;
    for (int a = 0; a < kStreams; ++a) sum += coefs[i * kStreams + a] * route[a];
    out[i] = sum;
  }
}

void predict_token(const LayerView& layer, const float* x, int64_t stride, float* predictions,
                   float* normed) {
  const int64_t n = layer.hidden_size;
  float route[kStreams];
  kernels().route(x, layer.router_norm, layer.router, n, layer.eps, route);
  MixStreams call = {x, stride, {}, n, predictions, stride};
  mix_coefficients(layer.prediction_coefs, route, kStreams * kStreams, call.mix);
  kernels().mix_streams(call);
  rms_norm_row(predictions, n, layer.input_norm, layer.eps, normed);
}

float mean_square(const float* x, int64_t n) {
  return kernels().sum_squares(x, n) / static_cast<float>(n);
}

// What y is multiplied by to have the root mean square `magnitude`.
float rescaling(const float* y, int64_t n, float magnitude) {
  return magnitude / std::sqrt(std::max(mean_square(y, n), kMagnitudeFloor));
}

struct Correction {
  const LayerView& layer;
  const float *predictions, *active, *ple;
  float* x;
  int64_t tokens;
  float* gains;           // (T, A)
  float* scaled;          // (T, d): the corrected first stream as the gate sees it
  QuantizedGroup* codes;  // (T, d / 32) the same, quantised
  float* gated;           // (T, P)
  QuantizedGroup* gated_codes;
  float* added;  // (T, d): projected per-layer input, not yet normed

  int64_t width() const { return layer.hidden_size; }
  int64_t ple_dim() const { return layer.ple_gate.rows; }
  int64_t stride() const { return tokens * width(); }

  void prepare(const Worker& worker) const {
    const auto [first, last] = worker.slice(tokens);
    for (int64_t t = first; t < last; ++t) prepare_token(t);
  }

  void prepare_token(int64_t t) const {
    const int64_t n = width();
    float route[kStreams], *gain = gains + t * kStreams, *first_stream = scaled + t * n;
    kernels().route(active + t * n, layer.router_norm, layer.router, n, layer.eps, route);
    mix_coefficients(layer.correction_coefs, route, kStreams, gain);
    for (int i = 0; i < kStreams; ++i) gain[i] += 1.0f;
    kernels().correct_first(predictions + t * n, active + t * n, gain[0],
                            layer.correct_output_scale, n, first_stream);
    if (is_quantized(layer.ple_gate.kind))
      kernels().quantize_row(first_stream, n, codes + t * groups_of(n));
  }

  void gate(Worker& worker) const {
    const TokenRows rows = {scaled, width(), codes, groups_of(width()),
                            static_cast<int32_t>(tokens)};
    const ProductJob job = {layer.ple_gate, gated, ple_dim(), ple_dim(), width()};
    product_phase(worker, rows, &job, 1);
  }

  void activate(const Worker& worker) const {
    const int64_t dim = ple_dim();
    const auto [first, last] = worker.slice(tokens);
    for (int64_t t = first; t < last; ++t) {
      float* row = gated + t * dim;
      kernels().gelu_multiply(row, ple + t * dim, dim, row);
      if (is_quantized(layer.ple_projection.kind))
        kernels().quantize_row(row, dim, gated_codes + t * groups_of(dim));
    }
  }

  void project(Worker& worker) const {
    const int64_t dim = ple_dim();
    const TokenRows rows = {gated, dim, gated_codes, groups_of(dim), static_cast<int32_t>(tokens)};
    const ProductJob job = {layer.ple_projection, added, width(), width(), dim};
    product_phase(worker, rows, &job, 1);
  }

  // One token is cut by columns, several by tokens.
  void write(const Worker& worker) const {
    const auto [first_token, last_token] =
        tokens == 1 ? std::pair<int64_t, int64_t>{0, 1} : worker.slice(tokens);
    const auto [first, last] =
        tokens == 1 ? worker.slice(width(), kGroup) : std::pair<int64_t, int64_t>{0, width()};
    if (first == last) return;
    for (int64_t t = first_token; t < last_token; ++t) {
      const float* row = added + t * width();
      const int64_t start = t * width() + first;
      CorrectStreams call = {predictions + start,
                             stride(),
                             active + start,
                             {},
                             row + first,
                             rms_factor(row, width(), layer.eps),
                             layer.post_ple_norm + first,
                             last - first,
                             x + start,
                             stride()};
      std::copy_n(gains + t * kStreams, kStreams, call.gains);
      kernels().correct_streams(call);
    }
  }
};

}  // namespace

void altup_predict(const LayerView& layer, const float* x, int64_t tokens, float* predictions,
                   float* normed) {
  const int64_t n = layer.hidden_size, stride = tokens * n;
  for_each_token(tokens, [&](int64_t t) {
    predict_token(layer, x + t * n, stride, predictions + t * n, normed + t * n);
  });
}

void altup_correct(const LayerView& layer, const float* predictions, const float* active_out,
                   const float* ple, int64_t tokens, float* x) {
  if (tokens == 0) return;
  const int64_t n = layer.hidden_size, dim = layer.ple_gate.rows;
  Scratch scratch(Scratch::bytes<float>(tokens * kStreams) + 2 * Scratch::bytes<float>(tokens * n) +
                  Scratch::bytes<float>(tokens * dim) +
                  Scratch::bytes<QuantizedGroup>(tokens * groups_of(n)) +
                  Scratch::bytes<QuantizedGroup>(tokens * groups_of(dim)));
  const Correction correction = {layer,
                                 predictions,
                                 active_out,
                                 ple,
                                 x,
                                 tokens,
                                 scratch.take<float>(tokens * kStreams),
                                 scratch.take<float>(tokens * n),
                                 scratch.take<QuantizedGroup>(tokens * groups_of(n)),
                                 scratch.take<float>(tokens * dim),
                                 scratch.take<QuantizedGroup>(tokens * groups_of(dim)),
                                 scratch.take<float>(tokens * n)};
  if (tokens == 1) correction.prepare(Worker());  // while the team wakes up: no barrier for it
  pool().run([&](Worker& worker) {
    if (tokens > 1) {
      correction.prepare(worker);
      worker.barrier();
    }
    correction.gate(worker);
    worker.barrier();
    correction.activate(worker);
    worker.barrier();
    correction.project(worker);
    worker.barrier();
    correction.write(worker);
  });
}

void rms_norm_rows(const float* x, int64_t tokens, int64_t n, const float* weight, float eps,
                   float* out) {
  for_each_token(tokens, [&](int64_t t) { rms_norm_row(x + t * n, n, weight, eps, out + t * n); });
}

void altup_expand(const float* e, int64_t tokens, int64_t n, float* y) {
  for_each_token(tokens, [&](int64_t t) {
    const float magnitude = std::sqrt(mean_square(e + t * n, n));
    for (int i = 0; i < kStreams - 1; ++i) {
      float* row = y + (i * tokens + t) * n;
      kernels().norm_row(row, n, rescaling(row, n, magnitude), nullptr, row);
    }
  });
}

void altup_merge(const float* x, const float* y, const float* weight, float eps, int64_t tokens,
                 int64_t n, float* out) {
  for_each_token(tokens, [&](int64_t t) {
    const float magnitude = std::sqrt(mean_square(x + t * n, n));
    float factors[kStreams - 1];
    for (int i = 0; i < kStreams - 1; ++i)
      factors[i] = rescaling(y + (i * tokens + t) * n, n, magnitude);
    float* row = out + t * n;
    kernels().average_streams(x + t * n, y + t * n, tokens * n, factors, n, row);
    rms_norm_row(row, n, weight, eps, row);
  });
}

void ple_combine(const float* projection, const float* raw, const float* weight, float eps,
                 int64_t tokens, int64_t slots, int64_t dim, float* out) {
  for_each_token(tokens, [&](int64_t t) {
    for (int64_t slot = 0; slot < slots; ++slot) {
      const int64_t start = (t * slots + slot) * dim;
      kernels().add_norm_row(projection + start, dim, rms_factor(projection + start, dim, eps),
                             weight, raw + start, kHalfRoot, out + start);
    }
  });
}

}  // namespace matryo
