// The sound encoder's entries: the bits of the scalar table, which the Python tests compare with
// the numpy twins.
#include "check.h"
#include "matrix.h"

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

// 40 units over 70 columns of a matrix of some kind; the bytes of its scales are small bf16 values.
void test_silu_product(Kind kind, int32_t tokens) {
  constexpr int32_t kUnits = 40, kColumns = 70, kGroups = 3, kUnitGroups = 2;
  const int64_t stride = kind == kF32 ? 6144 : kind == kBf16 ? 3072 : kind == kQ8 ? 1632 : 864;
  std::vector<uint8_t> panels(static_cast<size_t>(3 * stride));
  for (uint8_t& byte : panels) byte = static_cast<uint8_t>(128.0 * (1.0 + uniform()));
  for (size_t i = 0; i + 4 <= panels.size() && kind == kF32; i += 4) {
    const float value = static_cast<float>(uniform());
    std::memcpy(&panels[i], &value, 4);
  }
  const auto set_bf16 = [&](size_t i) {
    panels[i] = 0;
    panels[i + 1] = 0x3d;  // 1/32
  };
  for (size_t i = 0; i + 2 <= panels.size() && kind == kBf16; i += 2) set_bf16(i);
  const size_t step = kind == kQ8 ? 544 : 288;
  for (size_t s = 0; s < panels.size() / step && is_quantized(kind); ++s) {
    for (size_t i = step - 32; i < step; i += 2) set_bf16(s * step + i);
    // -128 is no q8 code
    for (size_t i = 0; i < step - 32 && kind == kQ8; ++i) panels[s * step + i] &= 0x7f;
  }
  const std::vector<float> x = random_floats(tokens * kGroups * kGroup);
  std::vector<QuantizedGroup> codes(static_cast<size_t>(tokens * kGroups));
  for (int32_t t = 0; t < tokens; ++t) {
    kernels().quantize_row(&x[static_cast<size_t>(t * kGroups * kGroup)], kColumns,
                           &codes[static_cast<size_t>(t * kGroups)]);
  }
  expect_as_scalar("silu_product", [&](const Kernels& table) {
    std::vector<float> out = guarded(tokens * kUnits);
    std::vector<QuantizedGroup> quantized(static_cast<size_t>(tokens * kUnitGroups));
    table.silu_product[kind]({panels.data(),
                              stride,
                              kUnits,
                              kColumns,
                              {x.data(), kGroups * kGroup, codes.data(), kGroups, tokens},
                              out.data(),
                              kUnits,
                              quantized.data(),
                              kUnitGroups});
    append_bytes(out, quantized.data(), quantized.size() * sizeof(QuantizedGroup));
    return out;
  });
}

}  // namespace

void test_audio_kernels() {
  static_assert(sizeof(AudioKernels) == 10 * sizeof(void*),
                "the table grew: test the new entry here");
  for (const int64_t n : kSizes) test_rows(n);
  for (const int32_t head_dim : {1, 16, 37, 192}) {
    for (const int32_t count : {1, 5, 13, 17}) test_frame(head_dim, count);
  }
  for (const Kind kind : {kF32, kBf16, kQ8, kQ4}) {
    for (const int32_t tokens : {1, 5, 66}) test_silu_product(kind, tokens);
  }
}

}  // namespace matryo
