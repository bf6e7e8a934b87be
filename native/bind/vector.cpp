// Norms, the ends of the AltUp streams, and the two AltUp blocks of a layer.
#include <nanobind/stl/optional.h>

#include <cmath>
#include <optional>

#include "bind.h"
#include "blocks/altup.h"
#include "blocks/norms.h"
#include "pool.h"

namespace matryo {
namespace {

using nb::arg;

void expect_eps(const char* where, float eps) {
  if (eps >= 0.0f && std::isfinite(eps)) return;
  throw std::invalid_argument(std::string(where) + ": eps must be finite and >= 0, got " +
                              std::to_string(eps));
}

template <class ArrayType>
int64_t size_of(const ArrayType& array, size_t dimension) {
  return static_cast<int64_t>(array.shape(dimension));
}

void rms_norm(ConstFloats2 x, std::optional<ConstFloats1> weight, float eps, Floats2 out) {
  const int64_t tokens = size_of(x, 0), n = size_of(x, 1);
  if (weight) expect_shape("rms_norm", "weight", *weight, {n});
  expect_shape("rms_norm", "out", out, {tokens, n});
  expect_eps("rms_norm", eps);
  const float* factors = weight ? weight->data() : nullptr;
  ReleasedGil release;
  rms_norm_rows(x.data(), tokens, n, factors, eps, out.data());
}

void expand(ConstFloats2 e, Floats3 y) {
  const int64_t tokens = size_of(e, 0), n = size_of(e, 1);
  expect_shape("altup_expand", "y", y, {kStreams - 1, tokens, n});
  ReleasedGil release;
  altup_expand(e.data(), tokens, n, y.data());
}

void merge(ConstFloats3 x, ConstFloats3 y, ConstFloats1 weight, float eps, Floats2 out) {
  const int64_t tokens = size_of(out, 0), n = size_of(out, 1);
  expect_shape("altup_merge", "x", x, {kStreams, tokens, n});
  expect_shape("altup_merge", "y", y, {kStreams - 1, tokens, n});
  expect_shape("altup_merge", "weight", weight, {n});
  expect_eps("altup_merge", eps);
  ReleasedGil release;
  altup_merge(x.data(), y.data(), weight.data(), eps, tokens, n, out.data());
}

void combine(ConstFloats2 projection, ConstFloats2 raw, ConstFloats1 weight, float eps,
             Floats2 out) {
  const int64_t tokens = size_of(projection, 0), cols = size_of(projection, 1),
                dim = size_of(weight, 0);
  if (dim == 0 || cols % dim != 0) {
    throw std::invalid_argument("ple_combine: projection has " + std::to_string(cols) +
                                " columns, expected a multiple of the " + std::to_string(dim) +
                                " of weight");
  }
  expect_shape("ple_combine", "raw", raw, {tokens, cols});
  expect_shape("ple_combine", "out", out, {tokens, cols});
  expect_eps("ple_combine", eps);
  ReleasedGil release;
  ple_combine(projection.data(), raw.data(), weight.data(), eps, tokens, cols / dim, dim,
              out.data());
}

void predict(const Layer& layer, ConstFloats3 x, Floats3 predictions, Floats2 normed) {
  const int64_t tokens = size_of(normed, 0), n = layer.view.hidden_size;
  expect_shape("altup_predict", "x", x, {kStreams, tokens, n});
  expect_shape("altup_predict", "predictions", predictions, {kStreams, tokens, n});
  expect_shape("altup_predict", "normed", normed, {tokens, n});
  ReleasedGil release;
  altup_predict(layer.view, x.data(), tokens, predictions.data(), normed.data());
}

void correct(const Layer& layer, ConstFloats3 predictions, ConstFloats2 active_out,
             ConstFloats2 ple_inputs, Floats3 x) {
  const int64_t tokens = size_of(active_out, 0), n = layer.view.hidden_size;
  expect_shape("altup_correct", "predictions", predictions, {kStreams, tokens, n});
  expect_shape("altup_correct", "active_out", active_out, {tokens, n});
  expect_shape("altup_correct", "ple_inputs", ple_inputs, {tokens, layer.view.ple_gate.rows});
  expect_shape("altup_correct", "x", x, {kStreams, tokens, n});
  ReleasedGil release;
  altup_correct(layer.view, predictions.data(), active_out.data(), ple_inputs.data(), tokens,
                x.data());
}

}  // namespace

void bind_vector(nb::module_& module) {
  module.def("rms_norm", &rms_norm, arg("x").noconvert(), arg("weight").noconvert().none(),
             arg("eps"), arg("out").noconvert(),
             "out (T,n) f32 = x (T,n) / sqrt(mean(x²) + eps), times weight (n) if there is one.");
  module.def("altup_expand", &expand, arg("e").noconvert(), arg("y").noconvert(),
             "Rescale y (A-1,T,d) in place to the magnitude of e (T,d).");
  module.def("altup_merge", &merge, arg("x").noconvert(), arg("y").noconvert(),
             arg("weight").noconvert(), arg("eps"), arg("out").noconvert(),
             "out (T,d) = the average of x[0] and y (A-1,T,d) rescaled to its magnitude, normed "
             "with weight (d).");
  module.def("ple_combine", &combine, arg("projection").noconvert(), arg("raw").noconvert(),
             arg("weight").noconvert(), arg("eps"), arg("out").noconvert(),
             "out (T,n·P) = (rms(projection, slot by slot) · weight (P) + raw) / sqrt 2.");
  module.def(
      "altup_predict", &predict, arg("layer"), arg("x").noconvert(), arg("predictions").noconvert(),
      arg("normed").noconvert(),
      "predictions (A,T,d) of the streams x (A,T,d); normed (T,d) = input norm of predictions[0].");
  module.def("altup_correct", &correct, arg("layer"), arg("predictions").noconvert(),
             arg("active_out").noconvert(), arg("ple_inputs").noconvert(), arg("x").noconvert(),
             "x (A,T,d) = predictions corrected by active_out (T,d), per-layer inputs (T,P) added "
             "to streams 1..3.");
}

}  // namespace matryo
