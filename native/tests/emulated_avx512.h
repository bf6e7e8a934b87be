// The AVX-512 intrinsics that kernels use, lane by lane in plain C++, so that the AVX-512 table can
// be tested on a CPU without it (`make test-avx512`). Included before simd.h by that build only;
// slow, and never part of a wheel. Source of the semantics: Intel Intrinsics Guide. A missing
// intrinsic is a compile error: add it here.
#pragma once

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

namespace matryo_emulated {

struct alignas(64) Floats {
  float lane[16];
};
struct alignas(64) Ints {
  int32_t lane[16];
};
using Mask = uint16_t;
using Bytes = int8_t[64];

template <class To, class From>
inline To bits(const From& x) {
  static_assert(sizeof(To) == sizeof(From), "a cast changes no bit");
  To out;
  memcpy(&out, &x, sizeof(To));
  return out;
}

template <class Function>
inline Floats each(Function f) {
  Floats out;
  for (int i = 0; i < 16; ++i) out.lane[i] = f(i);
  return out;
}
template <class Function>
inline Ints each_int(Function f) {
  Ints out;
  for (int i = 0; i < 16; ++i) out.lane[i] = f(i);
  return out;
}
// Elements of another width: N of type T.
template <class T, class Function>
inline Ints each_of(Function f) {
  T out[64 / sizeof(T)];
  for (int i = 0; i < static_cast<int>(64 / sizeof(T)); ++i) out[i] = static_cast<T>(f(i));
  Ints result;
  memcpy(&result, out, 64);
  return result;
}
template <class T>
inline T element(const Ints& x, int i) {
  T out;
  memcpy(&out, reinterpret_cast<const char*>(&x) + i * sizeof(T), sizeof(T));
  return out;
}
inline uint32_t word(const Floats& x, int i) { return bits<uint32_t>(x.lane[i]); }
inline uint32_t word(const Ints& x, int i) { return static_cast<uint32_t>(x.lane[i]); }
inline bool on(uint64_t mask, int i) { return (mask >> i & 1) != 0; }

inline Floats set1_ps(float x) {
  return each([&](int) { return x; });
}
inline Floats setzero_ps() { return set1_ps(0.0f); }
inline Ints set1_epi32(int32_t x) {
  return each_int([&](int) { return x; });
}
inline Ints set1_epi8(int x) {
  return each_of<int8_t>([&](int) { return x; });
}
inline Ints set1_epi16(int x) {
  return each_of<int16_t>([&](int) { return x; });
}
inline Ints setzero_si512() { return set1_epi32(0); }
template <class... T>
inline Floats setr_ps(T... x) {
  static_assert(sizeof...(T) == 16, "sixteen lanes");
  return {{static_cast<float>(x)...}};
}
template <class... T>
inline Ints setr_epi32(T... x) {
  static_assert(sizeof...(T) == 16, "sixteen lanes");
  return {{static_cast<int32_t>(x)...}};
}
template <class... T>
inline Ints setr_epi64(T... x) {
  static_assert(sizeof...(T) == 8, "eight lanes");
  const int64_t lanes[8] = {static_cast<int64_t>(x)...};
  return bits<Ints>(lanes);
}

inline Floats loadu_ps(const void* p) {
  Floats out;
  memcpy(&out, p, 64);
  return out;
}
inline Ints loadu_si512(const void* p) {
  Ints out;
  memcpy(&out, p, 64);
  return out;
}
inline void storeu_ps(void* p, const Floats& x) { memcpy(p, &x, 64); }
inline void storeu_si512(void* p, const Ints& x) { memcpy(p, &x, 64); }
inline Floats maskz_loadu_ps(Mask mask, const void* p) {
  const float* from = static_cast<const float*>(p);
  return each([&](int i) { return on(mask, i) ? from[i] : 0.0f; });
}
inline void mask_storeu_ps(void* p, Mask mask, const Floats& x) {
  for (int i = 0; i < 16; ++i) {
    if (on(mask, i)) static_cast<float*>(p)[i] = x.lane[i];
  }
}

inline Floats add_ps(const Floats& a, const Floats& b) {
  return each([&](int i) { return a.lane[i] + b.lane[i]; });
}
inline Floats sub_ps(const Floats& a, const Floats& b) {
  return each([&](int i) { return a.lane[i] - b.lane[i]; });
}
inline Floats mul_ps(const Floats& a, const Floats& b) {
  return each([&](int i) { return a.lane[i] * b.lane[i]; });
}
inline Floats div_ps(const Floats& a, const Floats& b) {
  return each([&](int i) { return a.lane[i] / b.lane[i]; });
}
inline Floats fmadd_ps(const Floats& a, const Floats& b, const Floats& c) {
  return each([&](int i) { return __builtin_fmaf(a.lane[i], b.lane[i], c.lane[i]); });
}
// The second operand if either is NaN or both are zero.
inline Floats max_ps(const Floats& a, const Floats& b) {
  return each([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
inline Floats min_ps(const Floats& a, const Floats& b) {
  return each([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}
inline Floats abs_ps(const Floats& a) {
  return each([&](int i) { return fabsf(a.lane[i]); });
}
inline Floats sqrt_ps(const Floats& a) {
  return each([&](int i) { return sqrtf(a.lane[i]); });
}
inline Floats roundscale_ps(const Floats& a, int mode) {  // only "nearest even, no scaling" is used
  return each([&](int i) {
    return mode == (_MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC) ? rintf(a.lane[i]) : NAN;
  });
}
inline Floats scalef_ps(const Floats& a, const Floats& b) {
  return each([&](int i) { return ldexpf(a.lane[i], static_cast<int>(floorf(b.lane[i]))); });
}
inline float reduce_max_ps(const Floats& a) {
  float best = a.lane[0];
  for (int i = 1; i < 16; ++i) best = a.lane[i] > best ? a.lane[i] : best;
  return best;
}

inline Floats and_ps(const Floats& a, const Floats& b) {
  return each([&](int i) { return bits<float>(word(a, i) & word(b, i)); });
}
inline Floats or_ps(const Floats& a, const Floats& b) {
  return each([&](int i) { return bits<float>(word(a, i) | word(b, i)); });
}
inline Ints and_si512(const Ints& a, const Ints& b) {
  return each_int([&](int i) { return a.lane[i] & b.lane[i]; });
}
inline Ints or_si512(const Ints& a, const Ints& b) {
  return each_int([&](int i) { return a.lane[i] | b.lane[i]; });
}
inline Ints xor_si512(const Ints& a, const Ints& b) {
  return each_int([&](int i) { return a.lane[i] ^ b.lane[i]; });
}
inline Ints add_epi32(const Ints& a, const Ints& b) {
  return each_of<uint32_t>([&](int i) { return word(a, i) + word(b, i); });
}
inline Ints sub_epi32(const Ints& a, const Ints& b) {
  return each_of<uint32_t>([&](int i) { return word(a, i) - word(b, i); });
}
inline Ints mullo_epi32(const Ints& a, const Ints& b) {
  return each_of<uint32_t>([&](int i) { return word(a, i) * word(b, i); });
}
inline Ints sub_epi8(const Ints& a, const Ints& b) {
  return each_of<int8_t>([&](int i) { return element<int8_t>(a, i) - element<int8_t>(b, i); });
}
inline Ints abs_epi8(const Ints& a) {
  return each_of<int8_t>([&](int i) {
    return element<int8_t>(a, i) < 0 ? -element<int8_t>(a, i) : element<int8_t>(a, i);
  });
}
inline Ints slli_epi32(const Ints& a, unsigned count) {
  return each_of<uint32_t>([&](int i) { return count > 31 ? 0u : word(a, i) << count; });
}
inline Ints srli_epi32(const Ints& a, unsigned count) {
  return each_of<uint32_t>([&](int i) { return count > 31 ? 0u : word(a, i) >> count; });
}
inline Ints srli_epi16(const Ints& a, unsigned count) {
  return each_of<uint16_t>(
      [&](int i) { return count > 15 ? 0 : element<uint16_t>(a, i) >> count; });
}
inline Ints srlv_epi64(const Ints& a, const Ints& count) {
  return each_of<uint64_t>([&](int i) {
    const uint64_t n = element<uint64_t>(count, i);
    return n > 63 ? 0 : element<uint64_t>(a, i) >> n;
  });
}
// Four unsigned bytes of a times four signed bytes of b, added to 32 bits without saturation.
inline Ints dpbusd_epi32(const Ints& sum, const Ints& a, const Ints& b) {
  return each_int([&](int i) {
    int32_t total = sum.lane[i];
    for (int k = 0; k < 4; ++k)
      total += element<uint8_t>(a, 4 * i + k) * element<int8_t>(b, 4 * i + k);
    return total;
  });
}

// Two signed 16-bit numbers of a times two of b, added to 32 bits without saturation.
inline Ints dpwssd_epi32(const Ints& sum, const Ints& a, const Ints& b) {
  return each_int([&](int i) {
    int32_t total = sum.lane[i];
    for (int k = 0; k < 2; ++k)
      total += element<int16_t>(a, 2 * i + k) * element<int16_t>(b, 2 * i + k);
    return total;
  });
}

template <int kPredicate>
inline bool compare(float a, float b) {
  const bool unordered = isnan(a) || isnan(b);
  switch (kPredicate) {
    case _CMP_LT_OQ:
      return a < b;
    case _CMP_NLT_UQ:
      return !(a < b);
    case _CMP_NLE_UQ:
      return !(a <= b);
    case _CMP_LE_OQ:
      return a <= b;
    case _CMP_GT_OQ:
      return a > b;
    case _CMP_GE_OQ:
      return a >= b;
    case _CMP_EQ_OQ:
      return a == b;
    case _CMP_NEQ_UQ:
      return !(a == b);
    case _CMP_UNORD_Q:
      return unordered;
    case _CMP_ORD_Q:
      return !unordered;
  }
  __builtin_trap();
}
template <int kPredicate>
inline Mask cmp_ps_mask(const Floats& a, const Floats& b) {
  Mask mask = 0;
  for (int i = 0; i < 16; ++i)
    mask = static_cast<Mask>(mask | compare<kPredicate>(a.lane[i], b.lane[i]) << i);
  return mask;
}
inline uint64_t movepi8_mask(const Ints& a) {
  uint64_t mask = 0;
  for (int i = 0; i < 64; ++i) mask |= static_cast<uint64_t>(element<int8_t>(a, i) < 0) << i;
  return mask;
}
inline Floats mask_blend_ps(Mask mask, const Floats& off, const Floats& yes) {
  return each([&](int i) { return on(mask, i) ? yes.lane[i] : off.lane[i]; });
}
inline Floats maskz_mov_ps(Mask mask, const Floats& a) {
  return mask_blend_ps(mask, setzero_ps(), a);
}
inline Ints mask_or_epi32(const Ints& off, Mask mask, const Ints& a, const Ints& b) {
  return each_int([&](int i) { return on(mask, i) ? a.lane[i] | b.lane[i] : off.lane[i]; });
}
inline Ints mask_sub_epi8(const Ints& off, uint64_t mask, const Ints& a, const Ints& b) {
  const Ints difference = sub_epi8(a, b);
  return each_of<int8_t>([&](int i) { return element<int8_t>(on(mask, i) ? difference : off, i); });
}
template <class Register>
inline Register compressed(Mask mask, const Register& a) {
  Register out{};
  int next = 0;
  for (int i = 0; i < 16; ++i) {
    if (on(mask, i)) out.lane[next++] = a.lane[i];
  }
  return out;
}
inline Floats permutexvar_ps(const Ints& index, const Floats& a) {
  return each([&](int i) { return a.lane[index.lane[i] & 15]; });
}
inline Ints permutexvar_epi64(const Ints& index, const Ints& a) {
  return each_of<uint64_t>([&](int i) {
    return element<uint64_t>(a, static_cast<int>(element<uint64_t>(index, i) & 7));
  });
}

inline Floats cvtepi32_ps(const Ints& a) {
  return each([&](int i) { return static_cast<float>(a.lane[i]); });
}
inline Ints cvtps_epi32(const Floats& a) {
  return each_int([&](int i) { return static_cast<int32_t>(lrintf(a.lane[i])); });
}
template <class T, class Register>
inline Ints widened(const Register& a) {
  T narrow[sizeof(Register) / sizeof(T)];
  memcpy(narrow, &a, sizeof(Register));
  return each_int([&](int i) { return static_cast<int32_t>(narrow[i]); });
}
template <class T, class Register>
inline Register narrowed(const Ints& a) {
  T narrow[16];
  for (int i = 0; i < 16; ++i) narrow[i] = static_cast<T>(a.lane[i]);
  Register out;
  memcpy(&out, narrow, sizeof(Register));
  return out;
}
template <int kHalf>
inline __m256 extractf32x8_ps(const Floats& a) {
  return _mm256_loadu_ps(a.lane + 8 * kHalf);
}
inline Ints castsi256_si512(__m256i low) {
  Ints out{};
  memcpy(&out, &low, 32);
  return out;
}
template <int kHalf>
inline Ints inserti64x4(Ints a, __m256i half) {
  memcpy(reinterpret_cast<char*>(&a) + 32 * kHalf, &half, 32);
  return a;
}

}  // namespace matryo_emulated

#define __m512 matryo_emulated::Floats
#define __m512i matryo_emulated::Ints
#undef _mm512_cmp_ps_mask
#undef _mm512_roundscale_ps
#undef _mm512_extractf32x8_ps
#undef _mm512_inserti64x4
#undef _mm512_slli_epi32
#undef _mm512_srli_epi32
#undef _mm512_srli_epi16
#define _mm512_cmp_ps_mask(a, b, predicate) matryo_emulated::cmp_ps_mask<predicate>(a, b)
#define _mm512_extractf32x8_ps(a, half) matryo_emulated::extractf32x8_ps<half>(a)
#define _mm512_inserti64x4(a, b, half) matryo_emulated::inserti64x4<half>(a, b)
#define _mm512_castps_si512 matryo_emulated::bits<matryo_emulated::Ints>
#define _mm512_castsi512_ps matryo_emulated::bits<matryo_emulated::Floats>
#define _mm512_castps512_ps256 matryo_emulated::extractf32x8_ps<0>
#define _mm512_maskz_compress_ps matryo_emulated::compressed
#define _mm512_maskz_compress_epi32 matryo_emulated::compressed
#define _mm512_cvtepi8_epi32 matryo_emulated::widened<int8_t>
#define _mm512_cvtepu8_epi32 matryo_emulated::widened<uint8_t>
#define _mm512_cvtepu16_epi32 matryo_emulated::widened<uint16_t>
#define _mm512_cvtepi32_epi16 matryo_emulated::narrowed<int16_t, __m256i>
#define _mm512_cvtepi32_epi8 matryo_emulated::narrowed<int8_t, __m128i>
#define _mm512_set1_ps matryo_emulated::set1_ps
#define _mm512_setzero_ps matryo_emulated::setzero_ps
#define _mm512_set1_epi32 matryo_emulated::set1_epi32
#define _mm512_set1_epi8 matryo_emulated::set1_epi8
#define _mm512_set1_epi16 matryo_emulated::set1_epi16
#define _mm512_setzero_si512 matryo_emulated::setzero_si512
// GCC has these as macros, where the others are functions.
#undef _mm512_setr_ps
#undef _mm512_setr_epi32
#undef _mm512_setr_epi64
#define _mm512_setr_ps matryo_emulated::setr_ps
#define _mm512_setr_epi32 matryo_emulated::setr_epi32
#define _mm512_setr_epi64 matryo_emulated::setr_epi64
#define _mm512_loadu_ps matryo_emulated::loadu_ps
#define _mm512_loadu_si512 matryo_emulated::loadu_si512
#define _mm512_storeu_ps matryo_emulated::storeu_ps
#define _mm512_storeu_si512 matryo_emulated::storeu_si512
#define _mm512_maskz_loadu_ps matryo_emulated::maskz_loadu_ps
#define _mm512_mask_storeu_ps matryo_emulated::mask_storeu_ps
#define _mm512_add_ps matryo_emulated::add_ps
#define _mm512_sub_ps matryo_emulated::sub_ps
#define _mm512_mul_ps matryo_emulated::mul_ps
#define _mm512_div_ps matryo_emulated::div_ps
#define _mm512_fmadd_ps matryo_emulated::fmadd_ps
#define _mm512_max_ps matryo_emulated::max_ps
#define _mm512_min_ps matryo_emulated::min_ps
#define _mm512_abs_ps matryo_emulated::abs_ps
#define _mm512_sqrt_ps matryo_emulated::sqrt_ps
#define _mm512_roundscale_ps matryo_emulated::roundscale_ps
#define _mm512_scalef_ps matryo_emulated::scalef_ps
#define _mm512_reduce_max_ps matryo_emulated::reduce_max_ps
#define _mm512_and_ps matryo_emulated::and_ps
#define _mm512_or_ps matryo_emulated::or_ps
#define _mm512_and_si512 matryo_emulated::and_si512
#define _mm512_or_si512 matryo_emulated::or_si512
#define _mm512_xor_si512 matryo_emulated::xor_si512
#define _mm512_add_epi32 matryo_emulated::add_epi32
#define _mm512_sub_epi32 matryo_emulated::sub_epi32
#define _mm512_mullo_epi32 matryo_emulated::mullo_epi32
#define _mm512_sub_epi8 matryo_emulated::sub_epi8
#define _mm512_abs_epi8 matryo_emulated::abs_epi8
#define _mm512_slli_epi32 matryo_emulated::slli_epi32
#define _mm512_srli_epi32 matryo_emulated::srli_epi32
#define _mm512_srli_epi16 matryo_emulated::srli_epi16
#define _mm512_srlv_epi64 matryo_emulated::srlv_epi64
#define _mm512_dpbusd_epi32 matryo_emulated::dpbusd_epi32
#define _mm512_dpwssd_epi32 matryo_emulated::dpwssd_epi32
#define _mm512_movepi8_mask matryo_emulated::movepi8_mask
#define _mm512_mask_blend_ps matryo_emulated::mask_blend_ps
#define _mm512_maskz_mov_ps matryo_emulated::maskz_mov_ps
#define _mm512_mask_or_epi32 matryo_emulated::mask_or_epi32
#define _mm512_mask_sub_epi8 matryo_emulated::mask_sub_epi8
#define _mm512_permutexvar_ps matryo_emulated::permutexvar_ps
#define _mm512_permutexvar_epi64 matryo_emulated::permutexvar_epi64
#define _mm512_cvtepi32_ps matryo_emulated::cvtepi32_ps
#define _mm512_cvtps_epi32 matryo_emulated::cvtps_epi32
#define _mm512_castsi256_si512 matryo_emulated::castsi256_si512
