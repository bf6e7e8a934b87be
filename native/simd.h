// A vector of f32 for the instruction set being compiled, and the functions of it that kernels
// share.
//
//   Vec x = load(p); store(p, fma(a, b, c)); kLanes values at once
//   load_n / store_n take the first n lanes only
//
// Read only by isa.cpp (everything lies in an anonymous namespace: see kernels.h on leaking inline
// functions). One of MATRYO_SIMD_AVX512, MATRYO_SIMD_AVX2, MATRYO_SIMD_NEON, MATRYO_SIMD_SCALAR is
// defined by the build. Conventions: max/min return the second argument if one is NaN on x86; sums
// over lanes have a fixed order, so a kernel built from these gives the same bits wherever its data
// lies; contraction is off, every fma is written.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(MATRYO_SIMD_AVX512) || defined(MATRYO_SIMD_AVX2)
#include <immintrin.h>
#elif defined(MATRYO_SIMD_NEON)
#include <arm_neon.h>
#endif

#include "simd/bf16.h"

namespace matryo {
namespace {

inline void prefetch(const void* p) { __builtin_prefetch(p, 0, 3); }

#if defined(MATRYO_SIMD_AVX512)
#include "simd/avx512.inc"
#elif defined(MATRYO_SIMD_AVX2)
#include "simd/avx2.inc"
#elif defined(MATRYO_SIMD_NEON)
#include "simd/neon.inc"
#else
#include "simd/scalar.inc"
#endif

inline Vec operator-(Vec a) { return set1(0.0f) - a; }
inline Vec clamp(Vec x, float low, float high) { return min(set1(high), max(set1(low), x)); }

// How a kernel touches the next vector of a row: a whole one, or the first lanes of one. Two types,
// because a masked store costs many times a plain one on some CPUs.
struct WholeVector {
  Vec load(const float* p) const { return matryo::load(p); }
  void store(float* p, Vec value) const { matryo::store(p, value); }
  Vec zero_missing(Vec value) const { return value; }
};

struct PartVector {
  int64_t lanes;
  Vec load(const float* p) const { return load_n(p, lanes); }
  void store(float* p, Vec value) const { store_n(p, value, lanes); }
  Vec zero_missing(Vec value) const {
    float kept[kLanes] = {};
    store_n(kept, value, lanes);
    return matryo::load(kept);
  }
};

// e^x, relative error below 1.5e-7 in [-87.3, 88.7]; exactly 0 below -87.33 (also for -inf), 3.4e38
// above 88.72. n = rint(x / ln 2); e^(x - n ln 2) by a polynomial (Taylor terms to degree 7 on |r|
// <= 0.347, where the next term is 5e-9); ln 2 in two parts so that n * high is exact.
inline Vec exp(Vec x) {
  Vec clamped = clamp(x, -87.33654f, 88.722f);
  Vec n = round(clamped * set1(1.44269504088896341f));
  Vec r = fma(n, set1(-0.693359375f), clamped);
  r = fma(n, set1(2.12194440e-4f), r);
  Vec p = set1(1.98412698e-4f);
  p = fma(p, r, set1(1.38888889e-3f));
  p = fma(p, r, set1(8.33333333e-3f));
  p = fma(p, r, set1(4.16666667e-2f));
  p = fma(p, r, set1(1.66666667e-1f));
  p = fma(p, r, set1(0.5f));
  p = fma(p * r, r, r) + set1(1.0f);
  return zero_below(scale_by_power_of_two(p, n), x, -87.33654f);
}

// tanh, relative error below 3e-7: an odd polynomial where 1 - 2 / (e^2x + 1) would cancel (|x| <
// 0.625, coefficients of Cephes' tanhf, S. Moshier, public domain), that formula elsewhere.
inline Vec tanh(Vec x) {
  Vec magnitude = abs(x);
  Vec square = x * x;
  Vec p = set1(-5.70498872745e-3f);
  p = fma(p, square, set1(2.06390887954e-2f));
  p = fma(p, square, set1(-5.37397155531e-2f));
  p = fma(p, square, set1(1.33314422036e-1f));
  p = fma(p, square, set1(-3.33332819422e-1f));
  Vec small = fma(p * square, x, x);
  Vec e = exp(min(set1(20.0f), magnitude) * set1(2.0f));
  Vec large = set1(1.0f) - set1(2.0f) / (e + set1(1.0f));
  return select_less(magnitude, set1(0.625f), small, copy_sign(large, x));
}

// GELU in its tanh form, 0.5 x (1 + tanh(y)) with y = sqrt(2/pi) (x + 0.044715 x^3), computed as x
// / (1 + e^-2y): the same function without the cancellation for negative x.
inline Vec gelu_tanh(Vec x) {
  Vec cubic = fma(x * x, set1(0.044715f) * x, x);
  Vec e = exp(cubic * set1(-1.5957691216057308f));
  return x / (e + set1(1.0f));
}

}  // namespace
}  // namespace matryo
