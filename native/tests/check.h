// What the test files share: random numbers, failures, comparison with the scalar table.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "dispatch.h"

namespace matryo {

constexpr float kGuard = 12345.0f;

inline double uniform() {  // [-1, 1)
  static uint64_t state = 88172645463325252ull;
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return static_cast<double>(state >> 11) / 4503599627370496.0 - 1.0;
}

inline std::vector<float> random_floats(int64_t n) {
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values) value = static_cast<float>(2.0 * uniform() + uniform());
  return values;
}

[[noreturn]] inline void fail(const char* what, double got, double wanted, double limit) {
  std::printf("FAILED %s (%s): got %.9g, wanted %.9g, limit %.3g\n", what, kernels().name, got,
              wanted, limit);
  std::exit(1);
}

inline void expect_near(const char* what, double got, double wanted, double limit) {
  if (!(std::fabs(got - wanted) <= limit)) fail(what, got, wanted, limit);
}

// Runs body(table) with the scalar table, then with the selected one; each call returns its outputs
// as floats. The same bits are expected (`ulps` = 0), or values within so many roundings of the
// largest.
template <class Body>
void expect_as_scalar(const char* what, const Body& body, double ulps = 0.0) {
  const std::string name = kernels().name;
  select_kernels("scalar");
  const std::vector<float> wanted = body(kernels());
  select_kernels(name);
  const std::vector<float> got = body(kernels());
  double largest = 0.0;
  for (const float value : wanted) {
    if (std::isfinite(value)) largest = std::fmax(largest, std::fabs(value));
  }
  if (got.size() != wanted.size())
    fail(what, static_cast<double>(got.size()), static_cast<double>(wanted.size()), 0);
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (std::memcmp(&got[i], &wanted[i], sizeof(float)) == 0) continue;
    expect_near(what, got[i], wanted[i], ulps * 6e-8 * largest - (ulps == 0.0));
  }
}

// Bytes as floats, for outputs that are integers.
inline void append_bytes(std::vector<float>& out, const void* p, size_t n) {
  for (size_t i = 0; i < n; ++i) out.push_back(static_cast<const uint8_t*>(p)[i]);
}

inline void append(std::vector<float>& out, const std::vector<float>& more) {
  out.insert(out.end(), more.begin(), more.end());
}

void test_matrix_kernels();  // each for the selected table
void test_vector_kernels();
void test_attention_kernels();
void test_dense_kernels();
void test_audio_kernels();
void test_training_kernels();

}  // namespace matryo
