// The sound encoder's entries: the bits of the scalar table, which the Python tests compare with
// the numpy twins.
#include "check.h"

namespace matryo {
namespace {

const int64_t kSizes[] = {1, 3, 4, 7, 15, 16, 17, 33, 63, 65, 130};

std::vector<float> guarded(int64_t n) {
  return std::vector<float>(static_cast<size_t>(n) + 1, kGuard);
}

void test_rows(int64_t n) {
  constexpr int32_t kTaps = 5;
  const std::vector<float> x = random_floats(kTaps * n), other = random_floats(kTaps * n);
  expect_as_scalar("gate_row", [&](const Kernels& table) {
    std::vector<float> out = guarded(n);
    table.gate_row(x.data(), other.data(), n, out.data());
    return out;
  });
  for (const float limit : {1e10f, 0.5f}) {
    expect_as_scalar("convolve_row", [&](const Kernels& table) {
      std::vector<float> out = guarded(n);
      table.convolve_row(x.data(), other.data(), kTaps, n, limit, out.data());
      return out;
    });
    expect_as_scalar("clip_row", [&](const Kernels& table) {
      std::vector<float> out = guarded(n);
      table.clip_row(x.data(), n, limit, out.data());
      return out;
    });
  }
  expect_as_scalar("add_row", [&](const Kernels& table) {
    std::vector<float> out = guarded(n);
    table.add_row(x.data(), other.data(), n, out.data());
    return out;
  });
  expect_as_scalar("silu_row", [&](const Kernels& table) {
    std::vector<float> out(x.begin(), x.begin() + n);
    out.push_back(kGuard);
    table.silu_row(out.data(), n);
    return out;
  });
  expect_as_scalar("norm_silu_row", [&](const Kernels& table) {
    std::vector<float> out = guarded(n);
    table.norm_silu_row(x.data(), n, 0.7f, other.data(), out.data());
    return out;
  });
  expect_as_scalar("center_row", [&](const Kernels& table) {
    std::vector<float> out = guarded(n);
    table.center_row(x.data(), n, 0.2f, 1.3f, other.data(), out.data());
    return out;
  });
}

void test_frame(int32_t head_dim, int32_t count) {
  const int64_t stride = head_dim + 3;
  const std::vector<float> query = random_floats(head_dim), scale = random_floats(head_dim),
                           keys = random_floats(count * stride),
                           values = random_floats(count * stride),
                           position = random_floats(count * stride);
  for (const int missing : {1, 2, 1000}) {  // every key, every second one, none
    std::vector<uint8_t> valid(static_cast<size_t>(count));
    for (size_t i = 0; i < valid.size(); ++i) valid[i] = (i + 1) % missing == 0;
    expect_as_scalar("attend_frame", [&](const Kernels& table) {
      std::vector<float> scores(static_cast<size_t>(count + head_dim + 32)),
          out = guarded(head_dim);
      table.attend_frame({query.data(), scale.data(), keys.data(), values.data(), position.data(),
                          valid.data(), stride, count, head_dim, 3.0f, scores.data(), out.data()});
      return out;
    });
  }
}

void test_widened(int64_t depth) {
  std::vector<uint8_t> panel(static_cast<size_t>(depth * kPanel * 2));
  for (size_t i = 0; i < panel.size(); i += 2) {
    panel[i] = static_cast<uint8_t>(i % 251);
    panel[i + 1] = static_cast<uint8_t>(0x30 + i % 17);
  }
  expect_as_scalar("widen_bf16_panel", [&](const Kernels& table) {
    std::vector<float> out = guarded(depth * kPanel);
    table.widen_bf16_panel(panel.data(), depth, out.data());
    return out;
  });
}

}  // namespace

void test_audio_kernels() {
  static_assert(sizeof(AudioKernels) == 9 * sizeof(void*),
                "the table grew: test the new entry here");
  for (const int64_t n : kSizes) test_rows(n);
  for (const int32_t head_dim : {1, 16, 37, 192}) {
    for (const int32_t count : {1, 5, 13, 17}) test_frame(head_dim, count);
  }
  for (const int64_t depth : {2, 30, 256}) test_widened(depth);
}

}  // namespace matryo
