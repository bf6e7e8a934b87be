// The fourth part of the kernel table: convolutions of pictures as dense products.
//
//   pixel  a row of the product: the values one output pixel reads · K how many of them (kernel
//   height x width x Ci) PANEL  16 output channels · STRIP 6 pixels, interleaved: value k of pixel
//   r at [k * 6 + r]
//
// A block of pixels is packed into strips once and multiplied by every panel of the filter; a
// panel's part of a block of K waits in the first-level cache meanwhile. Arithmetic contract: one
// accumulator an output, k ascending with one fma each (f32) or exact integer sums (i8), so an
// output has the same bits for any blocking and any team. A row that is finished has its sum of
// squares, or of exponentials, in 32 partial sums, column c in partial sum c mod 32.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace matryo {

constexpr int kStrip = 6;        // pixels of one micro kernel
constexpr int kCodeStrip = 4;    // with integers
constexpr int kStripSlack = 16;  // elements behind the last strip that packing may overwrite
constexpr int kMostDepth = 640;  // of one block of K
constexpr int kMostCode = 150;   // of a pixel; those of weights lie in [-127, 127]
// Four products that are added in 16 bits: values 8 g + i, i in {0, 1, 4, 5} or {2, 3, 6, 7}. They
// fit if the positive weights of the four add up to at most this, and the negative ones too.
constexpr int kMostFour = 218;
static_assert(kMostCode * kMostFour < 1 << 15);
// With 16-bit weights pixels are codes up to kMostWord of either sign. The magnitudes of a
// channel's weights add up to at most kMostWeights: sums fit 32 bits.
constexpr int kMostWord = 2047;
constexpr int64_t kMostWeights = int64_t{1} << 20;
static_assert(kMostWord * kMostWeights < int64_t{1} << 31);
constexpr int64_t kScaledHeader = 128;  // bytes before the codes of a ScaledCodes part
// A 3 x 3 filter as products at 36 points: 4 x 4 outputs from the 6 x 6 pixels they read.
constexpr int kWinogradSide = 4, kWinogradPixels = kWinogradSide * kWinogradSide;
constexpr int kWinogradRead = 6, kWinogradPoints = kWinogradRead * kWinogradRead;

// sums (pixels, channels) of one block of K; `accumulate` adds to what is there.
struct DenseBlock {
  const float* strips;  // ceil(pixels / 6) strips of depth * 6 values
  int32_t pixels;
  const float* panels;   // value k of channel 16 p + r at p * panel_stride + 16 k + r
  int64_t panel_stride;  // floats
  int32_t num_panels;
  int64_t depth;
  float* sums;
  int64_t sums_stride;  // floats, room for all 16 channels of the last panel
  bool accumulate;
};

// The same with integers: unsigned codes of pixels, at most kMostCode, times signed codes of
// weights. Values are taken in eights: K is padded to a multiple of 8 with zeros on both sides.
struct DenseCodes {
  const uint8_t* strips;  // code k of pixel r of a strip of 4 at (k / 4 * 4 + r) * 4 + k % 4
  int32_t pixels;
  const int8_t* panels;  // code k of channel 16 p + r at p * panel_stride + (k / 4 * 16 + r) * 4 +
                         // k % 4
  int64_t panel_stride;  // bytes
  int32_t num_panels;
  int64_t depth;  // a multiple of 8
  bool narrow;    // the filter keeps the bound of kMostFour: sums of four products fit 16 bits
  int32_t* sums;
  int64_t sums_stride;
  bool accumulate;
};

// The same with 16 bits on both sides, two values at a time: K is padded to an even number.
struct DenseWords {
  const int16_t* strips;  // code k of pixel r of a strip of 6 at (k / 2 * 6 + r) * 2 + k % 2
  int32_t pixels;
  const int16_t* panels;  // weight k of channel 16 p + r at p * panel_stride + (k / 2 * 16 + r) * 2
                          // + k % 2; the channel keeps the bound of kMostWeights
  int64_t panel_stride;   // weights
  int32_t num_panels;
  int64_t depth;  // even
  int32_t* sums;
  int64_t sums_stride;
  bool accumulate;
};

