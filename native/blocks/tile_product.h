// Products of a tile of rows with packed panels: where the rows come from, blocks of K, integers
// and their scales.
#pragma once

#include <algorithm>
#include <cstdint>

#include "blocks/vision.h"
#include "dispatch.h"
#include "scratch.h"

namespace matryo {

constexpr int64_t kTilePixels = 96;   // most pixels of a tile
constexpr int64_t kFloatDepth = 256;  // of a block of K: a panel's part is 16 KB
constexpr float kSmallestPixel = 7.888609052210118e-31f;  // 2^-100: smaller rows count as zero

inline int64_t padded_channels(int64_t channels) {
  return (channels + kPanel - 1) / kPanel * kPanel;
}

// Pixels of a tile so that `threads` get equal shares of `total`.
inline int64_t tile_pixels(int64_t total, int64_t threads, int64_t most = kTilePixels) {
  const int64_t rounds = std::max<int64_t>(1, (total + threads * most - 1) / (threads * most));
  return std::max<int64_t>(1, (total + threads * rounds - 1) / (threads * rounds));
}

// Equal blocks of K, a multiple of 4 but for the last one.
inline int64_t block_depth(int64_t depth, int64_t most) {
  const int64_t blocks = std::max<int64_t>(1, (depth + most - 1) / most);
  return std::max<int64_t>(4, ((depth + blocks - 1) / blocks + 3) / 4 * 4);
}

// One thread's arrays for products of tiles.
struct ProductRoom {
  static size_t bytes(int64_t pixels) {
    const int64_t strips = (pixels + kStrip - 1) / kStrip;
    return Scratch::bytes<float>(strips * kStrip * kMostDepth + kStripSlack) +
           Scratch::bytes<float>(kStrip * kMostDepth) + 3 * Scratch::bytes<float>(strips * kStrip);
  }
  ProductRoom() = default;
  ProductRoom(Scratch& scratch, int64_t pixels) {
    const int64_t strips = (pixels + kStrip - 1) / kStrip;
    packed = scratch.take<float>(strips * kStrip * kMostDepth + kStripSlack);
    staging = scratch.take<float>(kStrip * kMostDepth);
    inverse = scratch.take<float>(strips * kStrip);
    scales = scratch.take<float>(strips * kStrip);
    offsets = scratch.take<int32_t>(strips * kStrip);
  }

  float* packed;
  float* staging;
  float *inverse, *scales;  // of the pixels of an integer product
  int32_t* offsets;
};

// Rows that lie in memory as they are.
struct PlainRows {
  const float* data;
  int64_t stride, depth;

  const float* part(int64_t row, int64_t first, int64_t, float*) const {
    return data + row * stride + first;
  }
  float absmax(int64_t row) const { return kernels().absmax(data + row * stride, depth); }
};

// What happens with the strips of one block of K.
template <class Rows, class Use>
void for_row_strips(const Rows& rows, int64_t pixels, int64_t first, int64_t depth, float* staging,
                    const Use& use) {
  for (int64_t pixel = 0; pixel < pixels; pixel += kStrip) {
    const float* parts[kStrip];
    const auto count = static_cast<int32_t>(std::min<int64_t>(kStrip, pixels - pixel));
    for (int32_t r = 0; r < count; ++r)
      parts[r] = rows.part(pixel + r, first, depth, staging + r * kMostDepth);
    use(pixel, parts, count);
  }
}

template <class Rows>
void float_product(const PanelsView& w, const Rows& rows, int64_t pixels, const ProductRoom& room,
                   float* sums, int64_t stride) {
  const int64_t step = block_depth(w.depth, kFloatDepth);
  for (int64_t first = 0; first < w.depth; first += step) {
    const int64_t depth = std::min(step, w.depth - first);
    for_row_strips(rows, pixels, first, depth, room.staging,
                   [&](int64_t pixel, const float* const* parts, int32_t n) {
                     kernels().interleave(parts, n, depth, room.packed + pixel * depth);
                   });
    kernels().dense_f32({room.packed, static_cast<int32_t>(pixels), w.values + first * kPanel,
                         w.panel_stride, static_cast<int32_t>(w.panels()), depth, sums, stride,
                         first > 0});
  }
}

// Leaves integers in `sums` and the scale of each pixel in room.scales.
template <class Rows>
void code_product(const PanelsView& w, const Rows& rows, int64_t pixels, const ProductRoom& room,
                  int32_t* sums, int64_t stride) {
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    float largest = rows.absmax(pixel);
    if (largest < kSmallestPixel) largest = 0.0f;
    room.inverse[pixel] = largest > 0.0f ? 127.0f / largest : 0.0f;
    room.scales[pixel] = largest / 127.0f;
  }
  auto* packed = reinterpret_cast<uint8_t*>(room.packed);
  const int64_t step = block_depth(w.depth, kMostDepth);
  for (int64_t first = 0; first < w.depth; first += step) {
    const int64_t depth = std::min(step, w.depth - first), padded = (depth + 3) / 4 * 4;
    for_row_strips(rows, pixels, first, depth, room.staging,
                   [&](int64_t pixel, const float* const* parts, int32_t n) {
                     kernels().interleave_codes(parts, room.inverse + pixel, n, depth,
                                                packed + pixel * padded * kernels().code_bytes,
                                                room.offsets + pixel);
                   });
    kernels().dense_i8({packed, room.offsets, static_cast<int32_t>(pixels),
                        w.codes + first * kPanel, w.panel_stride, static_cast<int32_t>(w.panels()),
                        padded, sums, stride, first > 0});
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
  } else {
    float_product(w, rows, pixels, room, sums, stride);
  }
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    FinishRow row = {};
    row.y = sums + pixel * stride;
    row.n = w.channels;
    if (w.codes != nullptr) {
      row.codes = codes + pixel * stride;
      row.code_scale = room.scales[pixel];
      row.channel_scales = w.scales;
    }
    finish(pixel, row);
  }
}

// Takes the row of pixel `pixel` through `finish` to `out`, both of the whole picture.
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
