// Attention of many query rows over one shared set of keys and values: two products a tile with a
// softmax between.
#include <algorithm>
#include <cmath>

#include "blocks/tile_product.h"
#include "pool.h"

namespace matryo {
namespace {

constexpr int64_t kTileScores = 96 * 576;  // floats: 216 KB of the second-level cache

// Panels of `channels` rows, value (channel, k) at data + channel * channel_step + k * k_step.
// Missing channels are zeros.
void pack_panels(const Worker& worker, const PanelsView& view, const float* data,
                 int64_t channel_step, int64_t k_step, float* out) {
  const auto [first, last] = worker.slice(view.panels());
  for (int64_t p = first; p < last; ++p) {
    for (int64_t k = 0; k < view.depth; ++k) {
      float* values = out + p * view.panel_stride + k * kPanel;
      for (int64_t r = 0; r < kPanel; ++r) {
        const int64_t channel = p * kPanel + r;
        values[r] = channel < view.channels ? data[channel * channel_step + k * k_step] : 0.0f;
      }
    }
  }
}

PanelsView f32_panels(int64_t channels, int64_t depth, const float* values) {
  PanelsView view = {};
  view.channels = channels;
  view.depth = depth;
  view.panel_stride = depth * kPanel;
  view.values = values;
  return view;
}

struct AttendRoom {
  ProductRoom product;
  float *scores, *mixed;
};

}  // namespace

void attend_pixels(const PixelAttention& call, float* out) {
  const int64_t keys_width = padded_channels(call.keys), dim_width = padded_channels(call.dim);
  const int threads = pool().threads();
  const int64_t most = std::clamp<int64_t>(kTileScores / keys_width, kStrip, kTilePixels);
  const int64_t pixels = tile_pixels(call.rows, threads, most);
  Scratch scratch(static_cast<size_t>(threads) *
                      (ProductRoom::bytes(pixels) + Scratch::bytes<float>(pixels * keys_width) +
                       Scratch::bytes<float>(pixels * dim_width)) +
                  Scratch::bytes<AttendRoom>(threads) +
                  Scratch::bytes<float>(keys_width * call.dim) +
                  Scratch::bytes<float>(dim_width * call.keys));
  auto* rooms = scratch.take<AttendRoom>(threads);
  for (int t = 0; t < threads; ++t) {
    rooms[t].product = ProductRoom(scratch, pixels);
    rooms[t].scores = scratch.take<float>(pixels * keys_width);
    rooms[t].mixed = scratch.take<float>(pixels * dim_width);
  }
  auto* key_panels = scratch.take<float>(keys_width * call.dim);
  auto* value_panels = scratch.take<float>(dim_width * call.keys);
  const PanelsView keys = f32_panels(call.keys, call.dim, key_panels);
  const PanelsView values = f32_panels(call.dim, call.keys, value_panels);

  pool().run([&](Worker& worker) {
    pack_panels(worker, keys, call.k, call.dim, 1, key_panels);
    pack_panels(worker, values, call.v, 1, call.dim, value_panels);
    worker.barrier();
    if (worker.thread >= threads) return;  // the team grew since: this thread has no room
    const AttendRoom& room = rooms[worker.thread];
    for (int64_t first; (first = worker.next() * pixels) < call.rows;) {
      const int64_t count = std::min(pixels, call.rows - first);
      float* sums = room.product.scales;  // of the tile's rows; free in float products
      const PlainRows queries = {call.q + first * call.dim, call.dim, call.dim};
      tile_product(keys, queries, count, room.product, room.scores,
                   [&](int64_t row, const FinishRow& scores) {
                     sums[row] = kernels().exp_row(scores.y, call.keys, call.scale);
                   });
      const PlainRows weights = {room.scores, keys_width, call.keys};
      tile_product(values, weights, count, room.product, room.mixed,
                   [&](int64_t row, const FinishRow& mixed) {
                     kernels().norm_row(mixed.y, call.dim, 1.0f / sums[row], nullptr,
                                        out + (first + row) * call.dim);
                   });
    }
  });
}

}  // namespace matryo
