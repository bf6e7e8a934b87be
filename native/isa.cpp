// One instruction set: compiled once for each, with its own flags and MATRYO_ISA naming the table.
// Exports one symbol. No C++ library headers here or below (kernels.h says why).
#include "kernels.h"
#include "simd.h"

namespace matryo {
namespace {

// clang-format off: each may use those before it
#include "kernels/quantize.inc"
#include "kernels/matmul.inc"
#include "kernels/rows.inc"
#include "kernels/pack.inc"
#include "kernels/vector.inc"
#include "kernels/attention.inc"
#include "kernels/dense.inc"
#include "kernels/winograd.inc"
#include "kernels/audio.inc"
#include "kernels/training.inc"
// clang-format on

constexpr Kernels make_table(const char* name) {
  Kernels table{};
  table.name = name;
  fill_quantize(table);
  fill_matmul(table);
  fill_rows(table);
  fill_pack(table);
  fill_vector(table);
  fill_attention(table);
  fill_dense(table);
  fill_winograd(table);
  fill_audio(table);
  fill_training(table);
  return table;
}

}  // namespace

#define MATRYO_JOIN(a, b) a##b
#define MATRYO_SYMBOL(isa) MATRYO_JOIN(kernels_, isa)
#define MATRYO_QUOTE(x) #x
#define MATRYO_NAME(isa) MATRYO_QUOTE(isa)

extern const Kernels MATRYO_SYMBOL(MATRYO_ISA);
constexpr Kernels MATRYO_SYMBOL(MATRYO_ISA) = make_table(MATRYO_NAME(MATRYO_ISA));

}  // namespace matryo
