// The operations of the vision encoder.
#include "blocks/vision.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <cmath>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <optional>
#include <string>

#include "bind.h"

namespace matryo {
namespace {

using nb::arg;
using OptionalVector = std::optional<ConstFloats1>;
using OptionalPicture = std::optional<ConstFloats3>;
using Weights = nb::ndarray<nb::ro, nb::ndim<4>, nb::c_contig, nb::device::cpu>;

constexpr int64_t kMostValues = int64_t{1} << 40;  // products of sizes stay far from overflow

// The Python class Filter. Shared, so that a call keeps the weights it computes with.
struct Filter {
  std::shared_ptr<const PackedFilter> packed;
  const FilterView& view() const { return packed->view(); }
};

PackedFilter::Shape filter_shape(const Weights& weights) {
  PackedFilter::Shape shape = {};
  int64_t* const sizes[] = {&shape.out_channels, &shape.kernel_height, &shape.kernel_width,
                            &shape.in_channels};
  for (size_t i = 0; i < 4; ++i) {
    *sizes[i] = static_cast<int64_t>(weights.shape(i));
    if (*sizes[i] >= 1) continue;
    std::vector<size_t> got;
    for (size_t k = 0; k < 4; ++k) got.push_back(weights.shape(k));
    throw std::invalid_argument("Filter: weights have shape " + shape_text(got.data(), 4) +
                                ", expected (Co, kh, kw, Ci), none of them 0");
  }
  return shape;
}

// Larger weights would overflow the sums of pixels.
void expect_bounded(const PackedFilter::Shape& shape, const int16_t* weights) {
  for (int64_t channel = 0; channel < shape.out_channels; ++channel) {
    const int16_t* row = weights + channel * shape.depth();
    const auto sum = std::accumulate(row, row + shape.depth(), int64_t{0},
                                     [](int64_t a, int16_t w) { return a + std::abs(int{w}); });
    if (sum <= kMostWeights) continue;
    throw std::invalid_argument("Filter: the int16 weights of channel " + std::to_string(channel) +
                                " add up to " + std::to_string(sum) + ", expected at most " +
                                std::to_string(kMostWeights) + " without their signs");
  }
}

void construct_filter(Filter* self, const Weights& weights, const OptionalVector& scales) {
  const PackedFilter::Shape shape = filter_shape(weights);
  const bool bytes = weights.dtype() == nb::dtype<int8_t>(),
             words = weights.dtype() == nb::dtype<int16_t>();
  if (!bytes && !words && weights.dtype() != nb::dtype<float>() &&
      weights.dtype() != nb::dtype<uint16_t>()) {
    throw nb::type_error(
        "Filter: weights must be float32, bf16 as uint16, or int8 or int16 with scales");
  }
  if ((bytes || words) != scales.has_value()) {
    throw std::invalid_argument(bytes || words ? "Filter: integer weights need scales (Co)"
                                               : "Filter: scales belong to integer weights only");
  }
  if (scales) expect_shape("Filter", "scales", *scales, {shape.out_channels});
  if (words) expect_bounded(shape, static_cast<const int16_t*>(weights.data()));
  std::shared_ptr<const PackedFilter> packed;
  {
    ReleasedGil release;
    if (bytes) {
      packed = std::make_shared<PackedFilter>(shape, static_cast<const int8_t*>(weights.data()),
                                              scales->data());
    } else if (words) {
      packed = std::make_shared<PackedFilter>(shape, static_cast<const int16_t*>(weights.data()),
                                              scales->data());
    } else if (weights.dtype() == nb::dtype<float>()) {
      packed = std::make_shared<PackedFilter>(shape, static_cast<const float*>(weights.data()));
    } else {
      packed = std::make_shared<PackedFilter>(shape, static_cast<const uint16_t*>(weights.data()));
    }
  }
  new (self) Filter{std::move(packed)};
}

template <class ArrayType>
int64_t size_of(const ArrayType& array, size_t dimension) {
  return static_cast<int64_t>(array.shape(dimension));
}

const float* data_of(const OptionalVector& vector) { return vector ? vector->data() : nullptr; }
const float* data_of(const OptionalPicture& picture) { return picture ? picture->data() : nullptr; }

Picture picture_of(const char* where, const ConstFloats3& x) {
  const Picture picture = {x.data(), size_of(x, 0), size_of(x, 1), size_of(x, 2)};
  if (picture.height < 1 || picture.width < 1 || picture.channels < 1) {
    const size_t sizes[] = {x.shape(0), x.shape(1), x.shape(2)};
    throw std::invalid_argument(std::string(where) + ": x has shape " + shape_text(sizes, 3) +
                                ", expected (H, W, C), none of them 0");
  }
  return picture;
}

void expect_stride(const char* where, int64_t stride) {
  if (stride >= 1 && stride <= 1 << 20) return;
  throw std::invalid_argument(std::string(where) + ": stride is " + std::to_string(stride) +
                              ", expected 1 or more");
}

void expect_eps(const char* where, float eps) {
  if (eps >= 0.0f && std::isfinite(eps)) return;
  throw std::invalid_argument(std::string(where) + ": eps must be finite and >= 0, got " +
                              std::to_string(eps));
}

void expect_vector(const char* where, const char* name, const OptionalVector& vector, int64_t n) {
  if (vector) expect_shape(where, name, *vector, {n});
}

// Outputs written while other pixels still read their inputs.
void expect_apart(const char* where, const ConstFloats3& x, const Floats3& out) {
  if (x.data() + x.size() <= out.data() || out.data() + out.size() <= x.data()) return;
  throw std::invalid_argument(std::string(where) + ": out overlaps x; expected another array");
}

void expect_input(const char* where, const char* name, const FilterView& filter, int64_t channels) {
  if (filter.in_channels == channels) return;
  throw std::invalid_argument(std::string(where) + ": " + name + " reads " +
                              std::to_string(filter.in_channels) + " channels, x has " +
                              std::to_string(channels));
}

void bound_conv(const Filter& filter, ConstFloats3 x, int64_t stride, Floats3 out,
                OptionalVector bias, OptionalVector norm, float eps, bool gelu,
                OptionalVector gamma, OptionalPicture residual) {
  constexpr const char* kWhere = "conv";
  const std::shared_ptr<const PackedFilter> packed = filter.packed;
  const Picture picture = picture_of(kWhere, x);
  const int64_t channels = packed->view().panels.channels;
  expect_stride(kWhere, stride);
  expect_eps(kWhere, eps);
  expect_input(kWhere, "filter", packed->view(), picture.channels);
  const int64_t height = outputs_of(picture.height, stride),
                width = outputs_of(picture.width, stride);
  expect_shape(kWhere, "out", out, {height, width, channels});
  expect_vector(kWhere, "bias", bias, channels);
  expect_vector(kWhere, "norm", norm, channels);
  expect_vector(kWhere, "gamma", gamma, channels);
  if (residual) expect_shape(kWhere, "residual", *residual, {height, width, channels});
  expect_apart(kWhere, x, out);
  const Finish finish = {data_of(bias), data_of(norm),  eps,
                         gelu,          data_of(gamma), data_of(residual)};
  ReleasedGil release;
  conv(packed->view(), picture, stride, finish, out.data());
}

void bound_depthwise(ConstFloats3 weight, ConstFloats3 x, int64_t stride, Floats3 out,
                     OptionalVector norm, float eps, bool gelu) {
  constexpr const char* kWhere = "depthwise";
  const Picture picture = picture_of(kWhere, x);
  expect_stride(kWhere, stride);
  expect_eps(kWhere, eps);
  const int64_t kernel = size_of(weight, 0);
  if (kernel < 1) throw std::invalid_argument("depthwise: weight has no taps, expected (k, k, C)");
  expect_shape(kWhere, "weight", weight, {kernel, kernel, picture.channels});
  expect_shape(
      kWhere, "out", out,
      {outputs_of(picture.height, stride), outputs_of(picture.width, stride), picture.channels});
  expect_vector(kWhere, "norm", norm, picture.channels);
  expect_apart(kWhere, x, out);
  const Finish finish = {nullptr, data_of(norm), eps, gelu, nullptr, nullptr};
  ReleasedGil release;
  depthwise(weight.data(), kernel, picture, stride, finish, out.data());
}

void bound_bottleneck(const Filter& expand, const Filter& project, ConstFloats3 x, Floats3 out,
                      ConstFloats1 norm_expand, ConstFloats1 norm_project, float eps,
                      OptionalVector gamma, OptionalPicture residual, OptionalPicture coarse) {
  constexpr const char* kWhere = "inverted_bottleneck";
  const std::shared_ptr<const PackedFilter> first = expand.packed, second = project.packed;
  const Picture picture = picture_of(kWhere, x);
  const FilterView &wide = first->view(), &narrow = second->view();
  expect_eps(kWhere, eps);
  if (!wide.pointwise() || !narrow.pointwise()) {
    throw std::invalid_argument("inverted_bottleneck: expected two filters of kernel 1");
  }
  expect_input(kWhere, "expand", wide, picture.channels);
  if (narrow.in_channels != wide.panels.channels) {
    throw std::invalid_argument("inverted_bottleneck: project reads " +
                                std::to_string(narrow.in_channels) + " channels, expand writes " +
                                std::to_string(wide.panels.channels));
  }
  const int64_t channels = narrow.panels.channels;
  expect_shape(kWhere, "out", out, {picture.height, picture.width, channels});
  expect_shape(kWhere, "norm_expand", norm_expand, {wide.panels.channels});
  expect_shape(kWhere, "norm_project", norm_project, {channels});
  expect_vector(kWhere, "gamma", gamma, channels);
  if (residual)
    expect_shape(kWhere, "residual", *residual, {picture.height, picture.width, channels});
  Picture added = {};
  if (coarse) {
    added = picture_of(kWhere, *coarse);
    expect_shape(kWhere, "coarse", *coarse, {added.height, added.width, wide.panels.channels});
  }
  expect_apart(kWhere, x, out);
  const Finish middle = {nullptr, norm_expand.data(), eps, true, nullptr, nullptr};
  const Finish finish = {nullptr, norm_project.data(), eps,
                         false,   data_of(gamma),      data_of(residual)};
  ReleasedGil release;
  inverted_bottleneck(wide, narrow, picture, added, middle, finish, out.data());
}

void bound_attend_pixels(ConstFloats2 q, ConstFloats2 k, ConstFloats2 v, int64_t heads, float scale,
                         Floats2 out) {
  constexpr const char* kWhere = "attend_pixels";
  const int64_t pixels = size_of(q, 0), keys = size_of(k, 0), dim = size_of(k, 1);
  if (heads < 1 || heads > kMostValues || dim < 1 || keys < 1) {
    throw std::invalid_argument(
        "attend_pixels: expected heads >= 1 and k (M, kd) with M >= 1 and kd >= 1");
  }
  if (!(scale > 0.0f) || !std::isfinite(scale)) {
    throw std::invalid_argument("attend_pixels: scale must be finite and > 0, got " +
                                std::to_string(scale));
  }
  expect_shape(kWhere, "v", v, {keys, dim});
  expect_shape(kWhere, "q", q, {pixels, heads * dim});
  expect_shape(kWhere, "out", out, {pixels, heads * dim});
  ReleasedGil release;
  attend_pixels({q.data(), k.data(), v.data(), pixels * heads, keys, dim, scale}, out.data());
}

}  // namespace

void bind_vision(nb::module_& module) {
  nb::class_<Filter>(module, "Filter",
                     "Packed weights (Co, kh, kw, Ci) of a dense convolution, a copy.")
      .def("__init__", &construct_filter, arg("weights").noconvert(),
           arg("scales").noconvert().none() = nb::none())
      .def_prop_ro("kind",
                   [](const Filter& self) {
                     const PanelsView& panels = self.view().panels;
                     return std::string(panels.codes ? "i8" : panels.words ? "i16" : "f32");
                   })
      .def_prop_ro("shape",
                   [](const Filter& self) {
                     return nb::make_tuple(self.view().panels.channels, self.view().kernel_height,
                                           self.view().kernel_width, self.view().in_channels);
                   })
      .def_prop_ro("nbytes", [](const Filter& self) { return self.packed->bytes(); });
  module.def("conv", &bound_conv, arg("filter"), arg("x").noconvert(), arg("stride"),
             arg("out").noconvert(), arg("bias").noconvert().none() = nb::none(),
             arg("norm").noconvert().none() = nb::none(), arg("eps") = 1e-6f, arg("gelu") = false,
             arg("gamma").noconvert().none() = nb::none(),
             arg("residual").noconvert().none() = nb::none(),
             "out (H',W',Co) = x (H,W,Ci) convolved, + bias, RMS norm, GELU, * gamma, + residual.");
  module.def("depthwise", &bound_depthwise, arg("weight").noconvert(), arg("x").noconvert(),
             arg("stride"), arg("out").noconvert(), arg("norm").noconvert().none() = nb::none(),
             arg("eps") = 1e-6f, arg("gelu") = false,
             "out (H',W',C): weight (k,k,C) over x (H,W,C), channel by channel, RMS norm, GELU.");
  module.def("inverted_bottleneck", &bound_bottleneck, arg("expand"), arg("project"),
             arg("x").noconvert(), arg("out").noconvert(), arg("norm_expand").noconvert(),
             arg("norm_project").noconvert(), arg("eps"),
             arg("gamma").noconvert().none() = nb::none(),
             arg("residual").noconvert().none() = nb::none(),
             arg("coarse").noconvert().none() = nb::none(),
             "out (H,W,Co): two pointwise convolutions, + coarse, norm and GELU between, norm, "
             "* gamma, + residual after.");
  module.def("attend_pixels", &bound_attend_pixels, arg("q").noconvert(), arg("k").noconvert(),
             arg("v").noconvert(), arg("heads"), arg("scale"), arg("out").noconvert(),
             "out (N,heads*kd) = softmax(scale * q kT) v, one k and v (M,kd) for all heads.");
}

}  // namespace matryo
