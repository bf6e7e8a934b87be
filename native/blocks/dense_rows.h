// Products of many rows with stored weights: of dense kernels like those of pictures, but read from
// the file as they lie there, and cut by columns as well as by rows, so that a few rows of sound
// that is still arriving keep all threads busy too.
//
//   BLOCK 256 columns of the weights: rows are packed into strips block by block
//   tile up to 96 rows, chunk 256 outputs: the piece that one thread works on at a time
//
// The arithmetic of an output depends on its row and column alone: blocks of columns in order, see
// kernels_dense.h.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "blocks/tile_product.h"
#include "pool.h"

namespace matryo {

constexpr int64_t kBlockColumns = 256;
constexpr int64_t kRowUnit = 12;  // whole strips of both kinds
constexpr int64_t kTileRows = 96;
constexpr int64_t kChunkPanels = kBlockColumns / kPanel;

enum DenseKind { kDenseF32 = 0, kDenseBf16 = 1, kDenseI8 = 2 };

// f32 and bf16: panels of docs/architecture.md section 2. i8: its section 5.
struct DenseView {
  DenseKind kind;
  int64_t rows, cols;
  int64_t stride;  // bytes from panel to panel
  const uint8_t* data;

  bool codes() const { return kind == kDenseI8; }
  int64_t panels() const { return (rows + kPanel - 1) / kPanel; }
};

int64_t dense_stride(DenseKind kind, int64_t cols);
DenseKind dense_kind_from_name(const std::string& name);  // std::invalid_argument
const char* dense_kind_name(DenseKind kind);

inline int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Rows as strips, block by block, of floats or of codes with a scale for each row and block.
class PackedRows {
 public:
  static size_t bytes(int64_t rows, int64_t depth, bool codes);
  PackedRows(Scratch& scratch, int64_t rows, int64_t depth, bool codes);

  int64_t blocks() const { return (depth_ + kBlockColumns - 1) / kBlockColumns; }
  int64_t block_depth(int64_t block) const {
    return std::min(kBlockColumns, depth_ - block * kBlockColumns);
  }
  // Rows [first, first + count) of one block; x points to its first value. `first` is a multiple of
  // kRowUnit.
  void pack(int64_t first, int64_t count, int64_t block, const float* x, int64_t stride) const;
  // All blocks of some rows.
  void pack_all(int64_t first, int64_t count, const float* x, int64_t stride) const;

  bool codes;

 private:
  friend void multiply(const DenseView&, const PackedRows&, int64_t, int64_t, int64_t, int64_t,
                       const struct TileRoom&);
  int64_t strip_depth(int64_t block) const {
    return codes ? round_up(block_depth(block), 8) : block_depth(block);
  }
  // Strips of the rows from `first` on.
  int64_t offset(int64_t first, int64_t block) const {
    return block * rows_ * kBlockColumns + first * strip_depth(block);
  }

  int64_t rows_, depth_;  // rows: a multiple of kRowUnit
  float* floats_ = nullptr;
  uint8_t* bytes_ = nullptr;
  float *scales_ = nullptr, *zeros_ = nullptr;  // (blocks, rows)
};

// One thread's arrays.
struct TileRoom {
  static constexpr int64_t kStride = kBlockColumns + 16;  // not a power of two apart
  float* sums;     // (kTileRows, kStride): outputs of a chunk
  float* panel;    // a bf16 panel's block as floats
  float* staging;  // (kRowUnit, width): rows before they are packed
};

// A room for each thread; a thread by which the team has grown since has none and does nothing.
class TileRooms {
 public:
  static size_t bytes(int64_t width, int threads) {
    return static_cast<size_t>(threads) * (Scratch::bytes<float>(kTileRows * TileRoom::kStride) +
                                           Scratch::bytes<float>(kBlockColumns * kPanel) +
                                           Scratch::bytes<float>(kRowUnit * width)) +
           Scratch::bytes<TileRoom>(threads);
  }
  TileRooms(Scratch& scratch, int64_t width, int threads);
  const TileRoom* of(const Worker& worker) const {
    return worker.thread < threads_ ? rooms_ + worker.thread : nullptr;
  }

 private:
  int threads_;
  TileRoom* rooms_;
};

// room.sums = rows [first, first + count) · panels [panel, panel + panels) of w.
void multiply(const DenseView& w, const PackedRows& x, int64_t first, int64_t count, int64_t panel,
              int64_t panels, const TileRoom& room);

// What a chunk of outputs is: columns [column, column + columns) of rows [first, first + count), in
// room.sums.
struct Tile {
  int64_t first, count, column, columns;
  const TileRoom& room;
};

// Phase: use(index of the matrix, tile) for all outputs of some matrices that read the same rows.
// No barrier inside.
template <class Use>
void multiply_phase(Worker& worker, const TileRooms& rooms, const DenseView* ws, int64_t num_ws,
                    const PackedRows& x, int64_t rows, int64_t chunk_panels, const Use& use) {
  const TileRoom* room = rooms.of(worker);
  if (room == nullptr) return;
  const int64_t tiles = (rows + kTileRows - 1) / kTileRows;
  int64_t wanted = worker.next(), passed = 0;
  for (int64_t i = 0; i < num_ws; ++i) {
    const DenseView& w = ws[i];
    const int64_t items = (w.panels() + chunk_panels - 1) / chunk_panels * tiles;
    for (; wanted < passed + items; wanted = worker.next()) {
      const int64_t first = (wanted - passed) % tiles * kTileRows;
      const int64_t panel = (wanted - passed) / tiles * chunk_panels;
      const int64_t panels = std::min(chunk_panels, w.panels() - panel);
      const int64_t count = std::min(kTileRows, rows - first), column = panel * kPanel;
      multiply(w, x, first, count, panel, panels, *room);
      use(i, Tile{first, count, column, std::min(panels * kPanel, w.rows - column), *room});
    }
    passed += items;
  }
}

// Panels of a chunk: fewer where there are few rows and outputs may be cut anywhere.
inline int64_t chunk_panels(int64_t rows) { return rows <= kRowUnit ? 4 : kChunkPanels; }

// Phase: rows are packed as they are. Uses the chunk counter 1, no barrier inside.
inline void pack_phase(Worker& worker, const PackedRows& packed, int64_t rows, const float* x,
                       int64_t stride) {
  for (int64_t first; (first = worker.next(1) * kRowUnit) < rows;) {
    packed.pack_all(first, std::min(kRowUnit, rows - first), x + first * stride, stride);
  }
}

// Phase: make(row, out (width)) gives one row at a time; they are packed. Uses the chunk counter 1,
// no barrier inside.
template <class Make>
void pack_phase(Worker& worker, const TileRooms& rooms, const PackedRows& packed, int64_t rows,
                int64_t width, const Make& make) {
  const TileRoom* room = rooms.of(worker);
  if (room == nullptr) return;
  for (int64_t first; (first = worker.next(1) * kRowUnit) < rows;) {
    const int64_t count = std::min(kRowUnit, rows - first);
    for (int64_t r = 0; r < count; ++r) make(first + r, room->staging + r * width);
    packed.pack_all(first, count, room->staging, width);
  }
}

}  // namespace matryo
