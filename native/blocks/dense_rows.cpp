#include "blocks/dense_rows.h"

#include <stdexcept>

namespace matryo {
namespace {

const char* const kDenseKindNames[] = {"f32", "bf16", "i8"};

// Bytes of a panel's part of one block, `depth` columns.
int64_t part_bytes(DenseKind kind, int64_t depth) {
  if (kind == kDenseI8) return kScaledHeader + round_up(depth, 8) * kPanel;
  return depth * kPanel * (kind == kDenseF32 ? 4 : 2);
}

}  // namespace

int64_t dense_stride(DenseKind kind, int64_t cols) {
  if (kind != kDenseI8) return part_bytes(kind, round_up(cols, kGroup));
  const int64_t last = cols % kBlockColumns;
  return cols / kBlockColumns * part_bytes(kind, kBlockColumns) +
         (last == 0 ? 0 : part_bytes(kind, last));
}

DenseKind dense_kind_from_name(const std::string& name) {
  for (const DenseKind kind : {kDenseF32, kDenseBf16, kDenseI8}) {
    if (name == kDenseKindNames[kind]) return kind;
  }
  throw std::invalid_argument("kind: expected one of f32, bf16, i8, got '" + name + "'");
}

const char* dense_kind_name(DenseKind kind) { return kDenseKindNames[kind]; }

size_t PackedRows::bytes(int64_t rows, int64_t depth, bool codes) {
  const int64_t padded = round_up(rows, kRowUnit), columns = round_up(depth, 8);
  if (!codes) return Scratch::bytes<float>(padded * columns);
  const int64_t blocks = (depth + kBlockColumns - 1) / kBlockColumns;
  return Scratch::bytes<uint8_t>(padded * columns) + 2 * Scratch::bytes<float>(padded * blocks);
}

PackedRows::PackedRows(Scratch& scratch, int64_t rows, int64_t depth, bool of_codes)
    : codes(of_codes), rows_(round_up(rows, kRowUnit)), depth_(depth) {
  const int64_t columns = round_up(depth, 8);
  if (codes) {
    bytes_ = scratch.take<uint8_t>(rows_ * columns);
    scales_ = scratch.take<float>(rows_ * blocks());
    zeros_ = scratch.take<float>(rows_ * blocks());
  } else {
    floats_ = scratch.take<float>(rows_ * columns);
  }
}

void PackedRows::pack(int64_t first, int64_t count, int64_t block, const float* x,
                      int64_t stride) const {
  const int64_t depth = block_depth(block);
  const auto each_strip = [&](int64_t strip, const auto& use) {
    for (int64_t row = 0; row < count; row += strip) {
      const float* parts[kStrip];
      const auto rows = static_cast<int32_t>(std::min(strip, count - row));
      for (int32_t r = 0; r < rows; ++r) parts[r] = x + (row + r) * stride;
      use(row, parts, rows);
    }
  };
  if (!codes) {
    each_strip(kStrip, [&](int64_t row, const float* const* parts, int32_t rows) {
      kernels().interleave(parts, rows, depth, floats_ + offset(first + row, block));
    });
    return;
  }
  each_strip(kCodeStrip, [&](int64_t row, const float* const* parts, int32_t rows) {
    float inverse[kCodeStrip];
    float* scales = scales_ + block * rows_ + first + row;
    float* zeros = zeros_ + block * rows_ + first + row;
    for (int32_t r = 0; r < rows; ++r) {
      float range[2];
      kernels().value_range(parts[r], depth, range);
      const RowCodes row_codes(range);
      inverse[r] = row_codes.inverse;
      scales[r] = row_codes.scale;
      zeros[r] = row_codes.zero;
    }
    kernels().interleave_codes(parts, inverse, zeros, rows, depth,
                               bytes_ + offset(first + row, block));
  });
}

void PackedRows::pack_all(int64_t first, int64_t count, const float* x, int64_t stride) const {
  for (int64_t block = 0; block < blocks(); ++block) {
    pack(first, count, block, x + block * kBlockColumns, stride);
  }
}

TileRooms::TileRooms(Scratch& scratch, int64_t width, int threads) : threads_(threads) {
  rooms_ = scratch.take<TileRoom>(threads);
  for (int t = 0; t < threads; ++t) {
    rooms_[t].sums = scratch.take<float>(kTileRows * TileRoom::kStride);
    rooms_[t].panel = scratch.take<float>(kBlockColumns * kPanel);
    rooms_[t].staging = scratch.take<float>(kRowUnit * width);
  }
}

void multiply(const DenseView& w, const PackedRows& x, int64_t first, int64_t count, int64_t panel,
              int64_t panels, const TileRoom& room) {
  const auto rows = static_cast<int32_t>(count);
  // Panels [p, p + n) times one block of columns.
  const auto add_block = [&](int64_t p, int64_t n, int64_t block) {
    const int64_t depth = x.block_depth(block);
    const uint8_t* part =
        w.data + (panel + p) * w.stride + block * part_bytes(w.kind, kBlockColumns);
    float* sums = room.sums + p * kPanel;
    if (w.kind == kDenseI8) {
      const int64_t scale = block * x.rows_ + first;
      kernels().dense_scaled({x.bytes_ + x.offset(first, block), rows, x.scales_ + scale,
                              x.zeros_ + scale, part, w.stride, static_cast<int32_t>(n),
                              x.strip_depth(block), part + part_bytes(w.kind, depth), sums,
                              TileRoom::kStride, block > 0});
      return;
    }
    DenseBlock call = {x.floats_ + x.offset(first, block),
                       rows,
                       nullptr,
                       0,
                       1,
                       depth,
                       nullptr,
                       TileRoom::kStride,
                       block > 0};
    if (w.kind == kDenseF32) {
      call.panels = reinterpret_cast<const float*>(part);
      call.panel_stride = w.stride / 4;
      call.num_panels = static_cast<int32_t>(n);
      call.sums = sums;
      kernels().dense_f32(call);
      return;
    }
    call.panels = room.panel;
    for (int64_t i = 0; i < n; ++i) {
      kernels().widen_bf16_panel(part + i * w.stride, round_up(depth, 2), room.panel);
      call.sums = sums + i * kPanel;
      kernels().dense_f32(call);
    }
  };
  // Many rows: a block of them stays in the second-level cache for all panels. Few: a panel's bytes
  // are read as they lie.
  const int64_t step = count > kRowUnit ? panels : 1;
  for (int64_t p = 0; p < panels; p += step) {
    for (int64_t block = 0; block < x.blocks(); ++block) add_block(p, step, block);
  }
}

}  // namespace matryo
