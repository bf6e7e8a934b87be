// The units of a sparse layer: those whose gate exceeds mean + z · deviation over the units used
// now, about 5 %.
//
// The gate product is dense. Of the up and down matrices (rows layout) only the rows of kept units
// are read. One token gathers its rows. Several tokens go through the units in order, so that a row
// is read once for all tokens that keep it: the dot products of a unit with its tokens, then, for a
// piece of the columns, the sums of all tokens. Every output is summed over ascending units, so
// both ways have the same bits.
#pragma once

#include <cstdint>
#include <vector>

#include "blocks/ffn_rows.h"

namespace matryo {

constexpr int64_t kSparseTokens = 128;  // of one run: their quantised rows stay in the second-level cache

// Consecutive units of one part, the work of one thread at a time.
struct UnitBlock {
  const FfnPart* part;
  int64_t start;  // among the units of all parts: where its gates lie
  int64_t first;  // in the part
  int64_t count;
};

struct UnitPairs;

class SparseUnits {
 public:
  static size_t bytes(int64_t tokens, int64_t width);
  SparseUnits(Scratch& scratch, const LayerView& layer, const std::vector<FfnPart>& parts, int64_t tokens,
              int64_t width);

  void prepare(int64_t tokens);  // before run(), for its number of tokens
  void run(Worker& worker,
           const FfnRows& rows) const;  // writes rows.total; needs a barrier before it is read

 private:
  float* values(int64_t t, const UnitBlock& block) const { return values_ + t * width_ + block.start; }
  int32_t* ids(int64_t t, const UnitBlock& block) const { return ids_ + t * width_ + block.start; }
  int32_t& count(int64_t t, size_t block) const { return counts_[static_cast<size_t>(t) * blocks_.size() + block]; }

  float cut_of(int64_t t) const;
  void select(int64_t t, size_t block, float cut) const;

  void one_token_up(Worker& worker, const FfnRows& rows) const;
  void one_token_dots(size_t block, const FfnRows& rows) const;
  void prefetch_first_rows(size_t block) const;
  void one_token_down(const Worker& worker, const FfnRows& rows) const;

  void cut_phase(const Worker& worker, const FfnRows& rows) const;
  void many_tokens_up(Worker& worker, const FfnRows& rows) const;
  void sort_pairs(size_t block, int64_t tokens, UnitPairs& pairs) const;
  void block_dots(size_t block, const FfnRows& rows) const;
  void many_tokens_down(Worker& worker, const FfnRows& rows) const;
  void down_piece(const FfnRows& rows, int64_t first_token, int64_t last_token, int64_t first, int64_t last) const;

  float z_;
  int64_t width_;
  const std::vector<FfnPart>& parts_;
  std::vector<ProductJob> jobs_;
  std::vector<UnitBlock> blocks_;
  float* gates_;       // (T, W)
  float* one_values_;  // (W)
  float* values_;      // (T, W): activations of the kept units of a block, at its start; over the gates
                       // if T > 1
  int32_t* ids_;       // (T, W): these units as numbers in their part
  int32_t* counts_;    // (T, blocks)
  float* cuts_;        // (T)
};

}  // namespace matryo
