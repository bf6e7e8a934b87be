// Between dense f32 arrays and stored matrices: packing, unpacking, rows by index.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace matryo {

// dense (rows, cols) f32, row-major -> the bytes of `kind` and `layout` at `out` (storage_bytes of
// them, overwritten). Throws std::invalid_argument naming row and column of the first NaN or
// infinity.
void pack(Kind kind, Layout layout, const float* dense, int64_t rows, int64_t cols, uint8_t* out);

// out[c] = w[row][c] * factor for c in [0, w.cols), any layout.
void read_row(const MatrixView& w, int64_t row, float factor, float* out);

// out (rows, cols): every row, in parallel.
void unpack(const MatrixView& w, float* out);

// out (tokens, cols): read_row of every id, in parallel. Throws std::invalid_argument for an id out
// of range.
void gather(const MatrixView& w, const int32_t* ids, int64_t tokens, float factor, float* out);

// Asks the operating system to page the rows of `ids` in (rows layout, mapped files); a hint, never
// an error.
void advise_rows(const MatrixView& w, const int32_t* ids, int64_t count);

}  // namespace matryo
