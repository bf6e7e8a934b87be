// The row operations of training passes, forward and backward.
#include "blocks/training.h"

#include <nanobind/stl/optional.h>

#include <optional>

#include "bind.h"

namespace matryo {
namespace {

using nb::arg;

template <class ArrayType>
int64_t size_of(const ArrayType& array, size_t dimension) {
  return static_cast<int64_t>(array.shape(dimension));
}

// Checks shapes for one function.
struct Expect {
  const char* where;

  template <class ArrayType>
  void operator()(const char* name, const ArrayType& array, std::initializer_list<int64_t> shape) {
    expect_shape(where, name, array, shape);
  }
};

constexpr int64_t kMixes = kStreams * kStreams;

Predict predict_of(Expect expect, ConstFloats3 x, ConstFloats1 router_norm, ConstFloats2 router,
                   ConstFloats2 coefs, ConstFloats1 input_norm, float eps) {
  const int64_t tokens = size_of(x, 1), n = size_of(x, 2);
  expect("x", x, {kStreams, tokens, n});
  expect("router_norm", router_norm, {n});
  expect("router", router, {kStreams, n});
  expect("coefs", coefs, {kMixes, kStreams});
  expect("input_norm", input_norm, {n});
  return {tokens, n, x.data(), router_norm.data(), router.data(), coefs.data(), input_norm.data(),
          eps};
}

void predict(ConstFloats3 x, ConstFloats1 router_norm, ConstFloats2 router, ConstFloats2 coefs,
             ConstFloats1 input_norm, float eps, Floats3 predictions, Floats2 first, Floats2 normed,
             Floats2 routes) {
  Expect expect{"training_predict"};
  const Predict call = predict_of(expect, x, router_norm, router, coefs, input_norm, eps);
  expect("predictions", predictions, {kStreams, call.tokens, call.width});
  expect("first", first, {call.tokens, call.width});
  expect("normed", normed, {call.tokens, call.width});
  expect("routes", routes, {call.tokens, kStreams});
  ReleasedGil release;
  training_predict(call, predictions.data(), first.data(), normed.data(), routes.data());
}

void predict_grad(ConstFloats3 x, ConstFloats1 router_norm, ConstFloats2 router, ConstFloats2 coefs,
                  ConstFloats1 input_norm, float eps, ConstFloats3 predictions, ConstFloats2 routes,
                  ConstFloats3 predictions_grad, ConstFloats2 first_grad, ConstFloats2 normed_grad,
                  Floats3 x_grad, Floats1 sums) {
  Expect expect{"training_predict_grad"};
  const Predict call = predict_of(expect, x, router_norm, router, coefs, input_norm, eps);
  expect("predictions", predictions, {kStreams, call.tokens, call.width});
  expect("routes", routes, {call.tokens, kStreams});
  expect("predictions_grad", predictions_grad, {kStreams, call.tokens, call.width});
  expect("first_grad", first_grad, {call.tokens, call.width});
  expect("normed_grad", normed_grad, {call.tokens, call.width});
  expect("x_grad", x_grad, {kStreams, call.tokens, call.width});
  expect("sums", sums, {(2 + kStreams) * call.width + kMixes * kStreams});
  ReleasedGil release;
  training_predict_grad(call, predictions.data(), routes.data(), predictions_grad.data(),
                        first_grad.data(), normed_grad.data(), x_grad.data(), sums.data());
}

void norm_grad(ConstFloats2 x, std::optional<ConstFloats1> weight, float eps, ConstFloats2 grad,
               Floats2 x_grad, Floats1 sums) {
  Expect expect{"training_norm_grad"};
  const int64_t tokens = size_of(x, 0), n = size_of(x, 1);
  if (weight) expect("weight", *weight, {n});
  expect("grad", grad, {tokens, n});
  expect("x_grad", x_grad, {tokens, n});
  expect("sums", sums, {weight ? n : 0});
  const float* factors = weight ? weight->data() : nullptr;
  ReleasedGil release;
  training_norm_grad(x.data(), tokens, n, factors, eps, grad.data(), x_grad.data(), sums.data());
}

PostAttention post_attention_of(Expect expect, ConstFloats2 first, ConstFloats2 attended,
                                ConstFloats1 attended_norm, ConstFloats2 normed,
                                ConstFloats2 laurel, ConstFloats1 laurel_norm,
                                ConstFloats1 next_norm, float eps) {
  const int64_t tokens = size_of(attended, 0), n = size_of(attended, 1);
  expect("first", first, {tokens, n});
  expect("attended_norm", attended_norm, {n});
  expect("normed", normed, {tokens, n});
  expect("laurel", laurel, {tokens, n});
  expect("laurel_norm", laurel_norm, {n});
  expect("next_norm", next_norm, {n});
  return {tokens,
          n,
          first.data(),
          attended.data(),
          attended_norm.data(),
          normed.data(),
          laurel.data(),
          laurel_norm.data(),
          next_norm.data(),
          eps};
}

void post_attention(ConstFloats2 first, ConstFloats2 attended, ConstFloats1 attended_norm,
                    ConstFloats2 normed, ConstFloats2 laurel, ConstFloats1 laurel_norm,
                    ConstFloats1 next_norm, float eps, Floats2 hidden, Floats2 next) {
  Expect expect{"training_post_attention"};
  const PostAttention call = post_attention_of(expect, first, attended, attended_norm, normed,
                                               laurel, laurel_norm, next_norm, eps);
  expect("hidden", hidden, {call.tokens, call.width});
  expect("next", next, {call.tokens, call.width});
  ReleasedGil release;
  training_post_attention(call, hidden.data(), next.data());
}

// The values of `first` and `normed` have no part in any gradient: hidden stands for them.
void post_attention_grad(ConstFloats2 attended, ConstFloats1 attended_norm, ConstFloats2 laurel,
                         ConstFloats1 laurel_norm, ConstFloats1 next_norm, float eps,
                         ConstFloats2 hidden, ConstFloats2 next_grad, Floats2 hidden_grad,
                         Floats2 attended_grad, Floats2 laurel_grad, Floats1 sums) {
  Expect expect{"training_post_attention_grad"};
  const PostAttention call = post_attention_of(expect, hidden, attended, attended_norm, hidden,
                                               laurel, laurel_norm, next_norm, eps);
  expect("next_grad", next_grad, {call.tokens, call.width});
  expect("hidden_grad", hidden_grad, {call.tokens, call.width});
  expect("attended_grad", attended_grad, {call.tokens, call.width});
  expect("laurel_grad", laurel_grad, {call.tokens, call.width});
  expect("sums", sums, {3 * call.width});
  ReleasedGil release;
  training_post_attention_grad(call, hidden.data(), next_grad.data(), hidden_grad.data(),
                               attended_grad.data(), laurel_grad.data(), sums.data());
}

Gated gated_of(Expect expect, ConstFloats2 gate, ConstFloats2 up, std::optional<float> multiplier) {
  const int64_t tokens = size_of(gate, 0), n = size_of(gate, 1);
  expect("up", up, {tokens, n});
  return {tokens, n, gate.data(), up.data(), multiplier.has_value(), multiplier.value_or(0.0f)};
}

void gated(ConstFloats2 gate, ConstFloats2 up, std::optional<float> multiplier, Floats2 act,
           Floats2 moments) {
  Expect expect{"training_gated"};
  const Gated call = gated_of(expect, gate, up, multiplier);
  expect("act", act, {call.tokens, call.width});
  expect("moments", moments, {call.tokens, 2});
  ReleasedGil release;
  training_gated(call, act.data(), moments.data());
}

void gated_grad(ConstFloats2 gate, ConstFloats2 up, std::optional<float> multiplier,
                ConstFloats2 moments, ConstFloats2 grad, Floats2 gate_grad, Floats2 up_grad) {
  Expect expect{"training_gated_grad"};
  const Gated call = gated_of(expect, gate, up, multiplier);
  expect("moments", moments, {call.tokens, 2});
  expect("grad", grad, {call.tokens, call.width});
  expect("gate_grad", gate_grad, {call.tokens, call.width});
  expect("up_grad", up_grad, {call.tokens, call.width});
  ReleasedGil release;
  training_gated_grad(call, moments.data(), grad.data(), gate_grad.data(), up_grad.data());
}

void head(Floats2 logits, std::optional<Floats2> teacher, Array<const int64_t, 1> labels, float cap,
          float teacher_cap, float entropy, float divergence, float temperature, Floats2 losses) {
  Expect expect{"training_head"};
  const int64_t tokens = size_of(logits, 0), vocabulary = size_of(logits, 1);
  if (teacher.has_value()) expect("teacher", *teacher, {tokens, vocabulary});
  expect("labels", labels, {tokens});
  expect("losses", losses, {tokens, 2});
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t label = labels.data()[t];
    if (label < 0 || label >= vocabulary) {
      throw std::invalid_argument("training_head: label " + std::to_string(t) + " is " +
                                  std::to_string(label) + ", expected one below " +
                                  std::to_string(vocabulary));
    }
  }
  const HeadRows call = {tokens,      vocabulary, labels.data(), cap,
                         teacher_cap, entropy,    divergence,    temperature};
  ReleasedGil release;
  training_head(call, logits.data(), teacher.has_value() ? teacher->data() : nullptr,
                losses.data());
}

Rotated rotated_of(Expect expect, ConstFloats3 x, ConstFloats1 weight, float eps,
                   ConstFloats2 cosine, ConstFloats2 sine) {
  const int64_t n = size_of(x, 2), positions = size_of(cosine, 0);
  if (n % 2 != 0 || positions == 0) {
    throw std::invalid_argument(std::string(expect.where) +
                                ": expected heads of an even width and "
                                "at least one position, got " +
                                std::to_string(n) + " and " + std::to_string(positions));
  }
  expect("weight", weight, {n});
  expect("cosine", cosine, {positions, n});
  expect("sine", sine, {positions, n});
  return {size_of(x, 0), size_of(x, 1), n,           positions, x.data(),
          weight.data(), cosine.data(), sine.data(), eps};
}

void rotated(ConstFloats3 x, ConstFloats1 weight, float eps, ConstFloats2 cosine, ConstFloats2 sine,
             Floats3 out) {
  Expect expect{"training_rotated"};
  const Rotated call = rotated_of(expect, x, weight, eps, cosine, sine);
  expect("out", out, {call.tokens, call.heads, call.width});
  ReleasedGil release;
  training_rotated(call, out.data());
}

void rotated_grad(ConstFloats3 x, ConstFloats1 weight, float eps, ConstFloats2 cosine,
                  ConstFloats2 sine, ConstFloats3 grad, Floats3 x_grad, Floats1 sums) {
  Expect expect{"training_rotated_grad"};
  const Rotated call = rotated_of(expect, x, weight, eps, cosine, sine);
  expect("grad", grad, {call.tokens, call.heads, call.width});
  expect("x_grad", x_grad, {call.tokens, call.heads, call.width});
  expect("sums", sums, {call.width});
  ReleasedGil release;
  training_rotated_grad(call, grad.data(), x_grad.data(), sums.data());
}

Correct correct_of(Expect expect, ConstFloats2 first, ConstFloats2 active, ConstFloats1 router_norm,
                   ConstFloats2 router, ConstFloats2 coefs, ConstFloats1 scale, float eps) {
  const int64_t tokens = size_of(active, 0), n = size_of(active, 1);
  expect("first", first, {tokens, n});
  expect("router_norm", router_norm, {n});
  expect("router", router, {kStreams, n});
  expect("coefs", coefs, {kStreams, kStreams});
  expect("scale", scale, {n});
  return {tokens,
          n,
          first.data(),
          active.data(),
          router_norm.data(),
          router.data(),
          coefs.data(),
          scale.data(),
          eps};
}

void correct_first(ConstFloats2 first, ConstFloats2 active, ConstFloats1 router_norm,
                   ConstFloats2 router, ConstFloats2 coefs, ConstFloats1 scale, float eps,
                   Floats2 gains, Floats2 routes, Floats2 scaled) {
  Expect expect{"training_correct_first"};
  const Correct call = correct_of(expect, first, active, router_norm, router, coefs, scale, eps);
  expect("gains", gains, {call.tokens, kStreams});
  expect("routes", routes, {call.tokens, kStreams});
  expect("scaled", scaled, {call.tokens, call.width});
  ReleasedGil release;
  training_correct_first(call, gains.data(), routes.data(), scaled.data());
}

void correct_first_grad(ConstFloats2 first, ConstFloats2 active, ConstFloats1 router_norm,
                        ConstFloats2 router, ConstFloats2 coefs, ConstFloats1 scale, float eps,
                        ConstFloats2 gains, ConstFloats2 routes, ConstFloats2 scaled_grad,
                        Floats2 gains_grad, Floats2 first_grad, Floats2 active_grad, Floats1 sums) {
  Expect expect{"training_correct_first_grad"};
  const Correct call = correct_of(expect, first, active, router_norm, router, coefs, scale, eps);
  expect("gains", gains, {call.tokens, kStreams});
  expect("routes", routes, {call.tokens, kStreams});
  expect("scaled_grad", scaled_grad, {call.tokens, call.width});
  expect("gains_grad", gains_grad, {call.tokens, kStreams});
  expect("first_grad", first_grad, {call.tokens, call.width});
  expect("active_grad", active_grad, {call.tokens, call.width});
  expect("sums", sums, {(2 + kStreams) * call.width + kMixes});
  ReleasedGil release;
  training_correct_first_grad(call, gains.data(), routes.data(), scaled_grad.data(),
                              gains_grad.data(), first_grad.data(), active_grad.data(),
                              sums.data());
}

CorrectAll correct_all_of(Expect expect, ConstFloats3 predictions, ConstFloats2 active,
                          ConstFloats2 gains, ConstFloats2 added, ConstFloats1 added_norm,
                          float eps) {
  const int64_t tokens = size_of(active, 0), n = size_of(active, 1);
  expect("predictions", predictions, {kStreams, tokens, n});
  expect("gains", gains, {tokens, kStreams});
  expect("added", added, {tokens, n});
  expect("added_norm", added_norm, {n});
  return {
      tokens, n, predictions.data(), active.data(), gains.data(), added.data(), added_norm.data(),
      eps};
}

void correct_all(ConstFloats3 predictions, ConstFloats2 active, ConstFloats2 gains,
                 ConstFloats2 added, ConstFloats1 added_norm, float eps, Floats3 x) {
  Expect expect{"training_correct_all"};
  const CorrectAll call =
      correct_all_of(expect, predictions, active, gains, added, added_norm, eps);
  expect("x", x, {kStreams, call.tokens, call.width});
  ReleasedGil release;
  training_correct_all(call, x.data());
}

void correct_all_grad(ConstFloats3 predictions, ConstFloats2 active, ConstFloats2 gains,
                      ConstFloats2 added, ConstFloats1 added_norm, float eps, ConstFloats3 grad,
                      Floats2 first_grad, Floats2 active_grad, Floats2 added_grad,
                      Floats2 gains_grad, Floats1 sums) {
  Expect expect{"training_correct_all_grad"};
  const CorrectAll call =
      correct_all_of(expect, predictions, active, gains, added, added_norm, eps);
  expect("grad", grad, {kStreams, call.tokens, call.width});
  expect("first_grad", first_grad, {call.tokens, call.width});
  expect("active_grad", active_grad, {call.tokens, call.width});
  expect("added_grad", added_grad, {call.tokens, call.width});
  expect("gains_grad", gains_grad, {call.tokens, kStreams});
  expect("sums", sums, {call.width});
  ReleasedGil release;
  training_correct_all_grad(call, grad.data(), first_grad.data(), active_grad.data(),
                            added_grad.data(), gains_grad.data(), sums.data());
}

}  // namespace

