#include "blocks/sparse_units.h"

#include <algorithm>
#include <cmath>

namespace matryo {
namespace {

constexpr int64_t kOneTokenBlock = 256;  // about 13 kept units: enough rows to stream, enough blocks to share out
constexpr int64_t kManyTokensBlock = 64;
constexpr int64_t kListUnits = 256;  // units whose kept ones go to the down kernel in one call
constexpr int kRowsAhead = 3;
constexpr int64_t kPieceColumns = 256;  // of the down rows: a register tile, and a piece that stays in the cache

RowSet row_set(const MatrixView& w, const int32_t* ids, int32_t count) {
  return {w.data, w.stride, groups_of(w.cols) * kGroup, ids, count};
}

void prefetch_bytes(const uint8_t* p, int64_t count) {
  for (int64_t i = 0; i < count; i += 64) __builtin_prefetch(p + i);
}

// Kept units of consecutive blocks of one part, put together for one call.
struct UnitList {
  int32_t ids[kListUnits];
  float values[kListUnits];
  int32_t count = 0;

  bool has_room(int32_t more) const { return count + more <= kListUnits; }
  void append(const int32_t* more_ids, const float* more_values, int32_t more) {
    std::copy_n(more_ids, more, ids + count);
    std::copy_n(more_values, more, values + count);
    count += more;
  }
};

}  // namespace

size_t SparseUnits::bytes(int64_t tokens, int64_t width) {
  const int64_t blocks = width / kGroup;  // no block is shorter than a group
  return Scratch::bytes<float>(tokens * width) + Scratch::bytes<float>(width) +
         Scratch::bytes<int32_t>(tokens * width) + Scratch::bytes<int32_t>(tokens * blocks) +
         Scratch::bytes<float>(tokens);
}

SparseUnits::SparseUnits(Scratch& scratch, const LayerView& layer, const std::vector<FfnPart>& parts, int64_t tokens,
                         int64_t width)
    : z_(layer.sparsity_z), width_(width), parts_(parts) {
  gates_ = scratch.take<float>(tokens * width);
  one_values_ = scratch.take<float>(width);
  ids_ = scratch.take<int32_t>(tokens * width);
  counts_ = scratch.take<int32_t>(tokens * (width / kGroup));
  cuts_ = scratch.take<float>(tokens);
  for (const FfnPart& part : parts) {
    jobs_.push_back({part.segment.gate, gates_ + part.first, width, part.count, layer.hidden_size});
  }
}

// The only token of a run keeps its gates: a thread may still add them up when another one selects.
void SparseUnits::prepare(int64_t tokens) {
  values_ = tokens == 1 ? one_values_ : gates_;
  const int64_t most = tokens == 1 ? kOneTokenBlock : kManyTokensBlock;
  blocks_.clear();
  for (const FfnPart& part : parts_) {
    for (int64_t first = 0; first < part.count; first += most) {
      blocks_.push_back({&part, part.first + first, first, std::min(most, part.count - first)});
    }
  }
}

void SparseUnits::run(Worker& worker, const FfnRows& rows) const {
  product_phase(worker, rows.view(), jobs_.data(), static_cast<int>(jobs_.size()));
  worker.barrier();
  if (rows.tokens == 1) {
    one_token_up(worker, rows);
    worker.barrier();
    one_token_down(worker, rows);
    return;
  }
  cut_phase(worker, rows);
  worker.barrier();
  many_tokens_up(worker, rows);
  worker.barrier();
  many_tokens_down(worker, rows);
}

float SparseUnits::cut_of(int64_t t) const {
  const Moments moments = kernels().moments(gates_ + t * width_, width_);
  return static_cast<float>(moments.mean + static_cast<double>(z_) * std::sqrt(moments.variance));
}

void SparseUnits::select(int64_t t, size_t block, float cut) const {
  const UnitBlock& units = blocks_[block];
  count(t, block) = kernels().select_units(gates_ + t * width_ + units.start, static_cast<int32_t>(units.count), cut,
                                           static_cast<int32_t>(units.first), ids(t, units), values(t, units));
}

// Every thread computes the cut itself, which is shorter than a barrier, and selects a block ahead,
// so that the first rows of a block are on their way when its turn comes.
void SparseUnits::one_token_up(Worker& worker, const FfnRows& rows) const {
  const float cut = cut_of(0);
  auto block = static_cast<size_t>(worker.next());
  if (block < blocks_.size()) select(0, block, cut);
  while (block < blocks_.size()) {
    const auto following = static_cast<size_t>(worker.next());
    if (following < blocks_.size()) {
      select(0, following, cut);
      prefetch_first_rows(following);
    }
    one_token_dots(block, rows);
    block = following;
  }
}

void SparseUnits::prefetch_first_rows(size_t block) const {
  const UnitBlock& units = blocks_[block];
  const MatrixView& up = units.part->segment.up;
  const int32_t rows = std::min(count(0, block), kRowsAhead);
  for (int32_t i = 0; i < rows; ++i) prefetch_bytes(up.data + ids(0, units)[i] * up.stride, up.stride);
}

void SparseUnits::one_token_dots(size_t block, const FfnRows& rows) const {
  const UnitBlock& units = blocks_[block];
  const MatrixView& up = units.part->segment.up;
  const int32_t kept = count(0, block);
  float dots[kOneTokenBlock], *act = values(0, units);
  kernels().dot_rows[up.kind](row_set(up, ids(0, units), kept), rows.normed, rows.codes, dots);
  for (int32_t i = 0; i < kept; ++i) act[i] *= dots[i];
}

// A thread owns a range of columns and adds all kept rows to it, in order.
void SparseUnits::one_token_down(const Worker& worker, const FfnRows& rows) const {
  const auto [first, last] = worker.slice(rows.width(), kGroup);
  if (first == last) return;
  std::fill(rows.total + first, rows.total + last, 0.0f);
  for (size_t block = 0; block < blocks_.size();) {
    const FfnPart* part = blocks_[block].part;
    UnitList list;
    for (; block < blocks_.size() && blocks_[block].part == part && list.has_room(count(0, block)); ++block) {
      list.append(ids(0, blocks_[block]), values(0, blocks_[block]), count(0, block));
    }
    const MatrixView& down = part->segment.down;
    kernels().axpy_rows[down.kind](row_set(down, list.ids, list.count), list.values, first, last, rows.total);
  }
}

void SparseUnits::cut_phase(const Worker& worker, const FfnRows& rows) const {
  const auto [first, last] = worker.slice(rows.tokens);
  for (int64_t t = first; t < last; ++t) cuts_[t] = cut_of(t);
}

void SparseUnits::many_tokens_up(Worker& worker, const FfnRows& rows) const {
  for (size_t block; (block = static_cast<size_t>(worker.next())) < blocks_.size();) {
    for (int64_t t = 0; t < rows.tokens; ++t) select(t, block, cuts_[t]);
    block_dots(block, rows);
  }
}

// The kept (token, unit) pairs of a block, sorted by unit; `slot` is the place of the unit in the
// token's list.
struct UnitPairs {
  uint8_t token[kSparseTokens * kManyTokensBlock], slot[kSparseTokens * kManyTokensBlock];
  int32_t start[kManyTokensBlock + 1] = {};  // of each unit's pairs
};

void SparseUnits::sort_pairs(size_t block, int64_t tokens, UnitPairs& pairs) const {
  const UnitBlock& units = blocks_[block];
  for (int64_t t = 0; t < tokens; ++t) {
    for (int32_t i = 0; i < count(t, block); ++i) ++pairs.start[ids(t, units)[i] - units.first + 1];
  }
  for (int64_t u = 0; u < units.count; ++u) pairs.start[u + 1] += pairs.start[u];
  int32_t next[kManyTokensBlock];
  std::copy_n(pairs.start, units.count, next);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int32_t i = 0; i < count(t, block); ++i) {
      const int32_t pair = next[ids(t, units)[i] - units.first]++;
      pairs.token[pair] = static_cast<uint8_t>(t);
      pairs.slot[pair] = static_cast<uint8_t>(i);
    }
  }
}

