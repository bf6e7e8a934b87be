// The table of kernels every instruction set fills, and the plain data that crosses it.
//
//   T tokens · R rows (outputs) · C columns (inputs) · GROUP 32 · PANEL 16 · g group index
//
// How it works. `isa.cpp` is compiled once per instruction set; each object exports exactly one
// symbol, a constant `Kernels kernels_<isa>`. `dispatch.cpp` picks one; baseline code (`blocks/`,
// `bind/`) calls through `kernels().panel_product(...)`. This header is read by the ISA objects
// too, so it holds C headers and plain structs only: an inline function of the C++ library compiled
// with -mavx512f could be linked into baseline code.
//
// Arithmetic contract (what makes the bits independent of T, tiles and threads):
//   quantised product  y[t][r] = Σ_g fma(w_scale[g][r] * x_scale[t][g], float(Σ_k q_w q_x), acc),
//                      g ascending, one accumulator an output, the integer sum exact;
//   f32 / bf16 product y[t][r] = Σ_c fma(w[r][c], x[t][c], acc),
//                      c ascending, one accumulator an output;
//   `accumulate` starts the accumulator from the value in `out`, so a product over column segments
//   has the bits of the product over their concatenation;
//   row dot products use lane partial sums in a fixed order: the same bits for any set of rows and
//   any caller.
// Every kernel is re-entrant, allocates nothing, throws nothing and trusts its arguments (validated
// at the binding).
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels_attention.h"
#include "kernels_audio.h"
#include "kernels_dense.h"
#include "kernels_training.h"
#include "kernels_vector.h"

namespace matryo {

constexpr int kGroup = 32;  // columns that share one scale
constexpr int kPanel = 16;  // rows interleaved in one panel

enum Kind : int32_t { kF32 = 0, kBf16 = 1, kQ8 = 2, kQ4 = 3 };
enum Layout : int32_t { kPanelLayout = 0, kRowsLayout = 1 };

// A stored matrix; the bytes are described in docs/architecture.md section 2. Not owned.
struct MatrixView {
  Kind kind;
  Layout layout;
  int64_t rows, cols;   // logical size; storage is padded to PANEL (panel layout) and GROUP
  int64_t stride;       // bytes from one panel (panel layout) or one row (rows layout) to the next
  const uint8_t* data;  // any alignment
};

// 32 quantised activations of one token: x = scale * q, scale = absmax / 127, q = rint(x * (127 /
// absmax)). A group whose absmax is below 2^-100 counts as zero. Rows of groups are contiguous:
// token t starts at t * num_groups.
struct QuantizedGroup {
  int8_t q[kGroup];
  float scale;
  // -8 * sum(q): takes the +8 of stored q4 (and 16 times it the +128 of biased q8) out of a sum
  int32_t offset;
};

// T token rows in the forms a product may need; a form no matrix of the call needs may stay null.
struct TokenRows {
  const float* dense;               // f32 and bf16 matrices read this
  int64_t dense_stride;             // floats from token to token
  const QuantizedGroup* quantized;  // q8 and q4 matrices read this
  int64_t quantized_stride;         // groups from token to token
  int32_t tokens;
};

// out[t * out_stride + r] for r in [0, rows): rows of consecutive panels times the first `cols`
// columns.
struct PanelProduct {
  const uint8_t* panels;  // first panel
  int64_t panel_stride;   // bytes, of the stored matrix: a column prefix is a smaller `cols` only
  int32_t rows;           // any number >= 0; exactly this many outputs a token are written
  int32_t cols;  // quantised: rounded up to whole groups (the padding is zero on both sides)
  TokenRows x;
  float* out;
  int64_t out_stride;  // floats
  bool accumulate;
};

// act[t][u] = gelu_tanh(gate[t][u]) * up[t][u] for `rows` units (a multiple of GROUP except at the
// end of a segment: the missing units of the last group are zeros). Gate and up are both panel
// matrices of the same kind and shape.
struct GatedProduct {
  const uint8_t *gate, *up;  // first panels
  int64_t panel_stride;      // bytes, same for both
  int32_t rows, cols;
  TokenRows x;
  float* act;                 // f32 activations, or null
  int64_t act_stride;         // floats
  QuantizedGroup* quantized;  // quantised activations for a q8/q4 down projection, or null
  int64_t quantized_stride;   // groups
};

// Some rows of a matrix in rows layout: row ids[i] starts at data + ids[i] * stride.
struct RowSet {
  const uint8_t* data;
  int64_t stride;  // bytes
  int64_t cols;    // stored columns (decides where the scales of a row lie)
  const int32_t* ids;
  int32_t count;
};

// A piece of the columns of some rows of a matrix, unpacked: row id lies at (id - first) * columns.
struct UnpackedRows {
  int32_t first;
  int64_t columns;  // of the piece, a multiple of GROUP
  float* q;         // integers of q8 and q4, values of f32 and bf16
  float* scales;    // one for each 32 columns; 1 for f32 and bf16
};

struct MatrixKernels {
  // Dense products, indexed by Kind.
  void (*panel_product[4])(const PanelProduct& call);
  void (*gated_product[4])(const GatedProduct& call);