void bind_training(nb::module_& module) {
  module.def("training_predict", &predict, arg("x").noconvert(), arg("router_norm").noconvert(),
             arg("router").noconvert(), arg("coefs").noconvert(), arg("input_norm").noconvert(),
             arg("eps"), arg("predictions").noconvert(), arg("first").noconvert(),
             arg("normed").noconvert(), arg("routes").noconvert());
  module.def("training_predict_grad", &predict_grad, arg("x").noconvert(),
             arg("router_norm").noconvert(), arg("router").noconvert(), arg("coefs").noconvert(),
             arg("input_norm").noconvert(), arg("eps"), arg("predictions").noconvert(),
             arg("routes").noconvert(), arg("predictions_grad").noconvert(),
             arg("first_grad").noconvert(), arg("normed_grad").noconvert(),
             arg("x_grad").noconvert(), arg("sums").noconvert());
  module.def("training_norm_grad", &norm_grad, arg("x").noconvert(),
             arg("weight").noconvert().none(), arg("eps"), arg("grad").noconvert(),
             arg("x_grad").noconvert(), arg("sums").noconvert());
  module.def("training_post_attention", &post_attention, arg("first").noconvert(),
             arg("attended").noconvert(), arg("attended_norm").noconvert(),
             arg("normed").noconvert(), arg("laurel").noconvert(), arg("laurel_norm").noconvert(),
             arg("next_norm").noconvert(), arg("eps"), arg("hidden").noconvert(),
             arg("next").noconvert());
  module.def("training_post_attention_grad", &post_attention_grad, arg("attended").noconvert(),
             arg("attended_norm").noconvert(), arg("laurel").noconvert(),
             arg("laurel_norm").noconvert(), arg("next_norm").noconvert(), arg("eps"),
             arg("hidden").noconvert(), arg("next_grad").noconvert(),
             arg("hidden_grad").noconvert(), arg("attended_grad").noconvert(),
             arg("laurel_grad").noconvert(), arg("sums").noconvert());
  module.def("training_gated", &gated, arg("gate").noconvert(), arg("up").noconvert(),
             arg("multiplier").none(), arg("act").noconvert(), arg("moments").noconvert());
  module.def("training_gated_grad", &gated_grad, arg("gate").noconvert(), arg("up").noconvert(),
             arg("multiplier").none(), arg("moments").noconvert(), arg("grad").noconvert(),
             arg("gate_grad").noconvert(), arg("up_grad").noconvert());
  module.def("training_head", &head, arg("logits").noconvert(), arg("teacher").none().noconvert(),
             arg("labels").noconvert(), arg("cap"), arg("teacher_cap"), arg("entropy"),
             arg("divergence"), arg("temperature"), arg("losses").noconvert());
  module.def("training_rotated", &rotated, arg("x").noconvert(), arg("weight").noconvert(),
             arg("eps"), arg("cosine").noconvert(), arg("sine").noconvert(),
             arg("out").noconvert());
  module.def("training_rotated_grad", &rotated_grad, arg("x").noconvert(),
             arg("weight").noconvert(), arg("eps"), arg("cosine").noconvert(),
             arg("sine").noconvert(), arg("grad").noconvert(), arg("x_grad").noconvert(),
             arg("sums").noconvert());
  module.def("training_correct_first", &correct_first, arg("first").noconvert(),
             arg("active").noconvert(), arg("router_norm").noconvert(), arg("router").noconvert(),
             arg("coefs").noconvert(), arg("scale").noconvert(), arg("eps"),
             arg("gains").noconvert(), arg("routes").noconvert(), arg("scaled").noconvert());
  module.def("training_correct_first_grad", &correct_first_grad, arg("first").noconvert(),
             arg("active").noconvert(), arg("router_norm").noconvert(), arg("router").noconvert(),
             arg("coefs").noconvert(), arg("scale").noconvert(), arg("eps"),
             arg("gains").noconvert(), arg("routes").noconvert(), arg("scaled_grad").noconvert(),
             arg("gains_grad").noconvert(), arg("first_grad").noconvert(),
             arg("active_grad").noconvert(), arg("sums").noconvert());
  module.def("training_correct_all", &correct_all, arg("predictions").noconvert(),
             arg("active").noconvert(), arg("gains").noconvert(), arg("added").noconvert(),
             arg("added_norm").noconvert(), arg("eps"), arg("x").noconvert());
  module.def("training_correct_all_grad", &correct_all_grad, arg("predictions").noconvert(),
             arg("active").noconvert(), arg("gains").noconvert(), arg("added").noconvert(),
             arg("added_norm").noconvert(), arg("eps"), arg("grad").noconvert(),
             arg("first_grad").noconvert(), arg("active_grad").noconvert(),
             arg("added_grad").noconvert(), arg("gains_grad").noconvert(), arg("sums").noconvert());
}

}  // namespace matryo
