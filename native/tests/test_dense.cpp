// Convolutions of pictures: products, codes and rows have the bits of the scalar table.
#include <cstring>

#include "check.h"

namespace matryo {
namespace {

void test_block(int32_t pixels, int32_t num_panels, int64_t depth) {
  const int64_t strips = (pixels + kStrip - 1) / kStrip, channels = num_panels * kPanel;
  const int64_t stride = channels + 3;
  const std::vector<float> x = random_floats(pixels * depth);
  const std::vector<float> panels = random_floats(num_panels * depth * kPanel);
  for (const bool accumulate : {false, true}) {
    expect_as_scalar("dense_f32", [&](const Kernels& table) {
      // Places of missing pixels stay zero or hold what the table left there: nobody reads them.
      std::vector<float> packed(static_cast<size_t>(strips * kStrip * depth + kStripSlack));
      for (int64_t first = 0; first < pixels; first += kStrip) {
        const auto count = static_cast<int32_t>(std::min<int64_t>(kStrip, pixels - first));
        const float* rows[kStrip] = {};
        for (int32_t r = 0; r < count; ++r) rows[r] = x.data() + (first + r) * depth;
        table.interleave(rows, count, depth, packed.data() + first * depth);
        for (int64_t k = 0; k < depth; ++k) {
          for (int32_t r = 0; r < count; ++r) {
            const float got = packed[static_cast<size_t>(first * depth + k * kStrip + r)];
            expect_near("interleave", got, rows[r][k], 0.0);
          }
        }
      }
      std::vector<float> sums(static_cast<size_t>(pixels * stride), 0.5f);
      table.dense_f32({packed.data(), pixels, panels.data(), depth * kPanel, num_panels, depth,
                       sums.data(), stride, accumulate});
      return sums;
    });
  }
}

// Weights up to the bound of kMostFour where `narrow` asks for it, up to 127 elsewhere.
void test_codes(int32_t pixels, int32_t num_panels, int64_t values, bool narrow) {
  const int64_t depth = (values + 7) / 8 * 8, stride = num_panels * kPanel + 3;
  const int64_t strips = (pixels + kCodeStrip - 1) / kCodeStrip;
  const std::vector<float> x = random_floats(pixels * values);
  std::vector<int8_t> panels(static_cast<size_t>(num_panels * depth * kPanel));
  for (int8_t& code : panels) code = static_cast<int8_t>(uniform() * (narrow ? 54.9 : 127.9));
  const float inverse[] = {30.0f, 20.0f, 10.0f, 40.0f}, zeros[] = {60.0f, 75.0f, 0.0f, 150.0f};
  for (const bool accumulate : {false, true}) {
    expect_as_scalar("dense_i8", [&](const Kernels& table) {
      std::vector<uint8_t> packed(static_cast<size_t>(strips * kCodeStrip * depth));
      for (int64_t first = 0; first < pixels; first += kCodeStrip) {
        const auto count = static_cast<int32_t>(std::min<int64_t>(kCodeStrip, pixels - first));
        const float* rows[kCodeStrip] = {};
        for (int32_t r = 0; r < count; ++r) rows[r] = x.data() + (first + r) * values;
        table.interleave_codes(rows, inverse, zeros, count, values, packed.data() + first * depth);
      }
      std::vector<int32_t> sums(static_cast<size_t>(pixels * stride), 77);
      table.dense_i8({packed.data(), pixels, panels.data(), depth * kPanel, num_panels, depth,
                      narrow, sums.data(), stride, accumulate});
      return std::vector<float>(sums.begin(), sums.end());
    });
  }
  expect_as_scalar("value_range", [&](const Kernels& table) {
    std::vector<float> range(2);
    table.value_range(x.data(), values, range.data());
    return range;
  });
}

// 16 bits on both sides; the largest codes and weights that may meet.
void test_words(int32_t pixels, int32_t num_panels, int64_t values) {
  const int64_t depth = (values + 1) / 2 * 2, stride = num_panels * kPanel + 3;
  const int64_t strips = (pixels + kStrip - 1) / kStrip;
  const std::vector<float> x = random_floats(pixels * values);
  std::vector<int16_t> panels(static_cast<size_t>(num_panels * depth * kPanel));
  const auto most = std::min<double>(32767.0, static_cast<double>(kMostWeights / depth));
  for (int16_t& code : panels) code = static_cast<int16_t>(uniform() * most);
  const float inverse[] = {300.0f, 200.0f, 100.0f, 40.0f, 9000.0f, 700.0f};
  for (const bool accumulate : {false, true}) {
    expect_as_scalar("dense_i16", [&](const Kernels& table) {
      std::vector<int16_t> packed(static_cast<size_t>(strips * kStrip * depth + kStripSlack));
      for (int64_t first = 0; first < pixels; first += kStrip) {
        const auto count = static_cast<int32_t>(std::min<int64_t>(kStrip, pixels - first));
        const float* rows[kStrip] = {};
        for (int32_t r = 0; r < count; ++r) rows[r] = x.data() + (first + r) * values;
        table.interleave_words(rows, inverse, count, values, packed.data() + first * depth);
      }
      std::vector<int32_t> sums(static_cast<size_t>(pixels * stride), 77);
      table.dense_i16({packed.data(), pixels, panels.data(), depth * kPanel, num_panels, depth,
                       sums.data(), stride, accumulate});
      std::vector<float> found(packed.begin(), packed.end());
      for (const int32_t sum : sums) {  // a float holds 24 bits
        found.push_back(static_cast<float>(sum >> 16));
        found.push_back(static_cast<float>(sum & 0xffff));
      }
      return found;
    });
  }
}

// Rows of a block against stored parts of panels.
void test_scaled(int32_t pixels, int32_t num_panels, int64_t depth) {
  const int64_t part = kScaledHeader + depth * kPanel, stride = num_panels * kPanel + 3;
  const std::vector<float> scales = random_floats(pixels + num_panels * kPanel);
  std::vector<float> zeros(static_cast<size_t>(pixels));
  for (size_t i = 0; i < zeros.size(); ++i) zeros[i] = static_cast<float>(i * 19 % 128);
  std::vector<uint8_t> strips(static_cast<size_t>((pixels + 3) / 4 * 4 * depth));
  for (size_t i = 0; i < strips.size(); ++i) strips[i] = static_cast<uint8_t>(i * 37 % 128);
  std::vector<uint8_t> panels(static_cast<size_t>(num_panels * part));
  for (int32_t p = 0; p < num_panels; ++p) {
    uint8_t* at = panels.data() + p * part;
    std::memcpy(at, scales.data() + pixels + p * kPanel, kPanel * sizeof(float));
    int32_t sums[kPanel] = {};
    for (int64_t i = 0; i < depth * kPanel; ++i) {
      const auto code = static_cast<int8_t>(uniform() * 64.5);
      at[kScaledHeader + i] = static_cast<uint8_t>(code);
      sums[i / 4 % kPanel] += code;
    }
    std::memcpy(at + kPanel * 4, sums, sizeof(sums));
  }
  for (const bool accumulate : {false, true}) {
    expect_as_scalar("dense_scaled", [&](const Kernels& table) {
      std::vector<float> sums(static_cast<size_t>(pixels * stride), 0.5f);
      table.dense_scaled({strips.data(), pixels, scales.data(), zeros.data(), panels.data(), part,
                          num_panels, depth, panels.data(), sums.data(), stride, accumulate});
      return sums;
    });
  }
}

void test_finish(int64_t n) {
  const std::vector<float> sums = random_floats(n), vectors = random_floats(4 * n);
  for (int steps = 0; steps < 32; ++steps) {
    expect_as_scalar("finish_row", [&](const Kernels& table) {
      std::vector<float> y = sums, out(static_cast<size_t>(n) + 1, kGuard);
      FinishRow call = {};
      call.y = y.data();
      call.n = n;
      call.bias = steps & 1 ? vectors.data() : nullptr;
      call.norm = steps & 2 ? vectors.data() + n : nullptr;
      call.eps = 1e-6f;
      call.gelu = (steps & 4) != 0;
      call.gamma = steps & 8 ? vectors.data() + 2 * n : nullptr;
      call.residual = steps & 16 ? vectors.data() + 3 * n : nullptr;
      call.out = out.data();
      table.finish_row(call);
      return out;
    });
  }
}

void test_depthwise(int64_t channels, int32_t count) {
  const int32_t taps = 3, step = 2;
  const int64_t row = (count * step + taps) * channels;
  const std::vector<float> x = random_floats(taps * row);
  const std::vector<float> weight = random_floats(taps * taps * channels);
  expect_as_scalar("depthwise", [&](const Kernels& table) {
    std::vector<float> out(static_cast<size_t>(count * channels) + 1, kGuard);
    table.depthwise({x.data(), row, step * channels, weight.data(), taps * channels, taps, taps,
                     channels, count, out.data()});
    return out;
  });
}

void test_winograd(int64_t n) {
  const int64_t stride = n + 5;
  const std::vector<float> x = random_floats(kWinogradPoints * stride);
  expect_as_scalar("winograd_input", [&](const Kernels& table) {
    const float* pixels[kWinogradPoints];
    for (int i = 0; i < kWinogradPoints; ++i) pixels[i] = x.data() + i * stride;
    std::vector<float> out(static_cast<size_t>(kWinogradPoints * stride), kGuard);
    table.winograd_input(pixels, n, out.data(), stride);
    return out;
  });
  expect_as_scalar("winograd_output", [&](const Kernels& table) {
    std::vector<float> out(static_cast<size_t>(kWinogradPixels * stride), kGuard);
    table.winograd_output(x.data(), stride, n, out.data(), stride);
    return out;
  });
}

}  // namespace

void test_dense_kernels() {
  static_assert(sizeof(DenseKernels) == 13 * sizeof(void*),
                "the table grew: test the new entry here");
  for (const int32_t pixels : {1, 5, 6, 7, 13, 24}) {
    for (const int64_t depth : {1, 7, 32, 75}) {
      test_block(pixels, 1 + pixels % 6, depth);
      test_scaled(pixels, 1 + pixels % 6, (depth + 7) / 8 * 8);
      for (const bool narrow : {false, true}) test_codes(pixels, 1 + pixels % 6, depth, narrow);
      test_words(pixels, 1 + pixels % 6, depth);
    }
  }
  for (const int64_t n : {1, 15, 16, 17, 64, 100}) {
    test_finish(n);
    test_winograd(n);
    for (const int32_t count : {1, 2, 3, 4}) test_depthwise(n, count);
    expect_as_scalar("exp_row", [&](const Kernels& table) {
      std::vector<float> x(static_cast<size_t>(n));
      for (int64_t i = 0; i < n; ++i)
        x[static_cast<size_t>(i)] = static_cast<float>(i * 7 % 11) - 4.0f;
      const float sum = table.exp_row(x.data(), n, 0.3f);
      x.push_back(sum);
      return x;
    });
  }
}

}  // namespace matryo