  // Quantises x[0..cols) into ceil(cols / 32) groups; missing columns of the last group count as
  // zeros.
  void (*quantize_row)(const float* x, int64_t cols, QuantizedGroup* out);

  // out[i] = row ids[i] · x, indexed by Kind; f32/bf16 read `dense`, q8/q4 read `quantized` (one
  // token).
  void (*dot_rows[4])(const RowSet& rows, const float* dense, const QuantizedGroup* quantized,
                      float* out);
  // out[i] = row · token tokens[i], with the bits of dot_rows; `cols` stored columns, indexed by
  // Kind.
  void (*dot_tokens[4])(const uint8_t* row, int64_t cols, const TokenRows& x, const int32_t* tokens,
                        int32_t count, float* out);
  // y[c] += Σ_i a[i] * row ids[i][c], i ascending with one fma each, for c in [first, last);
  // `first` a multiple of 32. y is indexed by c itself (y[first] is the first value touched).
  // Quantised rows: fma(a * scale, q, y).
  void (*axpy_rows[4])(const RowSet& rows, const float* a, int64_t first, int64_t last, float* y);
  // The same in two steps, with the same bits, for rows that many tokens add: columns [first, first
  // + out.columns) of each row of the set, then y[c] += Σ_i a[i] * row ids[i][c] for c in [0, n), n
  // <= rows.columns, y[0] the first of them.
  void (*unpack_rows[4])(const RowSet& rows, int64_t first, const UnpackedRows& out);
  void (*axpy_unpacked)(const UnpackedRows& rows, const int32_t* ids, const float* a, int32_t count,
                        int64_t n, float* y);
  // out[c] = (scale * q) * factor of one row in rows layout, c in [0, cols); `stored_cols` as in
  // RowSet.
  void (*dequantize_row[4])(const uint8_t* row, int64_t stored_cols, int64_t cols, float factor,
                            float* out);

  // Packing: one row of finite weights -> ceil(cols / 32) groups of 32 integers and one bf16 scale
  // each; missing columns are zeros. The algorithm and its numpy twin:
  // src/matryo/kernels/reference_pack.py; the bytes are identical on every instruction set.
  void (*pack_row_q8)(const float* weights, int64_t cols, int8_t* q, uint16_t* scales);
  void (*pack_row_q4)(const float* weights, int64_t cols, int8_t* q, uint16_t* scales);

  void (*bf16_to_f32)(const uint16_t* x, int64_t n, float* out);
  // Rounds to nearest even; NaN stays NaN.
  void (*f32_to_bf16)(const float* x, int64_t n, uint16_t* out);

  void (*softcap)(float* x, int64_t n, float cap);  // x = cap * tanh(x / cap)
  float (*maximum)(const float* x, int64_t n);      // -inf for n = 0; NaN is skipped
  bool (*all_finite)(const float* x, int64_t n);
  // Sums whatever is there: the bandwidth reference.
  uint64_t (*read_bytes)(const uint8_t* p, int64_t n);
};

struct Kernels : MatrixKernels,
                 VectorKernels,
                 AttentionKernels,
                 DenseKernels,
                 AudioKernels,
                 TrainingKernels {
  const char* name;
};

}  // namespace matryo
