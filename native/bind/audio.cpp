// The operations of the sound encoder.
#include "blocks/audio.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "bind.h"

namespace matryo {
namespace {

using nb::arg;
using ConstBytes1 = Array<const uint8_t, 1>;
using Doubles1 = Array<double, 1>;

constexpr int64_t kMostPast = 1 << 16;  // counts of keys and taps fit 32 bits

template <class ArrayType>
int64_t size_of(const ArrayType& array, size_t dimension) {
  return static_cast<int64_t>(array.shape(dimension));
}

void expect_positive(const char* where, const char* name, float value) {
  if (value > 0.0f && std::isfinite(value)) return;
  throw std::invalid_argument(std::string(where) + ": " + name + " must be finite and > 0, got " +
                              std::to_string(value));
}

void expect_finite(const char* where, const char* name, float value) {
  if (std::isfinite(value)) return;
  throw std::invalid_argument(std::string(where) + ": " + name + " must be finite, got " +
                              std::to_string(value));
}

// Rows of `array` as a count of keys or taps.
int64_t count_of(const char* where, const char* name, int64_t rows) {
  if (rows >= 1 && rows <= kMostPast) return rows;
  throw std::invalid_argument(std::string(where) + ": " + name + " has " + std::to_string(rows) +
                              " rows, expected 1.." + std::to_string(kMostPast));
}

// The Python class: stored weights for many rows at once, a view and the reference that keeps its
// data alive.
struct DenseMatrix {
  DenseView view;
  nb::object data;
};

void construct(DenseMatrix* self, const std::string& kind_text, int64_t rows, int64_t cols,
               nb::object data) {
  using Stored = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
  const DenseKind kind = dense_kind_from_name(kind_text);
  constexpr int64_t kMost = 1 << 30;
  if (rows < 1 || cols < 1 || rows > kMost || cols > kMost) {
    throw std::invalid_argument("DenseMatrix: rows and cols must lie in 1..2^30, got " +
                                std::to_string(rows) + " x " + std::to_string(cols));
  }
  Stored array;
  if (!nb::try_cast<Stored>(data, array, false)) {
    throw nb::type_error("DenseMatrix: data must be a C-contiguous CPU array");
  }
  const DenseView view = {kind, rows, cols, dense_stride(kind, cols),
                          static_cast<const uint8_t*>(array.data())};
  const nb::dlpack::dtype type = kind == kDenseF32    ? nb::dtype<float>()
                                 : kind == kDenseBf16 ? nb::dtype<uint16_t>()
                                                      : nb::dtype<uint8_t>();
  if (array.dtype() != type || array.ndim() == 0 ||
      static_cast<int64_t>(array.shape(0)) != view.panels() ||
      static_cast<int64_t>(array.nbytes()) != view.panels() * view.stride) {
    throw std::invalid_argument(
        "DenseMatrix: " + kind_text + " matrix of " + std::to_string(rows) + " x " +
        std::to_string(cols) + " is stored as " + std::to_string(view.panels()) + " panels of " +
        std::to_string(view.stride) + " bytes, got " + std::to_string(array.nbytes()) +
        " bytes of " + std::to_string(type.bits) + "-bit elements or another dtype");
  }
  if (reinterpret_cast<uintptr_t>(array.data()) % sizeof(float) != 0) {
    throw std::invalid_argument("DenseMatrix: data must be aligned to 4 bytes");
  }
  new (self) DenseMatrix{view, std::move(data)};
}

void expect_size(const char* where, const char* name, const DenseView& w, int64_t rows,
                 int64_t cols) {
  if ((rows < 0 || w.rows == rows) && w.cols == cols) return;
  throw std::invalid_argument(std::string(where) + ": " + name + " is " + std::to_string(w.rows) +
                              " x " + std::to_string(w.cols) + ", expected " +
                              (rows < 0 ? "any number of rows" : std::to_string(rows)) + " x " +
                              std::to_string(cols));
}

void expect_norm(const char* where, const char* name, const std::optional<ConstFloats1>& norm,
                 int64_t width, float clip, float eps) {
  if (norm) expect_shape(where, name, *norm, {width});
  expect_positive(where, "clip", clip);
  expect_positive(where, "eps", eps);
}

const float* data_of(const std::optional<ConstFloats1>& vector) {
  return vector ? vector->data() : nullptr;
}

// Writing one while the other is still read.
template <class A, class B>
void expect_apart(const char* where, const char* name, const A& x, const B& out) {
  const auto *first = x.data(), *other = static_cast<const float*>(out.data());
  if (first + x.size() <= other || other + out.size() <= first) return;
  throw std::invalid_argument(std::string(where) + ": out must not be " + name);
}

void feed_forward(const DenseMatrix& up, const DenseMatrix& down, ConstFloats1 pre_norm,
                  ConstFloats1 post_norm, std::optional<ConstFloats1> end_norm, float gain,
                  float clip, float eps, ConstFloats2 x, Floats2 out) {
  constexpr const char* kWhere = "audio_feed_forward";
  const int64_t frames = size_of(x, 0), width = size_of(x, 1);
  expect_size(kWhere, "up", up.view, -1, width);
  expect_size(kWhere, "down", down.view, width, up.view.rows);
  expect_shape(kWhere, "pre_norm", pre_norm, {width});
  expect_shape(kWhere, "post_norm", post_norm, {width});
  expect_norm(kWhere, "end_norm", end_norm, width, clip, eps);
  expect_shape(kWhere, "out", out, {frames, width});
  expect_finite(kWhere, "gain", gain);
  expect_apart(kWhere, "x", x, out);
  const AudioFeedForward call = {
      up.view, down.view, pre_norm.data(), post_norm.data(), data_of(end_norm), gain, clip, eps};
  ReleasedGil release;
  audio_feed_forward(call, x.data(), frames, out.data());
}

void project(const nb::sequence& ws, std::optional<ConstFloats1> norm, float clip, float eps,
             ConstFloats2 x, const nb::sequence& outs) {
  constexpr const char* kWhere = "audio_project";
  const int64_t frames = size_of(x, 0), width = size_of(x, 1);
  if (nb::len(ws) != nb::len(outs)) {
    throw std::invalid_argument(std::string(kWhere) + ": " + std::to_string(nb::len(ws)) +
                                " matrices and " + std::to_string(nb::len(outs)) + " outs");
  }
  expect_norm(kWhere, "norm", norm, width, clip, eps);
  std::vector<DenseView> views;
  std::vector<float*> data;
  std::vector<Floats2> arrays;
  for (nb::handle item : ws) {
    if (!nb::isinstance<DenseMatrix>(item)) {
      throw nb::type_error("audio_project: expected a sequence of DenseMatrix");
    }
    const DenseView& view = nb::cast<const DenseMatrix&>(item).view;
    expect_size(kWhere, "a matrix", view, -1, width);
    if (!views.empty() && view.codes() != views[0].codes()) {
      throw std::invalid_argument(std::string(kWhere) + ": expected matrices of one kind");
    }
    views.push_back(view);
  }
  for (nb::handle item : outs) {
    Floats2 out;
    if (!nb::try_cast<Floats2>(item, out, false)) {
      throw nb::type_error("audio_project: outs must be C-contiguous float32 of two dimensions");
    }
    expect_shape(kWhere, "an out", out, {frames, views[arrays.size()].rows});
    expect_apart(kWhere, "x", x, out);
    data.push_back(out.data());
    arrays.push_back(out);
  }
  const AudioProjection call = {views.data(), static_cast<int64_t>(views.size()), data_of(norm),
                                clip, eps};
  ReleasedGil release;
  audio_project(call, x.data(), frames, data.data());
}

void add(const DenseMatrix& w, std::optional<ConstFloats1> norm, float clip, float eps,
         ConstFloats2 x, ConstFloats2 residual, Floats2 out) {
  constexpr const char* kWhere = "audio_add";
  const int64_t frames = size_of(x, 0), width = w.view.rows;
  expect_size(kWhere, "w", w.view, -1, size_of(x, 1));
  expect_norm(kWhere, "norm", norm, width, clip, eps);
  expect_shape(kWhere, "residual", residual, {frames, width});
  expect_shape(kWhere, "out", out, {frames, width});
  expect_apart(kWhere, "x", x, out);
  if (residual.data() != out.data()) expect_apart(kWhere, "a part of the residual", residual, out);
  const AudioAddition call = {w.view, data_of(norm), clip, eps};
  ReleasedGil release;
  audio_add(call, x.data(), residual.data(), frames, out.data());
}

void stem_conv(const DenseMatrix& filter, ConstFloats3 rows, Floats3 out) {
  constexpr const char* kWhere = "audio_stem_conv";
  const auto bins = static_cast<int64_t>(rows.shape(1)),
             channels = static_cast<int64_t>(rows.shape(2));
  const auto given = static_cast<int64_t>(rows.shape(0)),
             count = static_cast<int64_t>(out.shape(0));
  if (filter.view.kind != kDenseF32) {
    throw std::invalid_argument(std::string(kWhere) + ": expected a filter of kind f32");
  }
  expect_size(kWhere, "filter", filter.view, -1, 9 * channels);
  expect_shape(kWhere, "out", out, {count, (bins + 1) / 2, filter.view.rows});
  if (count > 0 && given < 2 * count + 1) {
    throw std::invalid_argument(std::string(kWhere) + ": " + std::to_string(count) +
                                " outputs need " + std::to_string(2 * count + 1) + " rows, got " +
                                std::to_string(given));
  }
  expect_apart(kWhere, "rows", rows, out);
  ReleasedGil release;
  audio_stem_conv(filter.view, rows.data(), count, bins, channels, out.data());
}

void attend(ConstFloats2 q, ConstFloats2 k, ConstFloats2 v, ConstBytes1 valid,
            ConstFloats2 position, ConstFloats1 scale, float cap, Floats2 out) {
  constexpr const char* kWhere = "audio_attend";
  const int64_t frames = size_of(q, 0), width = size_of(q, 1), head_dim = size_of(scale, 0);
  const int64_t keys = count_of(kWhere, "position", size_of(position, 0));
  if (head_dim == 0 || width % head_dim != 0) {
    throw std::invalid_argument(std::string(kWhere) + ": q has " + std::to_string(width) +
                                " columns, expected a multiple of the " + std::to_string(head_dim) +
                                " of scale");
  }
  const int64_t rows = keys - 1 + frames;
  expect_shape(kWhere, "k", k, {rows, width});
  expect_shape(kWhere, "v", v, {rows, width});
  expect_shape(kWhere, "valid", valid, {rows});
  expect_shape(kWhere, "position", position, {keys, width});
  expect_shape(kWhere, "out", out, {frames, width});
  expect_positive(kWhere, "cap", cap);
  const BandedAttention call = {q.data(),         k.data(),     v.data(), valid.data(),
                                position.data(),  scale.data(), frames,   keys - 1,
                                width / head_dim, head_dim,     cap};
  ReleasedGil release;
  audio_attend(call, out.data());
}

void light_conv(ConstFloats2 gates, Floats2 past, ConstFloats2 taps, ConstFloats1 norm, float clip,
                float eps, Floats2 out) {
  constexpr const char* kWhere = "audio_light_conv";
  const int64_t frames = size_of(out, 0), width = size_of(out, 1);
  const int64_t count = count_of(kWhere, "taps", size_of(taps, 0));
  expect_shape(kWhere, "gates", gates, {frames, 2 * width});
  expect_shape(kWhere, "past", past, {count - 1, width});
  expect_shape(kWhere, "taps", taps, {count, width});
  expect_shape(kWhere, "norm", norm, {width});
  expect_positive(kWhere, "clip", clip);
  expect_positive(kWhere, "eps", eps);
  const LightConvolution call = {gates.data(), past.data(), taps.data(), norm.data(), frames,
                                 width,        count,       clip,        eps};
  ReleasedGil release;
  audio_light_conv(call, out.data());
}

void group_norm(ConstFloats2 x, ConstFloats1 weight, Doubles1 sums, float eps, Floats2 out) {
  constexpr const char* kWhere = "audio_group_norm";
  const int64_t frames = size_of(x, 0), size = size_of(x, 1);
  expect_shape(kWhere, "weight", weight, {size});
  expect_shape(kWhere, "sums", sums, {3});
  expect_shape(kWhere, "out", out, {frames, size});
  expect_positive(kWhere, "eps", eps);
  ReleasedGil release;
  audio_group_norm(x.data(), frames, size, weight.data(), sums.data(), eps, out.data());
}

}  // namespace

void bind_audio(nb::module_& module) {
  nb::class_<DenseMatrix>(module, "DenseMatrix",
                          "Stored weights for many rows at once: a read-only view of an array, "
                          "kept alive, never copied.")
      .def("__init__", &construct, arg("kind"), arg("rows"), arg("cols"), arg("data"))
      .def_prop_ro(
          "kind",
          [](const DenseMatrix& self) { return std::string(dense_kind_name(self.view.kind)); })
      .def_prop_ro("rows", [](const DenseMatrix& self) { return self.view.rows; })
      .def_prop_ro("cols", [](const DenseMatrix& self) { return self.view.cols; })
      .def_prop_ro("data", [](const DenseMatrix& self) { return self.data; });
  module.def("audio_feed_forward", &feed_forward, arg("up"), arg("down"),
             arg("pre_norm").noconvert(), arg("post_norm").noconvert(),
             arg("end_norm").noconvert().none(), arg("gain"), arg("clip"), arg("eps"),
             arg("x").noconvert(), arg("out").noconvert(),
             "out (T,d) = x + gain · rms(clipped(down · silu(up · rms(clipped(x))))), then "
             "rms(clipped(out)) if there is an end norm.");
  module.def("audio_project", &project, arg("ws"), arg("norm").noconvert().none(), arg("clip"),
             arg("eps"), arg("x").noconvert(), arg("outs"),
             "outs[i] (T,R_i) = ws[i] · rms(clipped(x); norm); of x itself if norm is None.");
  module.def("audio_add", &add, arg("w"), arg("norm").noconvert().none(), arg("clip"), arg("eps"),
             arg("x").noconvert(), arg("residual").noconvert(), arg("out").noconvert(),
             "out (T,d) = residual + rms(clipped(w · x); norm); w · x itself if norm is None.");
  module.def(
      "audio_stem_conv", &stem_conv, arg("filter"), arg("rows").noconvert(), arg("out").noconvert(),
      "out (T,ceil(F/2),C): 3 x 3 filter (C,9·Ci) with strides of two over rows (2T+1,F,Ci), "
      "zeros beside F.");
  module.def("audio_attend", &attend, arg("q").noconvert(), arg("k").noconvert(),
             arg("v").noconvert(), arg("valid").noconvert(), arg("position").noconvert(),
             arg("scale").noconvert(), arg("cap"), arg("out").noconvert(),
             "out (T,H·Dh): each frame over itself and the valid ones of the P frames before it; "
             "k, v (P+T,H·Dh).");
  module.def("audio_light_conv", &light_conv, arg("gates").noconvert(), arg("past").noconvert(),
             arg("taps").noconvert(), arg("norm").noconvert(), arg("clip"), arg("eps"),
             arg("out").noconvert(),
             "out (T,d) = silu(rms(clipped(taps over a · sigmoid(b)))), gates (T,2d) = a, b; past "
             "(K-1,d) is updated.");
  module.def("audio_group_norm", &group_norm, arg("x").noconvert(), arg("weight").noconvert(),
             arg("sums").noconvert(), arg("eps"), arg("out").noconvert(),
             "out (T,M) = max(0, x normed over all frames so far); sums (3) f64 is updated.");
}

}  // namespace matryo
