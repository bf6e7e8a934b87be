// The units of a sparse layer: those whose gate exceeds mean + z · deviation over the units used
// now, about 5 %.
//
// The gate product is dense. Of the up and down matrices (rows layout) only the rows of kept units
// are read. One token gathers its rows. Several tokens go through the units in order, so that a row
// is read and unpacked once for all tokens that keep it: the dot products of a unit with its
// tokens, then, for a piece of the columns, the sums of all tokens. Every output is summed over
// ascending units, so both ways have the same bits.
//
//   T tokens of a run · W units used now
//   block: consecutive units of one part, the work of one thread at a time
#pragma once

#include <cstdint>
#include <vector>

#include "blocks/ffn_rows.h"

namespace matryo {

constexpr int64_t kSparseTokens = 128;  // of one run: their quantised rows stay in L2

struct UnitBlock {
  const FfnPart* part;
  int64_t start;  // among the units of all parts
  int64_t first;  // in the part
  int64_t count;
};

// What the scratch of a run depends on.
struct SparseSize {
  int64_t tokens, width, hidden_size;
  int threads;  // decides how finely the down phase is cut, not who may run it

  int64_t pieces() const;      // of the columns, in the down phase
  int64_t token_cuts() const;  // in how many parts a team larger than the pieces takes the tokens
  size_t bytes() const;
};

struct UnitPairs;

class SparseUnits {
 public:
  SparseUnits(Scratch& scratch, const LayerView& layer, const std::vector<FfnPart>& parts,
              const SparseSize& size);

  void prepare(int64_t tokens);  // before run(), for its number of tokens
  // Writes rows.total; needs a barrier before it is read.
  void run(Worker& worker, const FfnRows& rows) const;

 private:
  // The kept units of a block as numbers in their part, and their activations: the lists of all
  // tokens in a row.
  int32_t* ids(size_t block) const { return ids_ + blocks_[block].start * tokens_; }
  float* values(size_t block) const { return values_ + blocks_[block].start * tokens_; }
  // Of the lists of the block's tokens.
  int32_t* starts(size_t block) const {
    return starts_ + static_cast<int64_t>(block) * (tokens_ + 1);
  }

  float cut_of(int64_t t) const;
  void select(int64_t t, size_t block, float cut) const;  // after token t - 1

  void one_token_up(Worker& worker, const FfnRows& rows) const;
  void one_token_dots(size_t block, const FfnRows& rows) const;
  void prefetch_first_rows(size_t block) const;
  void few_tokens_down(const Worker& worker, const FfnRows& rows) const;

  void cut_phase(const Worker& worker) const;
  void many_tokens_up(Worker& worker, const FfnRows& rows) const;
  void sort_pairs(size_t block, UnitPairs& pairs) const;
  void block_dots(size_t block, const FfnRows& rows, const UnitPairs& pairs) const;
  void list_used(size_t block, const UnitPairs& pairs) const;
  RowSet used_rows(const MatrixView& w, size_t block) const;
  void many_tokens_down(Worker& worker, const FfnRows& rows) const;
  void down_piece(int64_t job, const FfnRows& rows, int64_t first_token, int64_t last_token,
                  int64_t column) const;

  float z_;
  SparseSize size_;
  int64_t tokens_ = 0;
  int64_t stride_;  // from token to token
  const std::vector<FfnPart>& parts_;
  std::vector<ProductJob> jobs_;
  std::vector<UnitBlock> blocks_;
  float* gates_;       // (T, stride)
  int32_t* ids_;       // (W · T)
  float* values_;      // (W · T)
  int32_t* starts_;    // (blocks, T + 1)
  float* cuts_;        // (T)
  int32_t* used_;      // (W): the units of a block that any token keeps, at its start
  int32_t* num_used_;  // (blocks)
  float* unpacked_;    // (pieces · token cuts, floats of an unpacked piece)
};

}  // namespace matryo
