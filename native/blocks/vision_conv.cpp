// Dense convolutions: pixels as rows, patches as rows, and the two pointwise ones of an inverted
// bottleneck.
#include <algorithm>
#include <cstring>

#include "blocks/tile_product.h"
#include "pool.h"

namespace matryo {
namespace {

// The patches of a picture, gathered when a product asks for them: value (ky, kx, ci) of output
// pixel (oy, ox).
struct PatchRows {
  PatchRows(const FilterView& filter, const Picture& picture, int64_t step)
      : x(picture),
        kernel_height(filter.kernel_height),
        kernel_width(filter.kernel_width),
        stride(step),
        out_width(outputs_of(picture.width, step)),
        top(padding_before(picture.height, filter.kernel_height, step)),
        left(padding_before(picture.width, filter.kernel_width, step)) {}

  const float* part(int64_t pixel, int64_t first, int64_t count, float* staging) const {
    const int64_t y = (pixel + start) / out_width * stride - top,
                  x0 = (pixel + start) % out_width * stride - left;
    const int64_t row_values = kernel_width * x.channels;
    for (int64_t done = 0; done < count;) {
      const int64_t k = first + done, row = y + k / row_values, within = k % row_values;
      const int64_t n = std::min(count - done, row_values - within);
      copy_row(row, x0 * x.channels + within, n, staging + done);
      done += n;
    }
    return staging;
  }

  void value_range(int64_t pixel, float* out) const {
    const int64_t y = (pixel + start) / out_width * stride - top;
    const int64_t x0 = (pixel + start) % out_width * stride - left;
    out[0] = out[1] = 0.0f;
    for (int64_t row = std::max<int64_t>(y, 0); row < std::min(y + kernel_height, x.height);
         ++row) {
      for (int64_t col = std::max<int64_t>(x0, 0); col < std::min(x0 + kernel_width, x.width);
           ++col) {
        const float* range = ranges + 2 * (row * x.width + col);
        out[0] = std::min(out[0], range[0]);
        out[1] = std::max(out[1], range[1]);
      }
    }
  }

  // Values [first, first + n) of a row of the picture, zeros outside of it.
  void copy_row(int64_t row, int64_t first, int64_t n, float* to) const {
    const int64_t values = x.width * x.channels;
    const int64_t begin = std::clamp<int64_t>(-first, 0, n),
                  end = std::clamp(values - first, begin, n);
    if (row < 0 || row >= x.height || begin == end) {
      std::fill_n(to, n, 0.0f);
      return;
    }
    std::fill_n(to, begin, 0.0f);
    std::memcpy(to + begin, x.data + row * values + first + begin,
                static_cast<size_t>(end - begin) * sizeof(float));
    std::fill_n(to + end, n - end, 0.0f);
  }

  Picture x;
  int64_t kernel_height, kernel_width, stride, out_width, top, left;
  const float* ranges = nullptr;  // (height, width, 2), for integer products
  int64_t start = 0;              // output pixel that counts as pixel 0
};

void range_phase(const Worker& worker, const Picture& x, float* out) {
  const auto [first, last] = worker.slice(x.pixels());
  for (int64_t pixel = first; pixel < last; ++pixel) {
    kernels().value_range(x.data + pixel * x.channels, x.channels, out + 2 * pixel);
  }
}

// The pixel of `coarse` that covers pixel `pixel` of x, rounded as the reference does.
const float* nearest_pixel(const Picture& coarse, const Picture& x, int64_t pixel) {
  const auto nearest = [](int64_t at, int64_t size, int64_t wanted) {
    const float scale = static_cast<float>(size) / static_cast<float>(wanted);
    return std::min(static_cast<int64_t>(static_cast<float>(at) * scale), size - 1);
  };
  const int64_t row = nearest(pixel / x.width, coarse.height, x.height),
                col = nearest(pixel % x.width, coarse.width, x.width);
  return coarse.data + (row * coarse.width + col) * coarse.channels;
}

// A thread's arrays for one product after another.
struct ConvRoom {
  ProductRoom product;
  float *sums, *middle;
};

struct ConvRooms {
  ConvRooms(int64_t total, int64_t sums_width, int64_t middle_width, int64_t extra)
      : threads(pool().threads()),
        pixels(tile_pixels(total, threads)),
        scratch(static_cast<size_t>(threads) *
                    (ProductRoom::bytes(pixels) + Scratch::bytes<float>(pixels * sums_width) +
                     Scratch::bytes<float>(pixels * middle_width)) +
                Scratch::bytes<ConvRoom>(threads) + Scratch::bytes<float>(extra)) {
    rooms = scratch.take<ConvRoom>(threads);
    for (int t = 0; t < threads; ++t) {
      rooms[t].product = ProductRoom(scratch, pixels);
      rooms[t].sums = scratch.take<float>(pixels * sums_width);
      rooms[t].middle = scratch.take<float>(pixels * middle_width);
    }
    extra_floats = scratch.take<float>(extra);
  }

