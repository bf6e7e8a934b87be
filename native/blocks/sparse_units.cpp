#include "blocks/sparse_units.h"

#include <algorithm>
#include <cmath>

namespace matryo {
namespace {

// About 13 kept units: enough rows to stream, enough blocks to share out.
constexpr int64_t kOneTokenBlock = 256;
constexpr int64_t kManyTokensBlock = 128;
constexpr int64_t kPieceColumns = 256;  // of a block's down rows: unpacked they fill 128 KB
constexpr int64_t kPieceFloats = kManyTokensBlock * (kPieceColumns + kPieceColumns / kGroup);
// Rows of so few tokens are gathered token by token: unpacking all would take longer.
constexpr int64_t kFewTokens = 48;
constexpr int32_t kListUnits = 256;  // kept units of one token in one call of the down kernel
constexpr int kRowsAhead = 3;

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

int64_t SparseSize::pieces() const { return (hidden_size + kPieceColumns - 1) / kPieceColumns; }

int64_t SparseSize::token_cuts() const {
  return std::min((2 * threads + pieces() - 1) / pieces(), tokens);
}

size_t SparseSize::bytes() const {
  const int64_t blocks = width / kGroup;  // no block is shorter than a group
  return Scratch::bytes<float>(tokens * (width + kRowPadding)) +
         Scratch::bytes<int32_t>(tokens * width) + Scratch::bytes<float>(tokens * width) +
         Scratch::bytes<int32_t>((tokens + 1) * blocks) + Scratch::bytes<float>(tokens) +
         Scratch::bytes<int32_t>(width) + Scratch::bytes<int32_t>(blocks) +
         Scratch::bytes<float>(pieces() * token_cuts() * kPieceFloats);
}

SparseUnits::SparseUnits(Scratch& scratch, const LayerView& layer,
                         const std::vector<FfnPart>& parts, const SparseSize& size)
    : z_(layer.sparsity_z), size_(size), stride_(size.width + kRowPadding), parts_(parts) {
  gates_ = scratch.take<float>(size.tokens * stride_);
  ids_ = scratch.take<int32_t>(size.tokens * size.width);
  values_ = scratch.take<float>(size.tokens * size.width);
  starts_ = scratch.take<int32_t>((size.tokens + 1) * (size.width / kGroup));
  cuts_ = scratch.take<float>(size.tokens);
  used_ = scratch.take<int32_t>(size.width);
  num_used_ = scratch.take<int32_t>(size.width / kGroup);
  unpacked_ = scratch.take<float>(size.pieces() * size.token_cuts() * kPieceFloats);
  for (const FfnPart& part : parts) {
    jobs_.push_back(
        {part.segment.gate, gates_ + part.first, stride_, part.count, layer.hidden_size});
  }
}

void SparseUnits::prepare(int64_t tokens) {
  tokens_ = tokens;
  const int64_t most = tokens == 1 ? kOneTokenBlock : kManyTokensBlock;
  blocks_.clear();
  for (const FfnPart& part : parts_) {
    for (int64_t first = 0; first < part.count; first += most) {
      blocks_.push_back({&part, part.first + first, first, std::min(most, part.count - first)});
    }
  }
  for (size_t block = 0; block < blocks_.size(); ++block) starts(block)[0] = 0;
}

void SparseUnits::run(Worker& worker, const FfnRows& rows) const {
  product_phase(worker, rows.view(), jobs_.data(), static_cast<int>(jobs_.size()));
  worker.barrier();
  if (tokens_ == 1) {
    one_token_up(worker, rows);
  } else {
    cut_phase(worker);
    worker.barrier();
    many_tokens_up(worker, rows);
  }
  worker.barrier();
  if (tokens_ <= kFewTokens) {
    few_tokens_down(worker, rows);
  } else {
    many_tokens_down(worker, rows);
  }
}

float SparseUnits::cut_of(int64_t t) const {
  const Moments moments = kernels().moments(gates_ + t * stride_, size_.width);
  return static_cast<float>(moments.mean + static_cast<double>(z_) * std::sqrt(moments.variance));
}

void SparseUnits::select(int64_t t, size_t block, float cut) const {
  const UnitBlock& units = blocks_[block];
  int32_t* start = starts(block) + t;
  start[1] = start[0] + kernels().select_units(gates_ + t * stride_ + units.start,
                                               static_cast<int32_t>(units.count), cut,
                                               static_cast<int32_t>(units.first),
                                               ids(block) + start[0], values(block) + start[0]);
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
  const MatrixView& up = blocks_[block].part->segment.up;
  const int32_t rows = std::min(starts(block)[1], kRowsAhead);
  for (int32_t i = 0; i < rows; ++i) prefetch_bytes(up.data + ids(block)[i] * up.stride, up.stride);
}

void SparseUnits::one_token_dots(size_t block, const FfnRows& rows) const {
  const MatrixView& up = blocks_[block].part->segment.up;
  const int32_t kept = starts(block)[1];
  float dots[kOneTokenBlock], *act = values(block);
  kernels().dot_rows[up.kind](row_set(up, ids(block), kept), rows.normed, rows.codes, dots);
  for (int32_t i = 0; i < kept; ++i) act[i] *= dots[i];
}

// A thread owns a range of columns and, token by token, adds all kept rows to it, in order.
void SparseUnits::few_tokens_down(const Worker& worker, const FfnRows& rows) const {
  const auto [first, last] = worker.slice(rows.width(), kGroup);
  if (first == last) return;
  for (int64_t t = 0; t < tokens_; ++t) {
    float* total = rows.total + t * rows.total_stride();
    std::fill(total + first, total + last, 0.0f);
    for (size_t block = 0; block < blocks_.size();) {
      const FfnPart* part = blocks_[block].part;
      UnitList list;
      for (; block < blocks_.size() && blocks_[block].part == part; ++block) {
        const int32_t *start = starts(block) + t, kept = start[1] - start[0];
        if (!list.has_room(kept)) break;
        list.append(ids(block) + start[0], values(block) + start[0], kept);
      }
      const MatrixView& down = part->segment.down;
      kernels().axpy_rows[down.kind](row_set(down, list.ids, list.count), list.values, first, last,
                                     total);
    }
  }
}

void SparseUnits::cut_phase(const Worker& worker) const {
  const auto [first, last] = worker.slice(tokens_);
  for (int64_t t = first; t < last; ++t) cuts_[t] = cut_of(t);
}

// The lists of a block sorted by unit: the tokens that keep it, and where in the block's lists they
// do.
struct UnitPairs {
  static_assert(kSparseTokens <= 256 && kSparseTokens * kManyTokensBlock <= 65536,
                "numbers of token and place");
  uint8_t token[kSparseTokens * kManyTokensBlock];
  uint16_t place[kSparseTokens * kManyTokensBlock];
  int32_t start[kManyTokensBlock + 1];  // of each unit's pairs

