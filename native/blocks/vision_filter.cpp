// Packing of filters, and padding.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <numeric>

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

// Whether the codes of one channel keep the bound of kMostFour.
bool is_narrow(const int8_t* codes, int64_t depth) {
  for (int64_t first = 0; first < depth; first += 8) {
    int positive[2] = {}, negative[2] = {};
    for (int64_t i = 0; i < 8 && first + i < depth; ++i) {
      const int code = codes[first + i];
      (code > 0 ? positive : negative)[i / 2 % 2] += std::abs(code);
    }
    for (const int sum : {positive[0], positive[1], negative[0], negative[1]}) {
      if (sum > kMostFour) return false;
    }
  }
  return true;
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
  bytes_ = weights + (scales ? 2 * panels.panels() * kPanel : winograd_floats(view_)) *
                         static_cast<int64_t>(sizeof(float));
  data_.reset(static_cast<uint8_t*>(::operator new(static_cast<size_t>(bytes_), kAlignment)));
  std::memset(data_.get(), 0, static_cast<size_t>(bytes_));
}

template <class Value>
void PackedFilter::pack_floats(const Shape& shape, const Value& value) {
  const int64_t depth = shape.depth();
  reserve(shape, depth * kPanel, sizeof(float), false);
  auto* out = reinterpret_cast<float*>(data_.get());
  for_weights(shape.out_channels, depth, [=](int64_t p, int64_t k, int64_t r, int64_t channel) {
    out[(p * depth + k) * kPanel + r] = value(channel * depth + k);
  });
  view_.panels.values = out;
  if (!has_winograd(view_)) return;
  float* second = out + view_.panels.panels() * view_.panels.panel_stride;
  pack_winograd(view_, second);
  view_.winograd = second;
}

PackedFilter::PackedFilter(const Shape& shape, const float* weights) {
  pack_floats(shape, [=](int64_t i) { return weights[i]; });
}

PackedFilter::PackedFilter(const Shape& shape, const uint16_t* weights) {
  pack_floats(shape, [=](int64_t i) { return bf16_value(weights[i]); });
}

template <class Integer>
const Integer* PackedFilter::pack_integers(const Shape& shape, int64_t group, int64_t padded_depth,
                                           const Integer* weights, const float* scales) {
  const int64_t depth = shape.depth(), stride = padded_depth * kPanel;
  reserve(shape, stride, sizeof(Integer), true);
  PanelsView& panels = view_.panels;
  auto* out = reinterpret_cast<Integer*>(data_.get());
  for_weights(shape.out_channels, depth, [=](int64_t p, int64_t k, int64_t r, int64_t channel) {
    out[p * stride + (k / group * kPanel + r) * group + k % group] = weights[channel * depth + k];
  });
  auto* padded = reinterpret_cast<float*>(out + panels.panels() * stride);
  auto* sums = reinterpret_cast<int32_t*>(padded + panels.panels() * kPanel);
  std::copy_n(scales, shape.out_channels, padded);
  for (int64_t channel = 0; channel < shape.out_channels; ++channel) {
    sums[channel] =
        std::accumulate(weights + channel * depth, weights + (channel + 1) * depth, int32_t{0});
  }
  panels.scales = padded;
  panels.sums = sums;
  return out;
}

PackedFilter::PackedFilter(const Shape& shape, const int8_t* weights, const float* scales) {
  const int64_t depth = shape.depth();
  view_.panels.codes = pack_integers(shape, 4, (depth + 7) / 8 * 8, weights, scales);
  view_.panels.narrow = true;
  for (int64_t channel = 0; channel < shape.out_channels; ++channel) {
    view_.panels.narrow = view_.panels.narrow && is_narrow(weights + channel * depth, depth);
  }
}

PackedFilter::PackedFilter(const Shape& shape, const int16_t* weights, const float* scales) {
  view_.panels.words = pack_integers(shape, 2, (shape.depth() + 1) / 2 * 2, weights, scales);
}

int64_t padding_before(int64_t size, int64_t kernel, int64_t stride) {
  return std::max<int64_t>((outputs_of(size, stride) - 1) * stride + kernel - size, 0) / 2;
}

}  // namespace matryo
