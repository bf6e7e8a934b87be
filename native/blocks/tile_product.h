// Products of a tile of rows with packed panels: where the rows come from, blocks of K, integers
// and their scales.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "blocks/vision.h"
#include "dispatch.h"
#include "scratch.h"

namespace matryo {

constexpr int64_t kTilePixels = 96;   // most pixels of a tile
constexpr int64_t kFloatDepth = 320;  // of a block of K: a panel's part is 20 KB
constexpr float kSmallestRange =
    7.888609052210118e-31f;  // 2^-100: a row with a smaller range counts as zero

inline int64_t padded_channels(int64_t channels) {
  return (channels + kPanel - 1) / kPanel * kPanel;
}

// Pixels of a tile so that `threads` get equal shares of `total`.
inline int64_t tile_pixels(int64_t total, int64_t threads, int64_t most = kTilePixels) {
  const int64_t rounds = std::max<int64_t>(1, (total + threads * most - 1) / (threads * most));
  return std::max<int64_t>(1, (total + threads * rounds - 1) / (threads * rounds));
}

// Equal blocks of K, a multiple of 8 but for the last one.
inline int64_t block_depth(int64_t depth, int64_t most) {
  const int64_t blocks = std::max<int64_t>(1, (depth + most - 1) / most);
  return std::max<int64_t>(8, ((depth + blocks - 1) / blocks + 7) / 8 * 8);
}

// One thread's arrays for products of tiles.
struct ProductRoom {
  static size_t bytes(int64_t pixels) {
    return Scratch::bytes<float>(padded(pixels) * kMostDepth + kStripSlack) +
           Scratch::bytes<float>(kStrip * kMostDepth) + 3 * Scratch::bytes<float>(padded(pixels));
  }
  // Whole strips of both kinds.
  static int64_t padded(int64_t pixels) {
    constexpr int64_t kUnit = kStrip * kCodeStrip / 2;
    return (pixels + kUnit - 1) / kUnit * kUnit;
  }
  ProductRoom() = default;
  ProductRoom(Scratch& scratch, int64_t pixels) {
    packed = scratch.take<float>(padded(pixels) * kMostDepth + kStripSlack);
    staging = scratch.take<float>(kStrip * kMostDepth);
    inverse = scratch.take<float>(padded(pixels));
    scales = scratch.take<float>(padded(pixels));
    zeros = scratch.take<float>(padded(pixels));
  }

  float* packed;
  float* staging;
  float *inverse, *scales, *zeros;  // of the pixels of an integer product
};

// Rows that lie in memory as they are.
struct PlainRows {
  const float* data;
  int64_t stride, depth;

  const float* part(int64_t row, int64_t first, int64_t, float*) const {
    return data + row * stride + first;
  }
  void value_range(int64_t row, float* out) const {
    kernels().value_range(data + row * stride, depth, out);
  }
};

// use(first pixel, parts of its rows, how many) for each strip of one block of K.
template <int kPixels, class Rows, class Use>
void for_row_strips(const Rows& rows, int64_t pixels, int64_t first, int64_t depth, float* staging,
                    const Use& use) {
  for (int64_t pixel = 0; pixel < pixels; pixel += kPixels) {
    const float* parts[kPixels];
    const auto count = static_cast<int32_t>(std::min<int64_t>(kPixels, pixels - pixel));
    for (int32_t r = 0; r < count; ++r) {
      parts[r] = rows.part(pixel + r, first, depth, staging + r * kMostDepth);
    }
    use(pixel, parts, count);
  }
}

template <class Rows>
void float_product(const PanelsView& w, const Rows& rows, int64_t pixels, const ProductRoom& room,
                   float* sums, int64_t stride) {
  const int64_t step = block_depth(w.depth, kFloatDepth);
  for (int64_t first = 0; first < w.depth; first += step) {
    const int64_t depth = std::min(step, w.depth - first);
    for_row_strips<kStrip>(rows, pixels, first, depth, room.staging,
                           [&](int64_t pixel, const float* const* parts, int32_t count) {
                             kernels().interleave(parts, count, depth, room.packed + pixel * depth);
                           });
    kernels().dense_f32({room.packed, static_cast<int32_t>(pixels), w.values + first * kPanel,
                         w.panel_stride, static_cast<int32_t>(w.panels()), depth, sums, stride,
                         first > 0});
  }
}

// value = scale * (code - zero), codes 0..kMostCode over the range of a row.
struct RowCodes {
  explicit RowCodes(const float (&range)[2]) {
    float width = range[1] - range[0];
    if (width < kSmallestRange) width = 0.0f;
    inverse = width > 0.0f ? kMostCode / width : 0.0f;
    scale = width / kMostCode;
    zero = std::nearbyint(-range[0] * inverse);
  }
  float inverse, scale, zero;
};

template <class Rows>
void measure_rows(const Rows& rows, int64_t pixels, const ProductRoom& room) {
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    float range[2];
    rows.value_range(pixel, range);
    const RowCodes codes(range);
    room.inverse[pixel] = codes.inverse;
    room.scales[pixel] = codes.scale;
    room.zeros[pixel] = codes.zero;
  }
}