// Codes of one block of columns against stored weights with a scale for each row and block: sums +=
// (row scale * weight scale) * float(codes product - zero * sum of weight codes), one fma.
// A stored part of a panel: 16 scales (f32), 16 sums of codes (i32), codes as in DenseCodes; the
// codes keep the bound of kMostFour.
struct ScaledCodes {
  const uint8_t* strips;
  int32_t pixels;
  const float *scales, *zeros;  // of each pixel
  const uint8_t* panels;        // this block's part of the first panel
  int64_t panel_stride;         // bytes
  int32_t num_panels;
  int64_t depth;        // a multiple of 8, at most 256: integer sums are exact as floats
  const uint8_t* next;  // what the caller reads next: on its way while the last panel is worked on
  float* sums;
  int64_t sums_stride;
  bool accumulate;
};

// What happens to the n outputs of one pixel, in this order; a null pointer leaves its step out.
struct FinishRow {
  float* y;  // the sums, overwritten
  int64_t n;
  const int32_t* codes;  // integers: the sums instead of y (may be the same memory)
  float code_scale;  // y = float(codes - code_zero * channel_sums) * (code_scale * channel_scales)
  int32_t code_zero;
  const float* channel_scales;
  const int32_t* channel_sums;
  const float* bias;
  const float* norm;  // y * (1 / sqrt(mean(y * y) + eps)) * norm
  float eps;
  bool gelu;  // tanh form
  const float* gamma;
  const float* residual;
  float* out;  // may be y
};

// out (count, channels): `count` (1 to 4) neighbouring pixels of a row of a depthwise convolution.
// Taps outside the picture are left out by the caller: `x` is the first tap of the first pixel,
// `weight` the weights of that tap.
struct DepthwisePixels {
  const float* x;
  int64_t x_row,
      x_step;  // floats from tap row to tap row, from the first tap of a pixel to that of the next
  const float* weight;
  int64_t weight_row;  // floats from tap row to tap row
  int32_t rows, cols;  // taps
  int64_t channels;
  int32_t count;
  float* out;
};

struct DenseKernels {
  // out[k * 6 + r] = rows[r][k] for k < n, r < count; the places of missing rows hold anything.
  // Writes nothing behind the strip: its neighbour may be another thread's.
  void (*interleave)(const float* const* rows, int32_t count, int64_t n, float* out);
  void (*dense_f32)(const DenseBlock& call);

  // out = the smallest and the largest value, zero counting as one of them.
  void (*value_range)(const float* x, int64_t n, float* out);
  // Codes clamp(rint(rows[r][k] * inverse[r]) + zeros[r], 0, kMostCode) of up to 4 pixels and up to
  // kMostDepth values, padded to a multiple of 8 with 0.
  void (*interleave_codes)(const float* const* rows, const float* inverse, const float* zeros,
                           int32_t count, int64_t n, uint8_t* out);
  void (*dense_i8)(const DenseCodes& call);
  // Codes clamp(rint(rows[r][k] * inverse[r]), -kMostWord, kMostWord) of up to 6 pixels and up to
  // kMostDepth values, padded to an even number with 0; the places of missing rows hold anything.
  void (*interleave_words)(const float* const* rows, const float* inverse, int32_t count, int64_t n,
                           int16_t* out);
  void (*dense_i16)(const DenseWords& call);
  void (*dense_scaled)(const ScaledCodes& call);

  // out[point * out_stride + c], 36 points, from channel c < n of 6 x 6 pixels, row by row.
  void (*winograd_input)(const float* const* pixels, int64_t n, float* out, int64_t out_stride);
  // out[pixel * pixel_stride + c], 4 x 4 pixels, from the sums of products at the points.
  void (*winograd_output)(const float* sums, int64_t point_stride, int64_t n, float* out,
                          int64_t pixel_stride);

  void (*finish_row)(const FinishRow& call);
  void (*depthwise)(const DepthwisePixels& call);
  // x = e^((x - max x) * scale); returns the sum.
  float (*exp_row)(float* x, int64_t n, float scale);
};

}  // namespace matryo
