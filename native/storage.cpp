#include "storage.h"

#include <atomic>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#ifndef _WIN32
#include <sys/mman.h>
#include <unistd.h>
#endif

#include "dispatch.h"
#include "matrix.h"
#include "pool.h"
#include "simd/bf16.h"

namespace matryo {
namespace {

constexpr uint32_t kNibbles = 0x0f0f0f0fu, kBias = 0x08080808u;

uint32_t load_four(const int8_t* p) {
  uint32_t four;
  std::memcpy(&four, p, 4);
  return four;
}

// Four integers in [-8, 7] to four nibbles of q + 8: the low nibble with its top bit flipped.
uint32_t biased_nibbles(uint32_t four) { return (four & kNibbles) ^ kBias; }

uint32_t two_nibbles(const int8_t* low, const int8_t* high) {
  return biased_nibbles(load_four(low)) | biased_nibbles(load_four(high)) << 4;
}

// Integers and scales of up to 16 rows before they are laid out; rows that do not exist stay zero.
struct RowBuffer {
  explicit RowBuffer(int64_t columns)
      : cols(groups_of(columns) * kGroup),
        q(static_cast<size_t>(cols) * kPanel),
        scales(static_cast<size_t>(groups_of(columns)) * kPanel) {}

  int8_t* row(int r) { return q.data() + r * cols; }
  uint16_t* row_scales(int r) { return scales.data() + r * (cols / kGroup); }
  void clear() {
    std::fill(q.begin(), q.end(), int8_t{0});
    std::fill(scales.begin(), scales.end(), uint16_t{0});
  }

