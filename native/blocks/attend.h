// Attention over pages as phases of a parallel region.
//
// Rows of one sequence that follow one another form tiles; the queries of a tile that share a kv
// head walk its pages together. Pages are cut into blocks at fixed positions; every block starts a
// new softmax, and the blocks of a query are merged in order. So blocks can be worked on in
// parallel (few rows, long contexts) or one after the other (many rows) with the same bits.
#pragma once

#include <cstdint>
#include <vector>

#include "blocks/attention.h"
#include "matrix.h"
#include "pool.h"
#include "scratch.h"

namespace matryo {

// Where the phases find queries and leave results. G = H / K query heads share a kv head.
struct AttendIo {
  const float* queries;   // (K, T, G, Dh)
  float* out;             // (T, H, Dh)
  QuantizedGroup* codes;  // (T, H·Dh / 32): `out` quantised, or null; needs Dh a multiple of 32
};

class AttendPlan {
 public:
  AttendPlan(const TableRows& rows, int32_t num_heads, int threads);

  size_t scratch_bytes() const;
  void take_scratch(Scratch& scratch);  // once, before the region

  // Phase: attention of all rows. No barrier at its end. Uses a chunk counter. If `split()`, only
  // the blocks are done: a barrier and `merge` must follow.
  void attend(Worker& worker, const AttendIo& io) const;
  bool split() const { return split_; }
  void merge(Worker& worker, const AttendIo& io) const;

 private:
  struct Tile {
    int32_t first_row, rows;
    int64_t first_block, num_blocks;
    int64_t first_item;   // (kv head, block) pairs of earlier tiles
    int64_t first_state;  // states of earlier tiles
  };
  // Buffers of one thread.
  struct Room {
    SoftmaxState running, block;
    float *scores, *keys, *values;
    int32_t *first, *last;
  };

  void make_tiles();
  Tile tile_of(int32_t first_row, int32_t end_row) const;
  int32_t queries_of(const Tile& tile) const { return tile.rows * heads_per_kv_; }
  const Tile& tile_with_item(int64_t item) const;
  SoftmaxState block_state(const Tile& tile, int32_t kv_head, int64_t block) const;
  SoftmaxState query_state(const SoftmaxState& states, int32_t query) const;
  void clear(const SoftmaxState& state, int32_t count) const;
  void attend_block(const Room& room, const AttendIo& io, const Tile& tile, int32_t kv_head,
                    int64_t block, const SoftmaxState& state) const;
  bool see_page(const Room& room, const Tile& tile, int64_t page) const;
  KvPart widened(const Room& room, const KvPart& part) const;
  void attend_whole(const Room& room, const AttendIo& io, const Tile& tile, int32_t kv_head) const;
  void finish(const SoftmaxState& state, const AttendIo& io, int64_t row, int32_t head) const;

  TableRows rows_;
  int32_t num_heads_, heads_per_kv_, head_dim_;
  int threads_;
  int32_t tile_queries_ = 0;  // of the largest tile
  std::vector<Tile> tiles_;
  bool split_ = false;
  int64_t num_items_ = 0, num_states_ = 0;
  SoftmaxState states_{};  // of all blocks if split
  std::vector<Room> rooms_;
};

}  // namespace matryo
