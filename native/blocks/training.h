// The row operations around the products of a training pass, forward and backward, over all tokens
// at once (torch multiplies the matrices and keeps the graph).
//
//   T tokens · d model · A streams (4) · arrays are contiguous, streams outermost
//
// Gradients of weights are sums over tokens, returned one after the other in one array `sums`, in
// the order that each function names. Tokens are added up in a fixed number of pieces, so that the
// bits do not depend on the threads.
#pragma once

#include <cstdint>

namespace matryo {

struct Predict {
  int64_t tokens, width;
  const float *x, *router_norm, *router, *coefs, *input_norm;  // coefs (A A, A)
  float eps;
};
// predictions (A, T, d), first (T, d) the same as predictions[0], normed (T, d), routes (T, A).
void training_predict(const Predict& call, float* predictions, float* first, float* normed,
                      float* routes);
// x_grad (A, T, d); sums: router_norm d, router A d, coefs A A A, input_norm d.
void training_predict_grad(const Predict& call, const float* predictions, const float* routes,
                           const float* predictions_grad, const float* first_grad,
                           const float* normed_grad, float* x_grad, float* sums);

// x_grad (T, n) of x / rms · weight; sums: weight n, or nothing if the weight is null.
void training_norm_grad(const float* x, int64_t tokens, int64_t n, const float* weight, float eps,
                        const float* grad, float* x_grad, float* sums);

struct PostAttention {
  int64_t tokens, width;
  const float *first, *attended, *attended_norm, *normed, *laurel, *laurel_norm, *next_norm;
  float eps;
};
// hidden (T, d) = (first + rms(attended) + normed + rms(laurel)) / sqrt 2; next (T, d) its norm.
void training_post_attention(const PostAttention& call, float* hidden, float* next);
// hidden_grad is turned into the gradient of `first`, which is that of `normed` too; sums:
// attended_norm d, laurel_norm d, next_norm d.
void training_post_attention_grad(const PostAttention& call, const float* hidden,
                                  const float* next_grad, float* hidden_grad, float* attended_grad,
                                  float* laurel_grad, float* sums);

struct Gated {
  int64_t tokens, width;
  const float *gate, *up;
  bool has_cut;
  float multiplier;
};
// act (T, n) = gelu(max(gate - cut, 0)) · up; moments (T, 2): mean and deviation of the gate.
void training_gated(const Gated& call, float* act, float* moments);
void training_gated_grad(const Gated& call, const float* moments, const float* grad,
                         float* gate_grad, float* up_grad);

struct HeadRows {
  int64_t tokens, vocabulary;
  const int64_t* labels;  // (T), each below `vocabulary`
  float cap, teacher_cap, entropy, divergence, temperature;
};
// As HeadRow in kernels_training.h, for all tokens: logits (T, V) become gradients, teacher (T, V)
// is null or overwritten. losses (T, 2).
void training_head(const HeadRows& call, float* logits, float* teacher, float* losses);

struct Rotated {
  int64_t tokens, heads, width, positions;  // token t is at position t mod positions
  const float *x, *weight, *cosine, *sine;  // (positions, n), of which the first half is read
  float eps;
};
// out (T, H, n): every head normed, then turned.
void training_rotated(const Rotated& call, float* out);
// sums: weight n.
void training_rotated_grad(const Rotated& call, const float* grad, float* x_grad, float* sums);

struct Correct {
  int64_t tokens, width;
  const float *first, *active, *router_norm, *router, *coefs, *scale;  // coefs (A, A)
  float eps;
};
// first (T, d) is predictions[0].
// gains (T, A), routes (T, A), scaled (T, d): the corrected first stream as the gate sees it.
void training_correct_first(const Correct& call, float* gains, float* routes, float* scaled);
// gains_grad (T, A): what the other uses of the gains gave; the gate's part is added.
// sums: router_norm d, router A d, coefs A A, scale d.
void training_correct_first_grad(const Correct& call, const float* gains, const float* routes,
                                 const float* scaled_grad, float* gains_grad, float* first_grad,
                                 float* active_grad, float* sums);

struct CorrectAll {
  int64_t tokens, width;
  const float *predictions, *active, *gains, *added, *added_norm;
  float eps;
};
// x (A, T, d): predictions corrected, rms(added) added to streams 1 to 3.
void training_correct_all(const CorrectAll& call, float* x);
// first_grad (T, d) of predictions[0]; those of the others are grad[1:] itself. sums: added_norm d.
void training_correct_all_grad(const CorrectAll& call, const float* grad, float* first_grad,
                               float* active_grad, float* added_grad, float* gains_grad,
                               float* sums);

}  // namespace matryo