  // The first unit from u on that any of the tokens keeps; `count` if there is none.
  int64_t next_kept(int64_t u, int64_t count) const {
    while (u < count && start[u] == start[u + 1]) ++u;
    return u;
  }
};

void SparseUnits::many_tokens_up(Worker& worker, const FfnRows& rows) const {
  for (size_t block; (block = static_cast<size_t>(worker.next())) < blocks_.size();) {
    for (int64_t t = 0; t < tokens_; ++t) select(t, block, cuts_[t]);
    UnitPairs pairs;
    sort_pairs(block, pairs);
    list_used(block, pairs);
    block_dots(block, rows, pairs);
  }
}

void SparseUnits::sort_pairs(size_t block, UnitPairs& pairs) const {
  const UnitBlock& units = blocks_[block];
  const int32_t *list = ids(block), *start = starts(block);
  std::fill_n(pairs.start, units.count + 1, 0);
  for (int32_t i = 0; i < start[tokens_]; ++i) ++pairs.start[list[i] - units.first + 1];
  for (int64_t u = 0; u < units.count; ++u) pairs.start[u + 1] += pairs.start[u];
  int32_t next[kManyTokensBlock];
  std::copy_n(pairs.start, units.count, next);
  for (int64_t t = 0; t < tokens_; ++t) {
    for (int32_t i = start[t]; i < start[t + 1]; ++i) {
      const int32_t pair = next[list[i] - units.first]++;
      pairs.token[pair] = static_cast<uint8_t>(t);
      pairs.place[pair] = static_cast<uint16_t>(i);
    }
  }
}

void SparseUnits::block_dots(size_t block, const FfnRows& rows, const UnitPairs& pairs) const {
  const UnitBlock& units = blocks_[block];
  const MatrixView& up = units.part->segment.up;
  const TokenRows x = rows.view();
  float* act = values(block);
  for (int64_t u = pairs.next_kept(0, units.count), next; u < units.count; u = next) {
    const uint8_t* first_row = up.data + units.first * up.stride;
    next = pairs.next_kept(u + 1, units.count);
    if (next < units.count) prefetch_bytes(first_row + next * up.stride, up.stride);
    const int32_t first = pairs.start[u], kept = pairs.start[u + 1] - first;
    int32_t tokens[kSparseTokens];
    float dots[kSparseTokens];
    std::copy_n(pairs.token + first, kept, tokens);
    kernels().dot_tokens[up.kind](first_row + u * up.stride, groups_of(up.cols) * kGroup, x, tokens,
                                  kept, dots);
    for (int32_t i = 0; i < kept; ++i) act[pairs.place[first + i]] *= dots[i];
  }
}

// The units of a block that any token keeps.
void SparseUnits::list_used(size_t block, const UnitPairs& pairs) const {
  const UnitBlock& units = blocks_[block];
  int32_t used = 0;
  for (int64_t u = 0; (u = pairs.next_kept(u, units.count)) < units.count; ++u) {
    used_[units.start + used++] = static_cast<int32_t>(units.first + u);
  }
  num_used_[block] = used;
}

RowSet SparseUnits::used_rows(const MatrixView& w, size_t block) const {
  return row_set(w, used_ + blocks_[block].start, num_used_[block]);
}

void SparseUnits::many_tokens_down(Worker& worker, const FfnRows& rows) const {
  const int64_t pieces = size_.pieces(), cuts = size_.token_cuts();
  for (int64_t job; (job = worker.next()) < pieces * cuts;) {
    const int64_t cut = job / pieces;
    down_piece(job, rows, tokens_ * cut / cuts, tokens_ * (cut + 1) / cuts,
               job % pieces * kPieceColumns);
  }
}

// Block by block: its rows are unpacked once and added to all tokens that keep them.
void SparseUnits::down_piece(int64_t job, const FfnRows& rows, int64_t first_token,
                             int64_t last_token, int64_t column) const {
  const int64_t columns = std::min(kPieceColumns, rows.width() - column);
  float *q = unpacked_ + job * kPieceFloats, *scales = q + kManyTokensBlock * kPieceColumns;
  float* total = rows.total + column;
  for (int64_t t = first_token; t < last_token; ++t)
    std::fill_n(total + t * rows.total_stride(), columns, 0.0f);
  for (size_t block = 0; block < blocks_.size(); ++block) {
    const UnitBlock& units = blocks_[block];
    const MatrixView& down = units.part->segment.down;
    const UnpackedRows unpacked = {static_cast<int32_t>(units.first), groups_of(columns) * kGroup,
                                   q, scales};
    kernels().unpack_rows[down.kind](used_rows(down, block), column, unpacked);
    const int32_t* start = starts(block);
    for (int64_t t = first_token; t < last_token; ++t) {
      kernels().axpy_unpacked(unpacked, ids(block) + start[t], values(block) + start[t],
                              start[t + 1] - start[t], columns, total + t * rows.total_stride());
    }
  }
}

}  // namespace matryo