void SparseUnits::block_dots(size_t block, const FfnRows& rows) const {
  const UnitBlock& units = blocks_[block];
  const MatrixView& up = units.part->segment.up;
  const TokenRows x = rows.view();
  UnitPairs pairs;
  sort_pairs(block, rows.tokens, pairs);
  for (int64_t u = 0; u < units.count; ++u) {
    const int32_t first = pairs.start[u], kept = pairs.start[u + 1] - first;
    const uint8_t* row = up.data + (units.first + u) * up.stride;
    if (u + 1 < units.count && pairs.start[u + 2] > pairs.start[u + 1]) prefetch_bytes(row + up.stride, up.stride);
    if (kept == 0) continue;
    int32_t tokens[kSparseTokens];
    float dots[kSparseTokens];
    std::copy_n(pairs.token + first, kept, tokens);
    kernels().dot_tokens[up.kind](row, groups_of(up.cols) * kGroup, x, tokens, kept, dots);
    for (int32_t i = 0; i < kept; ++i) values(tokens[i], units)[pairs.slot[first + i]] *= dots[i];
  }
}

// Work is cut by columns and, if a team is larger than that, by tokens.
void SparseUnits::many_tokens_down(Worker& worker, const FfnRows& rows) const {
  const int64_t pieces = (rows.width() + kPieceColumns - 1) / kPieceColumns;
  const int64_t wanted = (2 * worker.num_threads + pieces - 1) / pieces;
  const int64_t tokens = (rows.tokens + wanted - 1) / wanted;
  for (int64_t job; (job = worker.next()) < pieces * wanted;) {
    const int64_t token = job / pieces * tokens, column = job % pieces * kPieceColumns;
    down_piece(rows, token, std::min(token + tokens, rows.tokens), column,
               std::min(column + kPieceColumns, rows.width()));
  }
}

// Units in runs of kListUnits, whose pieces of rows stay in the cache for all tokens.
void SparseUnits::down_piece(const FfnRows& rows, int64_t first_token, int64_t last_token, int64_t first,
                             int64_t last) const {
  for (int64_t t = first_token; t < last_token; ++t) {
    std::fill(rows.total + t * rows.width() + first, rows.total + t * rows.width() + last, 0.0f);
  }
  for (size_t block = 0, end; block < blocks_.size(); block = end) {
    const FfnPart* part = blocks_[block].part;
    const MatrixView& down = part->segment.down;
    end = block;
    while (end < blocks_.size() && blocks_[end].part == part &&
           blocks_[end].first + blocks_[end].count <= blocks_[block].first + kListUnits) {
      ++end;
    }
    for (int64_t t = first_token; t < last_token; ++t) {
      UnitList list;
      for (size_t i = block; i < end; ++i) list.append(ids(t, blocks_[i]), values(t, blocks_[i]), count(t, i));
      kernels().axpy_cached_rows[down.kind](row_set(down, list.ids, list.count), list.values, first, last,
                                            rows.total + t * rows.width());
    }
  }
}

}  // namespace matryo
