// The convolutions of the sound encoder's stem: patches gathered tile by tile, dense products.
#include <algorithm>
#include <cstring>

#include "blocks/audio.h"

namespace matryo {
namespace {

// The patch of one output: three rows of three neighbouring bins, `channels` values each.
struct StemPatch {
  const float* rows;
  int64_t bins, channels;

  // Values [first, first + count) of output bin `bin` of output row `row`.
  void copy(int64_t row, int64_t bin, int64_t first, int64_t count, float* out) const {
    const int64_t width = 3 * channels, line = bins * channels;
    for (int64_t done = 0; done < count;) {
      const int64_t k = first + done, within = k % width,
                    n = std::min(count - done, width - within);
      const float* from = rows + (2 * row + k / width) * line;
      const int64_t start = (2 * bin - 1) * channels + within;
      const int64_t begin = std::clamp<int64_t>(-start, 0, n);
      const int64_t end = std::clamp(line - start, begin, n);
      std::fill_n(out + done, begin, 0.0f);
      std::copy_n(from + start + begin, end - begin, out + done + begin);
      std::fill_n(out + done + end, n - end, 0.0f);
      done += n;
    }
  }
};

}  // namespace

void audio_stem_conv(const DenseView& filter, const float* rows, int64_t count, int64_t bins,
                     int64_t channels, float* out) {
  const int64_t out_bins = (bins + 1) / 2, pixels = count * out_bins;
  if (pixels == 0) return;
  const int64_t stride = round_up(filter.rows, kPanel);
  const int threads = pool().threads();
  Scratch scratch(static_cast<size_t>(threads) * (Scratch::bytes<float>(kTileRows * kBlockColumns) +
                                                  Scratch::bytes<float>(kStrip * kBlockColumns) +
                                                  Scratch::bytes<float>(kTileRows * stride)));
  float* packed = scratch.take<float>(threads * kTileRows * kBlockColumns);
  float* staging = scratch.take<float>(threads * kStrip * kBlockColumns);
  float* sums = scratch.take<float>(threads * kTileRows * stride);
  const StemPatch patch = {rows, bins, channels};
  pool().run([&](Worker& worker) {
    if (worker.thread >= threads) return;  // the team grew since: this thread has no room
    float* strips = packed + worker.thread * kTileRows * kBlockColumns;
    float* parts_room = staging + worker.thread * kStrip * kBlockColumns;
    float* tile_sums = sums + worker.thread * kTileRows * stride;
    for (int64_t first; (first = worker.next() * kTileRows) < pixels;) {
      const int64_t tile = std::min(kTileRows, pixels - first);
      for (int64_t k = 0; k < filter.cols; k += kBlockColumns) {
        const int64_t depth = std::min(kBlockColumns, filter.cols - k);
        for (int64_t pixel = 0; pixel < tile; pixel += kStrip) {
          const float* parts[kStrip];
          const int64_t strip = std::min<int64_t>(kStrip, tile - pixel);
          for (int64_t r = 0; r < strip; ++r) {
            const int64_t at = first + pixel + r;
            float* part = parts_room + r * kBlockColumns;
            patch.copy(at / out_bins, at % out_bins, k, depth, part);
            parts[r] = part;
          }
          kernels().interleave(parts, static_cast<int32_t>(strip), depth, strips + pixel * depth);
        }
        kernels().dense_f32({strips, static_cast<int32_t>(tile),
                             reinterpret_cast<const float*>(filter.data) + k * kPanel,
                             filter.stride / 4, static_cast<int32_t>(filter.panels()), depth,
                             tile_sums, stride, k > 0});
      }
      for (int64_t t = 0; t < tile; ++t) {
        std::copy_n(tile_sums + t * stride, filter.rows, out + (first + t) * filter.rows);
      }
    }
  });
}

}  // namespace matryo
