#include "blocks/training.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "blocks/norms.h"
#include "dispatch.h"
#include "layer.h"
#include "pool.h"
#include "scratch.h"

namespace matryo {
namespace {

constexpr float kHalfRoot = 0.70710678118654752f;
constexpr int64_t kPieces = 16;  // of the tokens; each has sums of its own

// body(t, sums, row) for every token; `sums` (num_sums) start at zero, `row` has room for row_size.
template <class Body>
void for_each_token(int64_t tokens, int64_t num_sums, int64_t row_size, float* total, Body body) {
  Scratch scratch(Scratch::bytes<float>(kPieces * num_sums) +
                  Scratch::bytes<float>(kPieces * row_size));
  float* sums = scratch.take<float>(kPieces * num_sums);
  float* rows = scratch.take<float>(kPieces * row_size);
  pool().run([&](Worker& worker) {
    for (int64_t piece; (piece = worker.next()) < kPieces;) {
      float *mine = sums + piece * num_sums, *row = rows + piece * row_size;
      std::fill_n(mine, num_sums, 0.0f);
      const int64_t last = (piece + 1) * tokens / kPieces;
      for (int64_t t = piece * tokens / kPieces; t < last; ++t) body(t, mine, row);
    }
  });
  if (num_sums == 0) return;
  std::copy_n(sums, num_sums, total);
  for (int64_t piece = 1; piece < kPieces; ++piece) {
    kernels().add_rows(total, sums + piece * num_sums, 1.0f, num_sums, total);
  }
}

template <class Body>
void for_each_token(int64_t tokens, Body body) {
  for_each_token(tokens, 0, 0, nullptr, [&](int64_t t, float*, float*) { body(t); });
}

// out[i] = coefs[i] · route, for `rows` rows of A coefficients.
void mix_coefficients(const float* coefs, const float* route, int rows, float* out) {
  for (int i = 0; i < rows; ++i) {
    float sum = 0.0f;
    for (int a = 0; a < kStreams; ++a) sum += coefs[i * kStreams + a] * route[a];
    out[i] = sum;
  }
}

// The gradients of the same: coefs_grad is added to, route_grad written.
void mix_coefficients_grad(const float* coefs, const float* route, int rows, const float* grad,
                           float* coefs_grad, float* route_grad) {
  std::fill_n(route_grad, kStreams, 0.0f);
  for (int i = 0; i < rows; ++i) {
    for (int a = 0; a < kStreams; ++a) {
      coefs_grad[i * kStreams + a] += grad[i] * route[a];
      route_grad[a] += grad[i] * coefs[i * kStreams + a];
    }
  }
}

void norm_grad_row(const float* x, const float* weight, const float* grad, int64_t n, float eps,
                   float* x_grad, bool accumulate, float* weight_grad) {
  kernels().norm_row_grad(
      {x, weight, grad, n, rms_factor(x, n, eps), x_grad, accumulate, weight_grad});
}

GatedRow gated_row_of(const Gated& call, int64_t t, const float* moments) {
  const int64_t start = t * call.width;
  return {call.gate + start, call.up + start,    call.width,     call.has_cut,
          moments[2 * t],    moments[2 * t + 1], call.multiplier};
}

}  // namespace

void training_predict(const Predict& call, float* predictions, float* first, float* normed,
                      float* routes) {
  const int64_t n = call.width, stride = call.tokens * n;
  for_each_token(call.tokens, [&](int64_t t) {
    const float* x = call.x + t * n;
    float *route = routes + t * kStreams, *row = predictions + t * n;
    kernels().route(x, call.router_norm, call.router, n, call.eps, route);
    MixStreams mix = {x, stride, {}, n, row, stride};
    mix_coefficients(call.coefs, route, kStreams * kStreams, mix.mix);
    kernels().mix_streams(mix);
    std::copy_n(row, n, first + t * n);
    rms_norm_row(row, n, call.input_norm, call.eps, normed + t * n);
  });
}

void training_predict_grad(const Predict& call, const float* predictions, const float* routes,
                           const float* predictions_grad, const float* first_grad,
                           const float* normed_grad, float* x_grad, float* sums) {
  const int64_t n = call.width, stride = call.tokens * n;
  constexpr int kMixes = kStreams * kStreams;
  const int64_t coefs_at = (1 + kStreams) * n, norm_at = coefs_at + kMixes * kStreams;
  for_each_token(call.tokens, norm_at + n, n, sums, [&](int64_t t, float* mine, float* row) {
    const int64_t start = t * n;
    kernels().add_rows(predictions_grad + start, first_grad + start, 1.0f, n, row);
    norm_grad_row(predictions + start, call.input_norm, normed_grad + start, n, call.eps, row, true,
                  mine + norm_at);
    float mix_grad[kMixes];
    MixStreamsGrad mix = {};
    RouteGrad route = {
        call.x + start, call.router_norm, call.router, n, call.eps, {}, {}, x_grad + start,
        mine,           mine + n};
    std::copy_n(routes + t * kStreams, kStreams, route.route);
    mix_coefficients(call.coefs, route.route, kMixes, mix.mix);
    for (int i = 0; i < kStreams; ++i) {
      mix.x[i] = call.x + i * stride + start;
      mix.grad[i] = i == 0 ? row : predictions_grad + i * stride + start;
      mix.x_grad[i] = x_grad + i * stride + start;
    }
    mix.n = n;
    mix.mix_grad = mix_grad;
    kernels().mix_streams_grad(mix);
    mix_coefficients_grad(call.coefs, route.route, kMixes, mix_grad, mine + coefs_at, route.grad);
    kernels().route_grad(route);
  });
}

void training_norm_grad(const float* x, int64_t tokens, int64_t n, const float* weight, float eps,
                        const float* grad, float* x_grad, float* sums) {
  const int64_t num_sums = weight == nullptr ? 0 : n;
  for_each_token(tokens, num_sums, 0, sums, [&](int64_t t, float* mine, float*) {
    norm_grad_row(x + t * n, weight, grad + t * n, n, eps, x_grad + t * n, false,
                  weight == nullptr ? nullptr : mine);
  });
}

void training_post_attention(const PostAttention& call, float* hidden, float* next) {
  const int64_t n = call.width;
  for_each_token(call.tokens, [&](int64_t t) {
    const float *attended = call.attended + t * n, *laurel = call.laurel + t * n;
    float* row = hidden + t * n;
    kernels().add_norm_row(attended, n, rms_factor(attended, n, call.eps), call.attended_norm,
                           call.first + t * n, 1.0f, row);
    kernels().add_rows(row, call.normed + t * n, 1.0f, n, row);
    kernels().add_norm_row(laurel, n, rms_factor(laurel, n, call.eps), call.laurel_norm, row,
                           kHalfRoot, row);
    rms_norm_row(row, n, call.next_norm, call.eps, next + t * n);
  });
}

void training_post_attention_grad(const PostAttention& call, const float* hidden,
                                  const float* next_grad, float* hidden_grad, float* attended_grad,
                                  float* laurel_grad, float* sums) {
  const int64_t n = call.width;
  for_each_token(call.tokens, 3 * n, 0, sums, [&](int64_t t, float* mine, float*) {
    const int64_t start = t * n;
    float* row = hidden_grad + start;
    norm_grad_row(hidden + start, call.next_norm, next_grad + start, n, call.eps, row, true,
                  mine + 2 * n);
    kernels().norm_row(row, n, kHalfRoot, nullptr, row);
    norm_grad_row(call.attended + start, call.attended_norm, row, n, call.eps,
                  attended_grad + start, false, mine);
    norm_grad_row(call.laurel + start, call.laurel_norm, row, n, call.eps, laurel_grad + start,
                  false, mine + n);
  });
}

void training_gated(const Gated& call, float* act, float* moments) {
  for_each_token(call.tokens, [&](int64_t t) {
    const Moments found =
        call.has_cut ? kernels().moments(call.gate + t * call.width, call.width) : Moments{};
    moments[2 * t] = static_cast<float>(found.mean);
    moments[2 * t + 1] = static_cast<float>(std::sqrt(found.variance));
    kernels().gated_row(gated_row_of(call, t, moments), act + t * call.width);
  });
}

void training_gated_grad(const Gated& call, const float* moments, const float* grad,
                         float* gate_grad, float* up_grad) {
  for_each_token(call.tokens, [&](int64_t t) {
    const int64_t start = t * call.width;
    kernels().gated_row_grad(gated_row_of(call, t, moments), grad + start, gate_grad + start,
                             up_grad + start);
  });
}

void training_head(const HeadRows& call, float* logits, float* teacher, float* losses) {
  const int64_t n = call.vocabulary;
  for_each_token(call.tokens, [&](int64_t t) {
    kernels().head_row(
        {logits + t * n, teacher == nullptr ? nullptr : teacher + t * n, n, call.labels[t],
         call.cap, call.teacher_cap, call.entropy, call.divergence, call.temperature},
        losses + 2 * t);
  });
}

void training_rotated(const Rotated& call, float* out) {
  const int64_t n = call.width;
  for_each_token(call.tokens, [&](int64_t t) {
    const int64_t angle = t % call.positions * n;
    for (int64_t row = t * call.heads; row < (t + 1) * call.heads; ++row) {
      rms_norm_row(call.x + row * n, n, call.weight, call.eps, out + row * n);
      kernels().rotate_row(out + row * n, call.cosine + angle, call.sine + angle, 1.0f, n / 2,
                           out + row * n);
    }
  });
}

void training_rotated_grad(const Rotated& call, const float* grad, float* x_grad, float* sums) {
  const int64_t n = call.width;
  for_each_token(call.tokens, n, n, sums, [&](int64_t t, float* mine, float* turned) {
    const int64_t angle = t % call.positions * n;
    for (int64_t row = t * call.heads; row < (t + 1) * call.heads; ++row) {
      kernels().rotate_row(grad + row * n, call.cosine + angle, call.sine + angle, -1.0f, n / 2,
                           turned);
      norm_grad_row(call.x + row * n, call.weight, turned, n, call.eps, x_grad + row * n, false,
                    mine);
    }
  });
}

void training_correct_first(const Correct& call, float* gains, float* routes, float* scaled) {
  const int64_t n = call.width;
  for_each_token(call.tokens, [&](int64_t t) {
    const float* active = call.active + t * n;
    float *route = routes + t * kStreams, *gain = gains + t * kStreams;
    kernels().route(active, call.router_norm, call.router, n, call.eps, route);
    mix_coefficients(call.coefs, route, kStreams, gain);
    for (int i = 0; i < kStreams; ++i) gain[i] += 1.0f;
    kernels().correct_first(call.first + t * n, active, gain[0], call.scale, n, scaled + t * n);
  });
}

void training_correct_first_grad(const Correct& call, const float* gains, const float* routes,
                                 const float* scaled_grad, float* gains_grad, float* first_grad,
                                 float* active_grad, float* sums) {
  const int64_t n = call.width, coefs_at = (1 + kStreams) * n,
                scale_at = coefs_at + kStreams * kStreams;
  for_each_token(call.tokens, scale_at + n, 0, sums, [&](int64_t t, float* mine, float*) {
    const int64_t start = t * n;
    const float* active = call.active + start;
    float* gain_grad = gains_grad + t * kStreams;
    kernels().correct_first_grad({call.first + start, active, call.scale, scaled_grad + start,
                                  gains[t * kStreams], n, first_grad + start, active_grad + start,
                                  mine + scale_at, gain_grad});
    RouteGrad route = {active, call.router_norm,    call.router, n,       call.eps, {},
                       {},     active_grad + start, mine,        mine + n};
    std::copy_n(routes + t * kStreams, kStreams, route.route);
    mix_coefficients_grad(call.coefs, route.route, kStreams, gain_grad, mine + coefs_at,
                          route.grad);
    kernels().route_grad(route);
  });
}

void training_correct_all(const CorrectAll& call, float* x) {
  const int64_t n = call.width, stride = call.tokens * n;
  for_each_token(call.tokens, [&](int64_t t) {
    const int64_t start = t * n;
    const float* added = call.added + start;
    CorrectStreams correct = {call.predictions + start,
                              stride,
                              call.active + start,
                              {},
                              added,
                              rms_factor(added, n, call.eps),
                              call.added_norm,
                              n,
                              x + start,
                              stride};
    std::copy_n(call.gains + t * kStreams, kStreams, correct.gains);
    kernels().correct_streams(correct);
  });
}

void training_correct_all_grad(const CorrectAll& call, const float* grad, float* first_grad,
                               float* active_grad, float* added_grad, float* gains_grad,
                               float* sums) {
  const int64_t n = call.width, stride = call.tokens * n;
  for_each_token(call.tokens, n, n, sums, [&](int64_t t, float* mine, float* through) {
    const int64_t start = t * n;
    CorrectStreamsGrad correct = {};
    correct.first = call.predictions + start;
    correct.active = call.active + start;
    for (int i = 0; i < kStreams; ++i) correct.grad[i] = grad + i * stride + start;
    std::copy_n(call.gains + t * kStreams, kStreams, correct.gains);
    correct.n = n;
    correct.first_grad = first_grad + start;
    correct.active_grad = active_grad + start;
    correct.added_grad = through;
    correct.gains_grad = gains_grad + t * kStreams;
    kernels().correct_streams_grad(correct);
    norm_grad_row(call.added + start, call.added_norm, through, n, call.eps, added_grad + start,
                  false, mine);
  });
}

}  // namespace matryo
