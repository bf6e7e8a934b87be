// The part of the kernel table that training needs: gradients of the row operations of
// kernels_vector.h, and the two forward ones that inference fuses into products.
//
//   n columns of one row · m root mean square · "adds to": the array holds a sum over tokens
//
// Sums over a row use 16 partial sums, column c in partial sum c mod 16, folded by halves: the same
// bits on every instruction set.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace matryo {

// Of out = (x · factor) · weight, factor = 1 / m: x_grad is written or added to, weight_grad added
// to.
struct NormGrad {
  const float* x;
  const float* weight;  // null: none
  const float* grad;
  int64_t n;
  float factor;
  float* x_grad;
  bool accumulate;     // of x_grad
  float* weight_grad;  // null: none
};

// Of route(): `grad` is that of its four outputs `route`. Everything is added to.
struct RouteGrad {
  const float* x;
  const float* norm;
  const float* router;  // (4, n)
  int64_t n;
  float eps;
  float route[4], grad[4];
  float* x_grad;
  float* norm_grad;
  float* router_grad;
};

// Of mix_streams(): x_grad_j = grad_j + Σ_i mix[4 i + j] grad_i, mix_grad[4 i + j] = grad_i · x_j.
struct MixStreamsGrad {
  const float *x[4], *grad[4];
  float mix[16];
  int64_t n;
  float* x_grad[4];
  float* mix_grad;  // 16
};

// Of correct_streams() without the norm of what is added: gains_grad[i] = grad_i · (active -
// predictions_0), active_grad = Σ_i gains[i] grad_i, first_grad = grad_0 - active_grad, added_grad
// = grad_1 + grad_2 + grad_3. The gradients of the other predictions are grad_1 to grad_3.
struct CorrectStreamsGrad {
  const float *first, *active, *grad[4];
  float gains[4];
  int64_t n;
  float *first_grad, *active_grad, *added_grad;
  float* gains_grad;  // 4
};

// Of correct_first(): scale_grad and gain_grad are added to.
struct CorrectFirstGrad {
  const float *prediction, *active, *scale, *grad;
  float gain;
  int64_t n;
  float *prediction_grad, *active_grad, *scale_grad;
  float* gain_grad;  // 1
};

// act = gelu_tanh(max(gate - cut, 0)) · up; without a cut the gate is taken as it is.
struct GatedRow {
  const float *gate, *up;
  int64_t n;
  bool has_cut;
  float mean, deviation, multiplier;  // of the gate; cut = mean + deviation · multiplier
};

// One token: raw products `logits` (n) become entropy · (p - label) + divergence · (p' - q) through
// the cap, p = softmax(z), z = cap tanh(logits / cap), p' and q = softmax(z / temperature) of both
// heads.
struct HeadRow {
  float* logits;
  float* teacher;  // raw products, overwritten; null: no second term
  int64_t n, label;
  float cap, teacher_cap;  // 0: none
  float entropy, divergence;
  float temperature;
};

struct TrainingKernels {
  void (*norm_row_grad)(const NormGrad& call);
  void (*route_grad)(const RouteGrad& call);
  void (*mix_streams_grad)(const MixStreamsGrad& call);
  void (*correct_streams_grad)(const CorrectStreamsGrad& call);
  void (*correct_first_grad)(const CorrectFirstGrad& call);
  void (*gated_row)(const GatedRow& call, float* act);
  // Through the mean and the deviation, too.
  void (*gated_row_grad)(const GatedRow& call, const float* grad, float* gate_grad, float* up_grad);
  // out = x turned by the angles: halves (a, b) to (a cos - b sin, b cos + a sin); cos, sin (half).
  // `out` may be x. With -sin it is the gradient.
  void (*rotate_row)(const float* x, const float* cosine, const float* sine, float sign,
                     int64_t half, float* out);
  // losses: cross-entropy and KL(q || p'), both without their weights.
  void (*head_row)(const HeadRow& call, float* losses);
  // out = (a + b) · gain. `out` may be either.
  void (*add_rows)(const float* a, const float* b, float gain, int64_t n, float* out);
};

}  // namespace matryo