  int64_t cols;  // padded
  std::vector<int8_t> q;
  std::vector<uint16_t> scales;
};

void pack_quantized_row(Kind kind, const float* weights, int64_t cols, RowBuffer& buffer, int r) {
  const auto pack_row = kind == kQ8 ? kernels().pack_row_q8 : kernels().pack_row_q4;
  pack_row(weights, cols, buffer.row(r), buffer.row_scales(r));
}

void write_panel_group(Kind kind, RowBuffer& buffer, int64_t g, uint8_t* out) {
  const int pieces = kind == kQ8 ? 8 : 4;
  for (int j = 0; j < pieces; ++j) {
    for (int r = 0; r < kPanel; ++r) {
      const int8_t* q = buffer.row(r) + g * kGroup + 4 * j;
      const uint32_t four = kind == kQ8 ? load_four(q) : two_nibbles(q, q + 16);
      std::memcpy(out + (j * kPanel + r) * 4, &four, 4);
    }
  }
  for (int r = 0; r < kPanel; ++r) {
    std::memcpy(out + pieces * 4 * kPanel + 2 * r, buffer.row_scales(r) + g, 2);
  }
}

void write_row(Kind kind, RowBuffer& buffer, uint8_t* out) {
  const int64_t groups = buffer.cols / kGroup;
  if (kind == kQ8) {
    std::memcpy(out, buffer.row(0), static_cast<size_t>(buffer.cols));
    std::memcpy(out + buffer.cols, buffer.row_scales(0), static_cast<size_t>(groups) * 2);
    return;
  }
  for (int64_t g = 0; g < groups; ++g) {
    for (int i = 0; i < 16; i += 4) {
      const int8_t* q = buffer.row(0) + g * kGroup + i;
      const uint32_t four = two_nibbles(q, q + 16);
      std::memcpy(out + g * 16 + i, &four, 4);
    }
  }
  std::memcpy(out + buffer.cols / 2, buffer.row_scales(0), static_cast<size_t>(groups) * 2);
}

// Where element (row, column) of an f32 or bf16 matrix lies, in elements from its panel or row.
int64_t dense_index(Kind kind, Layout layout, int r, int64_t c) {
  if (layout == kRowsLayout) return c;
  return kind == kF32 ? c * kPanel + r : (c / 2 * kPanel + r) * 2 + c % 2;
}

void write_dense(Kind kind, Layout layout, const float* weights, int64_t cols, int r,
                 uint8_t* out) {
  for (int64_t c = 0; c < cols; ++c) {
    const int64_t index = dense_index(kind, layout, r, c);
    if (kind == kF32) {
      std::memcpy(out + index * 4, weights + c, 4);
    } else {
      const uint16_t bits = bf16_bits(weights[c]);
      std::memcpy(out + index * 2, &bits, 2);
    }
  }
}

// One panel or one row of the result.
void pack_piece(Kind kind, Layout layout, const float* dense, int64_t rows, int64_t cols,
                RowBuffer& buffer, uint8_t* out) {
  if (!is_quantized(kind)) {
    std::memset(out, 0, static_cast<size_t>(storage_stride(kind, layout, cols)));
    for (int r = 0; r < rows; ++r) write_dense(kind, layout, dense + r * cols, cols, r, out);
    return;
  }
  if (layout == kPanelLayout && rows < kPanel) buffer.clear();
  for (int r = 0; r < rows; ++r) pack_quantized_row(kind, dense + r * cols, cols, buffer, r);
  if (layout == kRowsLayout) return write_row(kind, buffer, out);
  const int64_t group_bytes = storage_stride(kind, layout, kGroup);
  for (int64_t g = 0; g < buffer.cols / kGroup; ++g) {
    write_panel_group(kind, buffer, g, out + g * group_bytes);
  }
}

[[noreturn]] void report_not_finite(const float* dense, int64_t rows, int64_t cols) {
  for (int64_t i = 0; i < rows * cols; ++i) {
    if (dense[i] - dense[i] == 0.0f) continue;
    throw std::invalid_argument("pack: weight at row " + std::to_string(i / cols) + ", column " +
                                std::to_string(i % cols) + " is not finite (" +
                                std::to_string(dense[i]) + ")");
  }
  throw std::logic_error("pack: a weight was not finite but cannot be found");
}

void read_panel_row(const MatrixView& w, int64_t row, float factor, float* out) {
  const uint8_t* panel = w.data + row / kPanel * w.stride;
  const int r = static_cast<int>(row % kPanel);
  const int pieces = w.kind == kQ8 ? 8 : 4;
  const int64_t group_bytes = storage_stride(w.kind, kPanelLayout, kGroup);
  for (int64_t g = 0; g * kGroup < w.cols; ++g) {
    const uint8_t* bytes = panel + g * group_bytes;
    uint16_t bits;
    std::memcpy(&bits, bytes + pieces * 4 * kPanel + 2 * r, 2);
    const float scale = bf16_value(bits);
    const int64_t left = w.cols - g * kGroup;
    for (int k = 0; k < kGroup && k < left; ++k) {
      const int j = k / 4 % pieces;
      const uint8_t code = bytes[(j * kPanel + r) * 4 + k % 4];
      const int q =
          w.kind == kQ8 ? static_cast<int8_t>(code) : (k < 16 ? code & 15 : code >> 4) - 8;
      out[g * kGroup + k] = scale * static_cast<float>(q) * factor;
    }
  }
}

void read_dense_panel_row(const MatrixView& w, int64_t row, float factor, float* out) {
  const uint8_t* panel = w.data + row / kPanel * w.stride;
  const int r = static_cast<int>(row % kPanel);
  for (int64_t c = 0; c < w.cols; ++c) {
    const int64_t index = dense_index(w.kind, kPanelLayout, r, c);
    float value;
    uint16_t bits;
    if (w.kind == kF32) {
      std::memcpy(&value, panel + index * 4, 4);
    } else {
      std::memcpy(&bits, panel + index * 2, 2);
      value = bf16_value(bits);
    }
    out[c] = value * factor;
  }
}

}  // namespace

void pack(Kind kind, Layout layout, const float* dense, int64_t rows, int64_t cols, uint8_t* out) {
  const int64_t step = layout == kPanelLayout ? kPanel : 1;
  const int64_t stride = storage_stride(kind, layout, cols);
  std::vector<RowBuffer> buffers(static_cast<size_t>(pool().threads()), RowBuffer(cols));
  std::atomic<bool> finite{true};
  pool().run([&](Worker& worker) {
    const auto [first, last] = worker.slice(rows, step);
    for (int64_t row = first; row < last; row += step) {
      const int64_t count = std::min(step, rows - row);
      if (!kernels().all_finite(dense + row * cols, count * cols)) finite.store(false);
      if (!finite.load(std::memory_order_relaxed)) return;
      pack_piece(kind, layout, dense + row * cols, count, cols,
                 buffers[static_cast<size_t>(worker.thread)], out + row / step * stride);
    }
  });
  if (!finite.load()) report_not_finite(dense, rows, cols);
}

void read_row(const MatrixView& w, int64_t row, float factor, float* out) {
  if (w.layout == kRowsLayout) {
    const int64_t stored = groups_of(w.cols) * kGroup;
    kernels().dequantize_row[w.kind](w.data + row * w.stride, stored, w.cols, factor, out);
  } else if (is_quantized(w.kind)) {
    read_panel_row(w, row, factor, out);
  } else {
    read_dense_panel_row(w, row, factor, out);
  }
}

void unpack(const MatrixView& w, float* out) {
  pool().run([&](Worker& worker) {
    const auto [first, last] = worker.slice(w.rows);
    for (int64_t row = first; row < last; ++row) read_row(w, row, 1.0f, out + row * w.cols);
  });
}

void gather(const MatrixView& w, const int32_t* ids, int64_t tokens, float factor, float* out) {
  for (int64_t t = 0; t < tokens; ++t) {
    if (ids[t] < 0 || ids[t] >= w.rows) {
      throw std::invalid_argument("gather: ids[" + std::to_string(t) +
                                  "] = " + std::to_string(ids[t]) + ", expected 0.." +
                                  std::to_string(w.rows - 1));
    }
  }
  const auto read = [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) read_row(w, ids[t], factor, out + t * w.cols);
  };
  if (tokens < 4) return read(0, tokens);  // less work than waking the team
  pool().run([&](Worker& worker) {
    const auto [first, last] = worker.slice(tokens);
    read(first, last);
  });
}

void advise_rows(const MatrixView& w, const int32_t* ids, int64_t count) {
#ifndef _WIN32
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  for (int64_t i = 0; i < count; ++i) {
    if (ids[i] < 0 || ids[i] >= w.rows) continue;
    const auto first = reinterpret_cast<uintptr_t>(w.data + ids[i] * w.stride);
    const uintptr_t start = first / page * page;
    // A hint: anonymous memory or an odd file system may refuse it, and then the row is simply read
    // later.
    static_cast<void>(madvise(reinterpret_cast<void*>(start),
                              first + static_cast<uintptr_t>(w.stride) - start, MADV_WILLNEED));
  }
#else
  static_cast<void>(w), static_cast<void>(ids), static_cast<void>(count);
#endif
}

}  // namespace matryo
