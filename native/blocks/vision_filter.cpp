// Packing of filters, and padding.
#include <algorithm>
#include <cstring>
#include <new>

#include "blocks/vision.h"
#include "pool.h"
#include "simd/bf16.h"

namespace matryo {
namespace {

constexpr std::align_val_t kAlignment{64};

// place(panel, k, r, channel) for every weight of the panels; missing channels of the last one are
// left as they are.
template <class Place>
void for_weights(int64_t channels, int64_t depth, const Place& place) {
  const int64_t panels = (channels + kPanel - 1) / kPanel;
  pool().run([&](Worker& worker) {
    const auto [first, last] = worker.slice(panels);
    for (int64_t p = first; p < last; ++p) {
      const int64_t count = std::min<int64_t>(kPanel, channels - p * kPanel);
      for (int64_t k = 0; k < depth; ++k) {
        for (int64_t r = 0; r < count; ++r) place(p, k, r, p * kPanel + r);
      }
    }
  });
}

}  // namespace

void PackedFilter::Free::operator()(uint8_t* data) const { ::operator delete(data, kAlignment); }

void PackedFilter::reserve(const Shape& shape, int64_t panel_stride, int64_t value_bytes,
                           bool scales) {
  PanelsView& panels = view_.panels;
  panels.channels = shape.out_channels;
  panels.depth = shape.depth();
  panels.panel_stride = panel_stride;
  view_.kernel_height = shape.kernel_height;
  view_.kernel_width = shape.kernel_width;
  view_.in_channels = shape.in_channels;
  const int64_t weights = panels.panels() * panel_stride * value_bytes;
  bytes_ = weights + (scales ? panels.panels() * kPanel * static_cast<int64_t>(sizeof(float)) : 0);
  data_.reset(static_cast<uint8_t*>(::operator new(static_cast<size_t>(bytes_), kAlignment)));
  std::memset(data_.get(), 0, static_cast<size_t>(bytes_));
}

PackedFilter::PackedFilter(const Shape& shape, const float* weights) {
  const int64_t depth = shape.depth();
  reserve(shape, depth * kPanel, sizeof(float), false);
  auto* out = reinterpret_cast<float*>(data_.get());
  for_weights(shape.out_channels, depth, [=](int64_t p, int64_t k, int64_t r, int64_t channel) {
    out[(p * depth + k) * kPanel + r] = weights[channel * depth + k];
  });
  view_.panels.values = out;
}

PackedFilter::PackedFilter(const Shape& shape, const uint16_t* weights) {
  const int64_t depth = shape.depth();
  reserve(shape, depth * kPanel, sizeof(float), false);
  auto* out = reinterpret_cast<float*>(data_.get());
  for_weights(shape.out_channels, depth, [=](int64_t p, int64_t k, int64_t r, int64_t channel) {
    out[(p * depth + k) * kPanel + r] = bf16_value(weights[channel * depth + k]);
  });
  view_.panels.values = out;
}

PackedFilter::PackedFilter(const Shape& shape, const int8_t* weights, const float* scales) {
  const int64_t depth = shape.depth(), stride = (depth + 3) / 4 * 4 * kPanel;
  reserve(shape, stride, sizeof(int8_t), true);
  auto* out = reinterpret_cast<int8_t*>(data_.get());
  for_weights(shape.out_channels, depth, [=](int64_t p, int64_t k, int64_t r, int64_t channel) {
    out[p * stride + (k / 4 * kPanel + r) * 4 + k % 4] = weights[channel * depth + k];
  });
  auto* padded = reinterpret_cast<float*>(out + view_.panels.panels() * stride);
  std::copy_n(scales, shape.out_channels, padded);
  view_.panels.codes = out;
  view_.panels.scales = padded;
}

int64_t padding_before(int64_t size, int64_t kernel, int64_t stride) {
  return std::max<int64_t>((outputs_of(size, stride) - 1) * stride + kernel - size, 0) / 2;
}

}  // namespace matryo
