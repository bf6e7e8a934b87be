// The feed-forward block of a layer.
#include "blocks/feed_forward.h"

#include "bind.h"

namespace matryo {
namespace {

void expect_width(const LayerView& layer, int64_t width) {
  if (width >= 0 && width <= layer.num_units() && width % kGroup == 0) return;
  throw std::invalid_argument("feed_forward: width is " + std::to_string(width) +
                              ", expected a multiple of " + std::to_string(kGroup) + " in 0.." +
                              std::to_string(layer.num_units()) + ", the units of this layer");
}

void feed(const Layer& layer, ConstFloats2 hidden, int64_t width, Floats2 out) {
  const auto tokens = static_cast<int64_t>(hidden.shape(0));
  expect_shape("feed_forward", "hidden", hidden, {tokens, layer.view.hidden_size});
  expect_shape("feed_forward", "out", out, {tokens, layer.view.hidden_size});
  expect_width(layer.view, width);
  ReleasedGil release;
  feed_forward(layer.view, hidden.data(), tokens, width, out.data());
}

}  // namespace

void bind_feed_forward(nb::module_& module) {
  module.def("feed_forward", &feed, nb::arg("layer"), nb::arg("hidden").noconvert(),
             nb::arg("width"), nb::arg("out").noconvert(),
             "out (T,d) = hidden (T,d) + rms(ffn(rms(hidden))) over the first `width` units, a "
             "multiple of 32.");
}

}  // namespace matryo
