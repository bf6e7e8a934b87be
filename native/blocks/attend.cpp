#include "blocks/attend.h"

#include <algorithm>
#include <cmath>

#include "dispatch.h"

namespace matryo {
namespace {

constexpr int64_t kBlockPages = 4;        // part of the arithmetic: where a new softmax starts
constexpr int32_t kTileQueries = 48;      // their states and scores stay in the second-level cache
constexpr int32_t kWidenQueries = 12;     // from here on a page is worth decoding to f32 once
constexpr int64_t kItemsPerThread = 4;    // fewer whole tiles than this are split into blocks
constexpr int64_t kMaxStates = 16 << 10;  // of split blocks; bounds the scratch

size_t state_bytes(int64_t count, int64_t head_dim) {
  return 2 * Scratch::bytes<float>(count) + Scratch::bytes<float>(count * head_dim);
}

SoftmaxState take_state(Scratch& scratch, int64_t count, int64_t head_dim) {
  float* maxima = scratch.take<float>(count);
  float* sums = scratch.take<float>(count);
  return {maxima, sums, scratch.take<float>(count * head_dim)};
}

}  // namespace

AttendPlan::AttendPlan(const TableRows& rows, int32_t num_heads, int threads)
    : rows_(rows),
      num_heads_(num_heads),
      heads_per_kv_(num_heads / rows.table->num_kv_heads),
      head_dim_(rows.table->head_dim),
      threads_(threads) {
  make_tiles();
  const int64_t whole = static_cast<int64_t>(tiles_.size()) * rows.table->num_kv_heads;
  split_ = num_items_ > whole && whole < kItemsPerThread * threads && num_states_ <= kMaxStates;
  if (!split_) num_items_ = whole;
}

void AttendPlan::make_tiles() {
  const int32_t most = std::max(1, kTileQueries / heads_per_kv_);
  for (int64_t row = 0; row < rows_.tokens;) {
    int64_t end = row + 1;
    while (end < rows_.tokens && end - row < most && rows_.sequences[end] == rows_.sequences[row])
      ++end;
    const Tile tile = tile_of(static_cast<int32_t>(row), static_cast<int32_t>(end));
    tiles_.push_back(tile);
    tile_queries_ = std::max(tile_queries_, queries_of(tile));
    num_items_ += rows_.table->num_kv_heads * tile.num_blocks;
    num_states_ += rows_.table->num_kv_heads * tile.num_blocks * queries_of(tile);
    row = end;
  }
}

AttendPlan::Tile AttendPlan::tile_of(int32_t first_row, int32_t end_row) const {
  const auto [low, high] =
      std::minmax_element(rows_.positions + first_row, rows_.positions + end_row);
  const int64_t first = rows_.table->first_visible(*low) / (kPage * kBlockPages);
  const int64_t last = *high / (kPage * kBlockPages);
  return {first_row, end_row - first_row, first, last - first + 1, num_items_, num_states_};
}

size_t AttendPlan::scratch_bytes() const {
  const size_t room = 2 * state_bytes(tile_queries_, head_dim_) +
                      Scratch::bytes<float>(tile_queries_ * kPage) +
                      2 * Scratch::bytes<float>(int64_t{kPage} * head_dim_) +
                      2 * Scratch::bytes<int32_t>(tile_queries_);
  return static_cast<size_t>(threads_) * room + (split_ ? state_bytes(num_states_, head_dim_) : 0);
}

void AttendPlan::take_scratch(Scratch& scratch) {
  rooms_.resize(static_cast<size_t>(threads_));
  for (Room& room : rooms_) {
    room.running = take_state(scratch, tile_queries_, head_dim_);
    room.block = take_state(scratch, tile_queries_, head_dim_);
    room.scores = scratch.take<float>(tile_queries_ * kPage);
    room.keys = scratch.take<float>(int64_t{kPage} * head_dim_);
    room.values = scratch.take<float>(int64_t{kPage} * head_dim_);
    room.first = scratch.take<int32_t>(tile_queries_);
    room.last = scratch.take<int32_t>(tile_queries_);
  }
  if (split_) states_ = take_state(scratch, num_states_, head_dim_);
}

void AttendPlan::attend(Worker& worker, const AttendIo& io) const {
  if (worker.thread >= threads_) return;  // the team grew after the plan was made: no room for it
  const Room& room = rooms_[static_cast<size_t>(worker.thread)];
  const int32_t num_kv_heads = rows_.table->num_kv_heads;
  for (int64_t next; (next = worker.next()) < num_items_;) {
    const int64_t item = num_items_ - 1 - next;  // later rows see more keys: they start first
    if (!split_) {
      attend_whole(room, io, tiles_[static_cast<size_t>(item / num_kv_heads)],
                   static_cast<int32_t>(item % num_kv_heads));
      continue;
    }
    const Tile& tile = tile_with_item(item);
    const int64_t within = item - tile.first_item;
    const auto kv_head = static_cast<int32_t>(within / tile.num_blocks);
    const int64_t block = within % tile.num_blocks;
    attend_block(room, io, tile, kv_head, tile.first_block + block,
                 block_state(tile, kv_head, block));
  }
}

void AttendPlan::merge(Worker& worker, const AttendIo& io) const {
  if (worker.thread >= threads_) return;
  const SoftmaxState& running = rooms_[static_cast<size_t>(worker.thread)].running;
  for (int64_t next; (next = worker.next()) < rows_.tokens * num_heads_;) {
    const int64_t row = next / num_heads_;
    const auto head = static_cast<int32_t>(next % num_heads_);
    const Tile& tile = *std::prev(
        std::upper_bound(tiles_.begin(), tiles_.end(), row,
                         [](int64_t wanted, const Tile& t) { return wanted < t.first_row; }));
    const auto query =
        static_cast<int32_t>((row - tile.first_row) * heads_per_kv_ + head % heads_per_kv_);
    clear(running, 1);
    for (int64_t block = 0; block < tile.num_blocks; ++block) {
      kernels().merge_states(running,
                             query_state(block_state(tile, head / heads_per_kv_, block), query), 1,
                             head_dim_);
    }
    finish(running, io, row, head);
  }
}

const AttendPlan::Tile& AttendPlan::tile_with_item(int64_t item) const {
  return *std::prev(
      std::upper_bound(tiles_.begin(), tiles_.end(), item,
                       [](int64_t wanted, const Tile& tile) { return wanted < tile.first_item; }));
}

SoftmaxState AttendPlan::block_state(const Tile& tile, int32_t kv_head, int64_t block) const {
  const int64_t first = tile.first_state + (kv_head * tile.num_blocks + block) * queries_of(tile);
  return {states_.maxima + first, states_.sums + first, states_.mixed + first * head_dim_};
}

SoftmaxState AttendPlan::query_state(const SoftmaxState& states, int32_t query) const {
  return {states.maxima + query, states.sums + query, states.mixed + int64_t{query} * head_dim_};
}

void AttendPlan::clear(const SoftmaxState& state, int32_t count) const {
  std::fill_n(state.maxima, count, -INFINITY);
  std::fill_n(state.sums, count, 0.0f);
  std::fill_n(state.mixed, int64_t{count} * head_dim_, 0.0f);
}

void AttendPlan::attend_whole(const Room& room, const AttendIo& io, const Tile& tile,
                              int32_t kv_head) const {
  const int32_t count = queries_of(tile);
  clear(room.running, count);
  for (int64_t block = 0; block < tile.num_blocks; ++block) {
    attend_block(room, io, tile, kv_head, tile.first_block + block, room.block);
    kernels().merge_states(room.running, room.block, count, head_dim_);
  }
  for (int32_t query = 0; query < count; ++query) {
    const int32_t head = kv_head * heads_per_kv_ + query % heads_per_kv_;
    finish(query_state(room.running, query), io, tile.first_row + query / heads_per_kv_, head);
  }
}

void AttendPlan::attend_block(const Room& room, const AttendIo& io, const Tile& tile,
                              int32_t kv_head, int64_t block, const SoftmaxState& state) const {
  const PageTableView& table = *rows_.table;
  const int32_t count = queries_of(tile);
  const int64_t first_query = (kv_head * rows_.tokens + tile.first_row) * heads_per_kv_;
  AttendPage call = {};
  call.head_dim = head_dim_;
  call.count = count;
  call.queries = io.queries + first_query * head_dim_;
  call.first = room.first;
  call.last = room.last;
  call.state = state;
  call.scores = room.scores;
  clear(state, count);
  for (int64_t page = block * kBlockPages; page < (block + 1) * kBlockPages; ++page) {
    if (!see_page(room, tile, page)) continue;
    call.part = table.part(rows_.sequences[tile.first_row], page, kv_head);
    call.ahead = table.part(rows_.sequences[tile.first_row], page + 1, kv_head).keys;
    KvKind kind = table.kind;
    if (kind != kKvF32 && count >= kWidenQueries) {
      call.part = widened(room, call.part);
      kind = kKvF32;
    }
    kernels().attend_page[kind](call);
  }
}

// Sets the slots each query of the tile sees; false if none sees any.
bool AttendPlan::see_page(const Room& room, const Tile& tile, int64_t page) const {
  bool any = false;
  const auto start = static_cast<int32_t>(page * kPage);
  for (int32_t i = 0; i < tile.rows; ++i) {
    const int32_t position = rows_.positions[tile.first_row + i];
    const int32_t first = std::clamp(rows_.table->first_visible(position) - start, 0, kPage);
    const int32_t last = std::clamp(position + 1 - start, 0, kPage);
    any = any || first < last;
    std::fill_n(room.first + i * heads_per_kv_, heads_per_kv_, first);
    std::fill_n(room.last + i * heads_per_kv_, heads_per_kv_, last);
  }
  return any;
}

KvPart AttendPlan::widened(const Room& room, const KvPart& part) const {
  const int64_t size = int64_t{kPage} * head_dim_;
  const auto widen = [&](const uint8_t* from, float* to) {
    if (rows_.table->kind == kKvBf16) {
      kernels().bf16_to_f32(reinterpret_cast<const uint16_t*>(from), size, to);
    } else {
      kernels().int8_to_f32(reinterpret_cast<const int8_t*>(from), size, to);
    }
    return reinterpret_cast<uint8_t*>(to);
  };
  return {widen(part.keys, room.keys), widen(part.values, room.values), part.key_scales,
          part.value_scales};
}

void AttendPlan::finish(const SoftmaxState& state, const AttendIo& io, int64_t row,
                        int32_t head) const {
  const int64_t first = (row * num_heads_ + head) * head_dim_;
  kernels().norm_row(state.mixed, head_dim_, 1.0f / *state.sums, nullptr, io.out + first);
  if (io.codes != nullptr)
    kernels().quantize_row(io.out + first, head_dim_, io.codes + first / kGroup);
}

}  // namespace matryo
