// Convolutions of kernel 3 and stride 1 in f32 with a quarter of the multiplications (Winograd,
// "Arithmetic complexity of computations", 1980): 4 x 4 outputs of a channel pair from 36 products.
//
// Each of the 36 points is a dense product of its own, of tiles instead of pixels. A thread
// transforms a few tiles, takes them through all points for a group of panels, and transforms the
// sums back while they are in the cache.
#include <algorithm>

#include "blocks/tile_product.h"
#include "pool.h"

namespace matryo {
namespace {

constexpr int64_t kMostTiles = 24;       // of one thread at a time
constexpr int64_t kPanelGroup = 4;       // panels whose sums wait for their transform together
constexpr int64_t kChannelsAtOnce = 32;  // of six tiles between transform and strips
constexpr int64_t kLeastChannels = 16;
constexpr double kSmall = 0.70710678118654752, kLarge = 1.41421356237309505;

// The filter's side of the transform; its rows are divided by what the points differ by.
constexpr double kFilterRows[kWinogradRead][3] = {{1.0, 0.0, 0.0},
                                                  {-1.0 / 1.5, -kSmall / 1.5, -0.5 / 1.5},
                                                  {-1.0 / 1.5, kSmall / 1.5, -0.5 / 1.5},
                                                  {1.0 / 6.0, kLarge / 6.0, 2.0 / 6.0},
                                                  {1.0 / 6.0, -kLarge / 6.0, 2.0 / 6.0},
                                                  {0.0, 0.0, 1.0}};

struct Panels {
  explicit Panels(const FilterView& filter)
      : depth(filter.in_channels), count(filter.panels.panels()) {}
  int64_t in_group(int64_t first) const { return std::min(kPanelGroup, count - first); }
  // Where panel `first` + j of a group that begins at `first` has its values for a point.
  int64_t offset(int64_t first, int64_t point, int64_t j) const {
    return (first * kWinogradPoints + point * in_group(first) + j) * depth * kPanel;
  }
  int64_t depth, count;
};

struct Room {
  static size_t bytes(int64_t tiles, const FilterView& filter) {
    return Scratch::bytes<float>(kWinogradPoints * point_stride(tiles, filter)) +
           Scratch::bytes<float>(kStrip * kWinogradPoints * kChannelsAtOnce) +
           Scratch::bytes<float>(kWinogradPoints * tiles * kPanelGroup * kPanel) +
           Scratch::bytes<float>(tiles * kWinogradPixels * padded_channels(filter.panels.channels));
  }
  static int64_t point_stride(int64_t tiles, const FilterView& filter) {
    return (tiles + kStrip - 1) / kStrip * kStrip * filter.in_channels + kStripSlack;
  }
  Room(Scratch& scratch, int64_t tiles, const FilterView& filter) {
    packed = scratch.take<float>(kWinogradPoints * point_stride(tiles, filter));
    staging = scratch.take<float>(kStrip * kWinogradPoints * kChannelsAtOnce);
    sums = scratch.take<float>(kWinogradPoints * tiles * kPanelGroup * kPanel);
    outputs =
        scratch.take<float>(tiles * kWinogradPixels * padded_channels(filter.panels.channels));
  }
  float *packed, *staging, *sums, *outputs;
};

// The tiles of one picture, row by row.
class Tiles {
 public:
  Tiles(const FilterView& filter, const Picture& x, const float* zeros)
      : filter_(filter), x_(x), zeros_(zeros), across_(tiles_of(x.width)) {}
  static int64_t tiles_of(int64_t size) { return (size + kWinogradSide - 1) / kWinogradSide; }
  int64_t count() const { return across_ * tiles_of(x_.height); }

  // Tiles first .. first + count - 1 as 36 products' strips, `stride` floats from one to the next.
  void pack(int64_t first, int64_t count, const Room& room, int64_t stride) const {
    const int64_t depth = filter_.in_channels;
    for (int64_t strip = 0; strip < count; strip += kStrip) {
      const int64_t rows = std::min<int64_t>(kStrip, count - strip);
      for (int64_t k = 0; k < depth; k += kChannelsAtOnce) {
        const int64_t n = std::min(kChannelsAtOnce, depth - k);
        for (int64_t r = 0; r < rows; ++r) {
          const float* pixels[kWinogradPoints];
          pixels_of(first + strip + r, k, pixels);
          kernels().winograd_input(pixels, n, room.staging + r * kWinogradPoints * n, n);
        }
        for (int64_t point = 0; point < kWinogradPoints; ++point) {
          const float* parts[kStrip];
          for (int64_t r = 0; r < rows; ++r) {
            parts[r] = room.staging + (r * kWinogradPoints + point) * n;
          }
          kernels().interleave(parts, static_cast<int32_t>(rows), n,
                               room.packed + point * stride + strip * depth + k * kStrip);
        }
      }
    }
  }

  // use(output pixel, its place among the 16 of the tile) for those inside the picture.
  template <class Use>
  void for_outputs(int64_t tile, const Use& use) const {
    const int64_t y = tile / across_ * kWinogradSide, x = tile % across_ * kWinogradSide;
    for (int64_t i = 0; i < std::min<int64_t>(kWinogradSide, x_.height - y); ++i) {
      for (int64_t j = 0; j < std::min<int64_t>(kWinogradSide, x_.width - x); ++j) {
        use((y + i) * x_.width + x + j, i * kWinogradSide + j);
      }
    }
  }