  // body(room, first pixel, pixels) for the tiles of `total` pixels, handed out as threads get
  // free.
  template <class Body>
  void for_tiles(Worker& worker, int64_t total, const Body& body) const {
    if (worker.thread >= threads) return;  // the team grew since: this thread has no room
    for (int64_t tile; (tile = worker.next() * pixels) < total;) {
      body(rooms[worker.thread], tile, std::min(pixels, total - tile));
    }
  }

  int threads;
  int64_t pixels;
  Scratch scratch;
  ConvRoom* rooms;
  float* extra_floats;
};

}  // namespace

void conv(const FilterView& filter, const Picture& x, int64_t stride, const Finish& finish,
          float* out) {
  if (filter.winograd != nullptr && stride == 1) return winograd_conv(filter, x, finish, out);
  const PanelsView& panels = filter.panels;
  const int64_t total = outputs_of(x.height, stride) * outputs_of(x.width, stride);
  const bool plain = filter.pointwise() && stride == 1, measured = !plain && panels.integers();
  const ConvRooms rooms(total, padded_channels(panels.channels), 0, measured ? 2 * x.pixels() : 0);
  PatchRows patches(filter, x, stride);
  patches.ranges = rooms.extra_floats;
  pool().run([&](Worker& worker) {
    if (measured) {
      range_phase(worker, x, rooms.extra_floats);
      worker.barrier();
    }
    rooms.for_tiles(worker, total, [&](const ConvRoom& room, int64_t first, int64_t pixels) {
      const auto to_out = [&](int64_t pixel, const FinishRow& row) {
        finish_pixel(row, finish, first + pixel, out + (first + pixel) * panels.channels);
      };
      if (plain) {
        const PlainRows rows = {x.data + first * x.channels, x.channels, x.channels};
        tile_product(panels, rows, pixels, room.product, room.sums, to_out);
      } else {
        PatchRows rows = patches;
        rows.start = first;
        tile_product(panels, rows, pixels, room.product, room.sums, to_out);
      }
    });
  });
}

void inverted_bottleneck(const FilterView& expand, const FilterView& project, const Picture& x,
                         const Picture& coarse, const Finish& middle, const Finish& finish,
                         float* out) {
  const int64_t wide = padded_channels(expand.panels.channels), channels = project.panels.channels;
  const ConvRooms rooms(x.pixels(), padded_channels(channels), wide, 0);
  pool().run([&](Worker& worker) {
    rooms.for_tiles(worker, x.pixels(), [&](const ConvRoom& room, int64_t first, int64_t pixels) {
      const PlainRows inputs = {x.data + first * x.channels, x.channels, x.channels};
      tile_product(expand.panels, inputs, pixels, room.product, room.middle,
                   [&](int64_t pixel, const FinishRow& row) {
                     Finish here = middle;
                     if (coarse.data != nullptr)
                       here.bias = nearest_pixel(coarse, x, first + pixel);
                     finish_pixel(row, here, pixel, row.y);
                   });
      const PlainRows wide_rows = {room.middle, wide, expand.panels.channels};
      tile_product(project.panels, wide_rows, pixels, room.product, room.sums,
                   [&](int64_t pixel, const FinishRow& row) {
                     finish_pixel(row, finish, first + pixel, out + (first + pixel) * channels);
                   });
    });
  });
}

}  // namespace matryo
