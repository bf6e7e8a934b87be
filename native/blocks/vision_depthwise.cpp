// Depthwise convolutions, a few neighbouring pixels at a time.
#include <algorithm>

#include "blocks/tile_product.h"
#include "pool.h"

namespace matryo {
namespace {

constexpr int64_t kNeighbours = 4;

// Taps [first, last) of an axis that fall inside the picture for the output at `start`.
struct Taps {
  Taps(int64_t start, int64_t kernel, int64_t size)
      : first(std::max<int64_t>(0, -start)), last(std::min(kernel, size - start)) {}
  int64_t first, last;
};

// One row of outputs.
class DepthwiseRow {
 public:
  DepthwiseRow(const float* weight, int64_t kernel, const Picture& x, int64_t stride, int64_t row)
      : weight_(weight),
        kernel_(kernel),
        x_(x),
        stride_(stride),
        left_(padding_before(x.width, kernel, stride)),
        y_(row * stride - padding_before(x.height, kernel, stride)),
        rows_(y_, kernel, x.height) {}

  bool whole(int64_t col) const {
    const Taps taps(start(col), kernel_, x_.width);
    return taps.first == 0 && taps.last == kernel_;
  }

  // out (count, C): outputs col .. col + count - 1, all but a single one with every column of taps
  // inside.
  void compute(int64_t col, int64_t count, float* out) const {
    const Taps cols(start(col), kernel_, x_.width);
    DepthwisePixels call = {};
    call.x = x_.data + ((y_ + rows_.first) * x_.width + start(col) + cols.first) * x_.channels;
    call.x_row = x_.width * x_.channels;
    call.x_step = stride_ * x_.channels;
    call.weight = weight_ + (rows_.first * kernel_ + cols.first) * x_.channels;
    call.weight_row = kernel_ * x_.channels;
    call.rows = static_cast<int32_t>(rows_.last - rows_.first);
    call.cols = static_cast<int32_t>(cols.last - cols.first);
    call.channels = x_.channels;
    call.count = static_cast<int32_t>(count);
    call.out = out;
    kernels().depthwise(call);
  }

 private:
  int64_t start(int64_t col) const { return col * stride_ - left_; }

  const float* weight_;
  int64_t kernel_;
  Picture x_;
  int64_t stride_, left_, y_;
  Taps rows_;
};

}  // namespace

void depthwise(const float* weight, int64_t kernel, const Picture& x, int64_t stride,
               const Finish& finish, float* out) {
  const int64_t height = outputs_of(x.height, stride), width = outputs_of(x.width, stride),
                channels = x.channels;
  pool().run([&](Worker& worker) {
    for (int64_t row; (row = worker.next()) < height;) {
      const DepthwiseRow outputs(weight, kernel, x, stride, row);
      for (int64_t col = 0; col < width;) {
        int64_t count = 1;
        if (outputs.whole(col)) {
          while (count < kNeighbours && col + count < width && outputs.whole(col + count)) ++count;
        }
        float* pixels = out + (row * width + col) * channels;
        outputs.compute(col, count, pixels);
        for (int64_t i = 0; i < count; ++i) {
          FinishRow done = {};
          done.y = pixels + i * channels;
          done.n = channels;
          finish_pixel(done, finish, row * width + col + i, done.y);
        }
        col += count;
      }
    }
  });
}

}  // namespace matryo