 private:
  void pixels_of(int64_t tile, int64_t channel, const float** pixels) const {
    const int64_t y = tile / across_ * kWinogradSide - 1, x = tile % across_ * kWinogradSide - 1;
    for (int64_t i = 0; i < kWinogradRead; ++i) {
      for (int64_t j = 0; j < kWinogradRead; ++j) {
        const int64_t row = y + i, col = x + j;
        const bool inside = row >= 0 && row < x_.height && col >= 0 && col < x_.width;
        pixels[i * kWinogradRead + j] =
            inside ? x_.data + (row * x_.width + col) * x_.channels + channel : zeros_;
      }
    }
  }

  const FilterView& filter_;
  const Picture& x_;
  const float* zeros_;
  int64_t across_;
};

// The outputs of `count` packed tiles in the channels of one group of panels.
void multiply_group(const FilterView& filter, const Panels& panels, int64_t panel, int64_t count,
                    const Room& room, int64_t stride) {
  const int64_t in_group = panels.in_group(panel), columns = in_group * kPanel;
  const int64_t width = padded_channels(filter.panels.channels);
  for (int64_t point = 0; point < kWinogradPoints; ++point) {
    kernels().dense_f32({room.packed + point * stride, static_cast<int32_t>(count),
                         filter.winograd + panels.offset(panel, point, 0), panels.depth * kPanel,
                         static_cast<int32_t>(in_group), panels.depth,
                         room.sums + point * count * columns, columns, false});
  }
  for (int64_t tile = 0; tile < count; ++tile) {
    kernels().winograd_output(room.sums + tile * columns, count * columns, columns,
                              room.outputs + tile * kWinogradPixels * width + panel * kPanel,
                              width);
  }
}

}  // namespace

bool has_winograd(const FilterView& filter) {
  return filter.kernel_height == 3 && filter.kernel_width == 3 &&
         filter.in_channels >= kLeastChannels && filter.in_channels <= kFloatDepth &&
         filter.panels.channels >= kLeastChannels;
}

int64_t winograd_floats(const FilterView& filter) {
  return has_winograd(filter)
             ? filter.panels.panels() * kWinogradPoints * filter.in_channels * kPanel
             : 0;
}

void pack_winograd(const FilterView& filter, float* out) {
  const Panels panels(filter);
  pool().run([&](Worker& worker) {
    const auto [begin, end] = worker.slice(panels.count);
    for (int64_t panel = begin; panel < end; ++panel) {
      const int64_t first = panel / kPanelGroup * kPanelGroup;
      const float* weights = filter.panels.values + panel * filter.panels.panel_stride;
      for (int64_t at = 0; at < panels.depth * kPanel; ++at) {
        double rows[3][kWinogradRead];
        for (int y = 0; y < 3; ++y) {
          for (int i = 0; i < kWinogradRead; ++i) {
            rows[y][i] = 0.0;
            for (int x = 0; x < 3; ++x) {
              rows[y][i] += kFilterRows[i][x] *
                            static_cast<double>(weights[(y * 3 + x) * panels.depth * kPanel + at]);
            }
          }
        }
        for (int point = 0; point < kWinogradPoints; ++point) {
          const int i = point / kWinogradRead, j = point % kWinogradRead;
          double sum = 0.0;
          for (int y = 0; y < 3; ++y) sum += kFilterRows[i][y] * rows[y][j];
          out[panels.offset(first, point, panel - first) + at] = static_cast<float>(sum);
        }
      }
    }
  });
}

void winograd_conv(const FilterView& filter, const Picture& x, const Finish& finish, float* out) {
  const Panels panels(filter);
  const int64_t channels = filter.panels.channels, width = padded_channels(channels);
  const int threads = pool().threads();
  const int64_t total = Tiles(filter, x, nullptr).count();
  const int64_t most = tile_pixels(total, threads, kMostTiles);
  const int64_t stride = Room::point_stride(most, filter);
  Scratch scratch(static_cast<size_t>(threads) * Room::bytes(most, filter) +
                  Scratch::bytes<Room>(threads) + Scratch::bytes<float>(kChannelsAtOnce));
  float* zeros = scratch.take<float>(kChannelsAtOnce);
  std::fill_n(zeros, kChannelsAtOnce, 0.0f);
  auto* rooms = scratch.take<Room>(threads);
  for (int t = 0; t < threads; ++t) rooms[t] = Room(scratch, most, filter);
  const Tiles tiles(filter, x, zeros);
  pool().run([&](Worker& worker) {
    if (worker.thread >= threads) return;  // the team grew since: this thread has no room
    const Room& room = rooms[worker.thread];
    for (int64_t first; (first = worker.next() * most) < total;) {
      const int64_t count = std::min(most, total - first);
      tiles.pack(first, count, room, stride);
      for (int64_t panel = 0; panel < panels.count; panel += kPanelGroup) {
        multiply_group(filter, panels, panel, count, room, stride);
      }
      for (int64_t tile = 0; tile < count; ++tile) {
        tiles.for_outputs(first + tile, [&](int64_t pixel, int64_t place) {
          FinishRow row = {};
          row.y = room.outputs + (tile * kWinogradPixels + place) * width;
          row.n = channels;
          finish_pixel(row, finish, pixel, out + pixel * channels);
        });
      }
    }
  });
}

}  // namespace matryo
