// The operations of the sound encoder.
#include "blocks/audio.h"

#include <cmath>
#include <string>

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

void feed_forward(const Matrix& up, const Matrix& down, ConstFloats1 pre_norm,
                  ConstFloats1 post_norm, float gain, float clip, float eps, ConstFloats2 x,
                  Floats2 out) {
  constexpr const char* kWhere = "audio_feed_forward";
  const int64_t frames = size_of(x, 0), width = size_of(x, 1);
  for (const Matrix* matrix : {&up, &down}) expect_layout(kWhere, matrix->view, kPanelLayout);
  if (up.view.cols != width || down.view.rows != width || down.view.cols != up.view.rows) {
    throw std::invalid_argument(std::string(kWhere) + ": expected up (F, " + std::to_string(width) +
                                ") and down (" + std::to_string(width) + ", F)");
  }
  expect_shape(kWhere, "pre_norm", pre_norm, {width});
  expect_shape(kWhere, "post_norm", post_norm, {width});
  expect_shape(kWhere, "out", out, {frames, width});
  expect_finite(kWhere, "gain", gain);
  expect_positive(kWhere, "clip", clip);
  expect_positive(kWhere, "eps", eps);
  if (out.data() == x.data() && frames * width > 0) {
    throw std::invalid_argument(std::string(kWhere) + ": out must not be x");
  }
  const AudioFeedForward call = {up.view, down.view, pre_norm.data(), post_norm.data(), gain,
                                 clip,    eps};
  ReleasedGil release;
  audio_feed_forward(call, x.data(), frames, out.data());
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
  module.def("audio_feed_forward", &feed_forward, arg("up"), arg("down"),
             arg("pre_norm").noconvert(), arg("post_norm").noconvert(), arg("gain"), arg("clip"),
             arg("eps"), arg("x").noconvert(), arg("out").noconvert(),
             "out (T,d) = x + gain · rms(clipped(down · silu(up · rms(clipped(x))))).");
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