// Leaves integers in `sums`, the scale and zero of each pixel in `room`.
template <class Rows>
void code_product(const PanelsView& w, const Rows& rows, int64_t pixels, const ProductRoom& room,
                  int32_t* sums, int64_t stride) {
  measure_rows(rows, pixels, room);
  auto* packed = reinterpret_cast<uint8_t*>(room.packed);
  const int64_t step = block_depth(w.depth, kMostDepth);
  for (int64_t first = 0; first < w.depth; first += step) {
    const int64_t depth = std::min(step, w.depth - first), padded = (depth + 7) / 8 * 8;
    for_row_strips<kCodeStrip>(rows, pixels, first, depth, room.staging,
                               [&](int64_t pixel, const float* const* parts, int32_t count) {
                                 kernels().interleave_codes(parts, room.inverse + pixel,
                                                            room.zeros + pixel, count, depth,
                                                            packed + pixel * padded);
                               });
    kernels().dense_i8({packed, static_cast<int32_t>(pixels), w.codes + first * kPanel,
                        w.panel_stride, static_cast<int32_t>(w.panels()), padded, w.narrow, sums,
                        stride, first > 0});
  }
}

// The same with 16 bits: code 0 is 0.
template <class Rows>
void word_product(const PanelsView& w, const Rows& rows, int64_t pixels, const ProductRoom& room,
                  int32_t* sums, int64_t stride) {
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    float range[2];
    rows.value_range(pixel, range);
    const float most = std::max(-range[0], range[1]);
    room.inverse[pixel] = most >= kSmallestRange ? kMostWord / most : 0.0f;
    room.scales[pixel] = most >= kSmallestRange ? most / kMostWord : 0.0f;
    room.zeros[pixel] = 0.0f;
  }
  auto* packed = reinterpret_cast<int16_t*>(room.packed);
  const int64_t step = block_depth(w.depth, kMostDepth);
  for (int64_t first = 0; first < w.depth; first += step) {
    const int64_t depth = std::min(step, w.depth - first), padded = (depth + 1) / 2 * 2;
    for_row_strips<kStrip>(rows, pixels, first, depth, room.staging,
                           [&](int64_t pixel, const float* const* parts, int32_t count) {
                             kernels().interleave_words(parts, room.inverse + pixel, count, depth,
                                                        packed + pixel * padded);
                           });
    kernels().dense_i16({packed, static_cast<int32_t>(pixels), w.words + first * kPanel,
                         w.panel_stride, static_cast<int32_t>(w.panels()), padded, sums, stride,
                         first > 0});
  }
}

// One tile: sums (pixels, padded channels) = rows · wᵀ, then finish(pixel, row) for each pixel,
// where `row` has the sums in it and the rest is for the caller to fill in.
template <class Rows, class FinishPixel>
void tile_product(const PanelsView& w, const Rows& rows, int64_t pixels, const ProductRoom& room,
                  float* sums, const FinishPixel& finish) {
  const int64_t stride = padded_channels(w.channels);
  auto* codes = reinterpret_cast<int32_t*>(sums);
  if (w.codes != nullptr) {
    code_product(w, rows, pixels, room, codes, stride);
  } else if (w.words != nullptr) {
    word_product(w, rows, pixels, room, codes, stride);
  } else {
    float_product(w, rows, pixels, room, sums, stride);
  }
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    FinishRow row = {};
    row.y = sums + pixel * stride;
    row.n = w.channels;
    if (w.integers()) {
      row.codes = codes + pixel * stride;
      row.code_scale = room.scales[pixel];
      row.code_zero = static_cast<int32_t>(room.zeros[pixel]);
      row.channel_scales = w.scales;
      row.channel_sums = w.sums;
    }
    finish(pixel, row);
  }
}

// Takes the row of pixel `pixel` through `finish` to `out`; the residual is of the whole picture.
inline void finish_pixel(FinishRow row, const Finish& finish, int64_t pixel, float* out) {
  row.bias = finish.bias;
  row.norm = finish.norm;
  row.eps = finish.eps;
  row.gelu = finish.gelu;
  row.gamma = finish.gamma;
  row.residual = finish.residual == nullptr ? nullptr : finish.residual + pixel * row.n;
  row.out = out;
  kernels().finish_row(row);
}

}  // namespace matryo
