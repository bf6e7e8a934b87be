// The operations of the vision encoder; numpy twins in src/matryo/kernels/reference_vision.py.
//
//   pictures are (height, width, channels) f32, channels last · a pixel is one row of a product
//
// Every operation walks over tiles of pixels, one tile on one thread from the first product to the
// last write, so that what lies between stays in that core's cache. Values do not depend on tiles
// or threads (kernels_dense.h).
#pragma once

#include <cstdint>
#include <memory>

#include "kernels.h"

namespace matryo {

// A packed filter or anything else a tile of rows is multiplied by: out (pixels, channels) = rows
// (pixels, depth) · wᵀ.
struct PanelsView {
  int64_t channels, depth;
  int64_t panel_stride;  // elements
  // One of the three:
  const float* values;   // f32: (panels, depth, 16)
  const int8_t* codes;   // i8: (panels, ceil(depth / 8) * 2, 16, 4)
  const int16_t* words;  // i16: (panels, ceil(depth / 2), 16, 2)
  const float* scales;   // (panels * 16), of integers
  const int32_t* sums;   // (panels * 16), of the integers of a channel
  bool narrow;           // i8: see kMostFour

  bool integers() const { return values == nullptr; }

  int64_t panels() const { return (channels + kPanel - 1) / kPanel; }
};

struct FilterView {
  PanelsView panels;  // channels Co, depth kh * kw * Ci
  int64_t kernel_height, kernel_width, in_channels;
  const float* winograd;  // the same weights for `winograd_conv`, or null

  bool pointwise() const { return kernel_height == 1 && kernel_width == 1; }
};

// Weights of a dense convolution in the form of the product, packed from (Co, kh, kw, Ci).
class PackedFilter {
 public:
  struct Shape {
    int64_t out_channels, kernel_height, kernel_width, in_channels;
    int64_t depth() const { return kernel_height * kernel_width * in_channels; }
  };
  PackedFilter(const Shape& shape, const float* weights);
  PackedFilter(const Shape& shape, const uint16_t* weights);  // bf16
  PackedFilter(const Shape& shape, const int8_t* weights, const float* scales);
  // Channels keep the bound of kMostWeights.
  PackedFilter(const Shape& shape, const int16_t* weights, const float* scales);

  const FilterView& view() const { return view_; }
  int64_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(uint8_t* data) const;
  };
  void reserve(const Shape& shape, int64_t panel_stride, int64_t value_bytes, bool scales);
  template <class Value>  // weight number i of (Co, kh, kw, Ci)
  void pack_floats(const Shape& shape, const Value& value);
  // Weights, `group` of a channel after each other; their scales and sums.
  template <class Integer>
  const Integer* pack_integers(const Shape& shape, int64_t group, int64_t depth,
                               const Integer* weights, const float* scales);

  FilterView view_ = {};
  int64_t bytes_ = 0;
  std::unique_ptr<uint8_t, Free> data_;
};

struct Picture {
  const float* data;
  int64_t height, width, channels;
  int64_t pixels() const { return height * width; }
};

// Zeros before an axis so that it gives ceil(size / stride) outputs, as TensorFlow's SAME padding
// has them.
int64_t padding_before(int64_t size, int64_t kernel, int64_t stride);
inline int64_t outputs_of(int64_t size, int64_t stride) { return (size + stride - 1) / stride; }

// What follows a convolution, in this order; null or false leaves a step out. All (Co), residual
// like the output.
struct Finish {
  const float* bias;
  const float* norm;
  float eps;
  bool gelu;
  const float* gamma;
  const float* residual;
};

// Whether a filter of floats gets a second form: kernel 3 and enough channels.
bool has_winograd(const FilterView& filter);
int64_t winograd_floats(const FilterView& filter);
void pack_winograd(const FilterView& filter, float* out);  // from its panels
// `conv` with stride 1, with a quarter of the multiplications.
void winograd_conv(const FilterView& filter, const Picture& x, const Finish& finish, float* out);

void conv(const FilterView& filter, const Picture& x, int64_t stride, const Finish& finish,
          float* out);
// weight (k, k, C).
void depthwise(const float* weight, int64_t kernel, const Picture& x, int64_t stride,
               const Finish& finish, float* out);
// Two pointwise convolutions: `middle` follows the first, `finish` the second. `coarse`, if it has
// data, is added to the sums of the first, enlarged to the size of x by nearest neighbours.
void inverted_bottleneck(const FilterView& expand, const FilterView& project, const Picture& x,
                         const Picture& coarse, const Finish& middle, const Finish& finish,
                         float* out);

// out (rows, dim) = softmax(scale * q kᵀ) v; q (rows, dim), k and v (keys, dim).
struct PixelAttention {
  const float *q, *k, *v;
  int64_t rows, keys, dim;
  float scale;
};
void attend_pixels(const PixelAttention& call, float* out);

}  // namespace matryo
