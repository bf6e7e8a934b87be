// bf16 bits and f32 values, one at a time; in an anonymous namespace for the reason given in
// kernels.h.
#pragma once

#include <stdint.h>
#include <string.h>

namespace matryo {
namespace {

inline float bf16_value(uint16_t bits) {
  uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  memcpy(&value, &wide, 4);
  return value;
}

// Round to nearest, ties to even; a NaN stays a (quiet) NaN.
inline uint16_t bf16_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace
}  // namespace matryo
