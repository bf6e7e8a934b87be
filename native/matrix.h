// Stored matrices on the baseline side: sizes, checks, and products as phases of a parallel region.
#pragma once

#include <cstdint>
#include <string>

#include "kernels.h"
#include "pool.h"

namespace matryo {

// Bytes of one panel (panel layout) or one row (rows layout) of `cols` columns.
int64_t storage_stride(Kind kind, Layout layout, int64_t cols);
int64_t storage_bytes(Kind kind, Layout layout, int64_t rows, int64_t cols);
inline int64_t groups_of(int64_t cols) { return (cols + kGroup - 1) / kGroup; }
inline bool is_quantized(Kind kind) { return kind == kQ8 || kind == kQ4; }

Kind kind_from_name(const std::string& name);  // std::invalid_argument names the allowed ones
Layout layout_from_name(const std::string& name);
const char* kind_name(Kind kind);
const char* layout_name(Layout layout);

// One product of a phase: out (T, rows) = x (T, cols) · w[:rows, :cols]^T.
struct ProductJob {
  MatrixView w;
  float* out;
  int64_t out_stride;  // floats from token to token
  int64_t rows;        // used now: a row prefix of w
  int64_t cols;  // used now: a column prefix of w, a multiple of 32 for q8/q4 unless all of them
  bool accumulate = false;
  float softcap = 0.0f;  // > 0: out = softcap * tanh(out / softcap)
};

// Gated feed-forward units of one phase, see GatedProduct. Units [0, rows) of gate and up.
struct GatedJob {
  MatrixView gate, up;
  int64_t rows, cols;
  float* act;  // (T, rows) or null
  int64_t act_stride;
  QuantizedGroup* quantized;  // (T, ceil(rows / 32)) or null
  int64_t quantized_stride;
};

// Phase: several products over the same rows, work handed out in chunks of panels over all of them.
// No barrier inside: call worker.barrier() before `out` is read. Uses the chunk counter `slot`.
// Same bits for any team.
void product_phase(Worker& worker, const TokenRows& x, const ProductJob* jobs, int count,
                   int slot = 0);
void gated_phase(Worker& worker, const TokenRows& x, const GatedJob* jobs, int count, int slot = 0);

// Phase: quantises x (T, cols), token t at x + t * stride, into out (T, groups_of(cols)). Static
// shares, no barrier.
void quantize_phase(Worker& worker, const float* x, int64_t stride, int64_t tokens, int64_t cols,
                    QuantizedGroup* out);

}  // namespace matryo
