// Norms, AltUp streams, the gate of sparse layers: the bits of the scalar table, which the Python
// tests compare with the numpy twins.
#include "check.h"

namespace matryo {
namespace {

// Odd ends of rows for every number of lanes, and more than one piece of 1,024.
const int64_t kSizes[] = {1, 3, 4, 7, 15, 16, 17, 33, 63, 64, 65, 130, 1100};

std::vector<float> guarded(int64_t n) {
  return std::vector<float>(static_cast<size_t>(n) + 1, kGuard);
}

void test_norms(int64_t n) {
  const std::vector<float> x = random_floats(n), weight = random_floats(n),
                           residual = random_floats(n);
  expect_as_scalar("sum_squares", [&](const Kernels& table) {
    return std::vector<float>{table.sum_squares(x.data(), n)};
  });
  expect_as_scalar("norm_row", [&](const Kernels& table) {
    std::vector<float> out = guarded(n), plain = guarded(n);
    table.norm_row(x.data(), n, 0.3f, weight.data(), out.data());
    table.norm_row(x.data(), n, 0.3f, nullptr, plain.data());
    append(out, plain);
    return out;
  });
  expect_as_scalar("add_norm_row", [&](const Kernels& table) {
    std::vector<float> out = guarded(n);
    table.add_norm_row(x.data(), n, 0.3f, weight.data(), residual.data(), 0.7f, out.data());
    return out;
  });
}

void test_streams(int64_t n) {
  const int64_t stride = n + 2;
  const std::vector<float> x = random_floats(4 * stride), active = random_floats(n),
                           added = random_floats(n);
  const std::vector<float> weight = random_floats(n), router = random_floats(4 * n),
                           mix = random_floats(16);
  expect_as_scalar("route", [&](const Kernels& table) {
    std::vector<float> out = guarded(4);
    table.route(x.data(), weight.data(), router.data(), n, 1e-6f, out.data());
    return out;
  });
  expect_as_scalar("mix_streams", [&](const Kernels& table) {
    std::vector<float> out(static_cast<size_t>(4 * stride), kGuard);
    MixStreams call = {x.data(), stride, {}, n, out.data(), stride};
    std::memcpy(call.mix, mix.data(), sizeof(call.mix));
    table.mix_streams(call);
    return out;
  });
  expect_as_scalar("correct_first", [&](const Kernels& table) {
    std::vector<float> out = guarded(n);
    table.correct_first(x.data(), active.data(), 0.9f, weight.data(), n, out.data());
    return out;
  });
  expect_as_scalar("correct_streams", [&](const Kernels& table) {
    std::vector<float> out(static_cast<size_t>(4 * stride), kGuard);
    table.correct_streams({x.data(),
                           stride,
                           active.data(),
                           {0.9f, 1.1f, -0.2f, 0.4f},
                           added.data(),
                           0.6f,
                           weight.data(),
                           n,
                           out.data(),
                           stride});
    return out;
  });
  expect_as_scalar("average_streams", [&](const Kernels& table) {
    std::vector<float> out = guarded(n);
    table.average_streams(active.data(), x.data(), stride, mix.data(), n, out.data());
    return out;
  });
}

void test_gate(int64_t n) {
  const std::vector<float> gate = random_floats(n), other = random_floats(n);
  expect_as_scalar("gelu_multiply", [&](const Kernels& table) {
    std::vector<float> out = guarded(n);
    table.gelu_multiply(gate.data(), other.data(), n, out.data());
    return out;
  });
  expect_as_scalar("moments", [&](const Kernels& table) {
    const Moments moments = table.moments(gate.data(), n);
    std::vector<float> out;
    append_bytes(out, &moments, sizeof(moments));
    return out;
  });
  for (const float cut : {-10.0f, 0.5f, 10.0f}) {  // all, some, none
    expect_as_scalar("select_units", [&](const Kernels& table) {
      std::vector<int32_t> ids(static_cast<size_t>(n));
      std::vector<float> out(static_cast<size_t>(n));
      const int32_t count = table.select_units(gate.data(), static_cast<int32_t>(n), cut, 100,
                                               ids.data(), out.data());
      out.resize(static_cast<size_t>(count));
      for (int32_t i = 0; i < count; ++i)
        out.push_back(static_cast<float>(ids[static_cast<size_t>(i)]));
      return out;
    });
  }
}

}  // namespace

void test_vector_kernels() {
  static_assert(sizeof(VectorKernels) == 11 * sizeof(void*),
                "the table grew: test the new entry here");
  for (const int64_t n : kSizes) {
    test_norms(n);
    test_streams(n);
    test_gate(n);
  }
}

}  // namespace matryo
