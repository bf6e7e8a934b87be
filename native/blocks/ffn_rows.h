// What the dense and the sparse feed-forward share: the used units, and the rows of one block of
// tokens.
//
//   T tokens of a block · d model
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "blocks/norms.h"
#include "dispatch.h"
#include "layer.h"
#include "matrix.h"
#include "pool.h"
#include "scratch.h"

namespace matryo {

// The used part of a segment: its units [0, count) are the layer's units first .. first + count.
struct FfnPart {
  SegmentView segment;
  int64_t first, count;
};

std::vector<FfnPart> used_parts(const LayerView& layer, int64_t width);

// Whether the gates of these parts read dense rows, quantised ones, or, if their kinds differ,
// both.
bool any_of_kind(const std::vector<FfnPart>& parts, bool quantized);

struct FfnRows {
  const LayerView& layer;
  const float* hidden;  // (T, d)
  float* out;           // (T, d)
  int64_t tokens;
  bool quantized;         // whether codes are needed
  float* normed;          // (T, padded d), the padding zero: matrices in rows layout are padded
  QuantizedGroup* codes;  // (T, d / 32)
  float* total;           // (T, total_stride): the sum over units, before the norm

  int64_t width() const { return layer.hidden_size; }
  int64_t groups() const { return groups_of(width()); }
  int64_t padded() const { return groups() * kGroup; }
  int64_t total_stride() const { return padded() + kRowPadding; }
  TokenRows view() const {
    return {normed, padded(), codes, groups(), static_cast<int32_t>(tokens)};
  }

  // Runs units(worker), which ends with `total` written, between the first norm and the residual:
  // one region. A single token is normed by the caller while the team wakes up, which saves a
  // barrier.
  template <class Body>
  void run(Body units) const {
    if (tokens == 1) prepare(Worker());
    pool().run([&](Worker& worker) {
      if (tokens > 1) {
        prepare(worker);
        worker.barrier();
      }
      units(worker);
      worker.barrier();
      add_normed_phase(worker, total, total_stride(), layer.post_ffn_norm, layer.eps, hidden,
                       tokens, width(), out);
    });
  }

 private:
  void prepare(const Worker& worker) const;
};

size_t ffn_rows_bytes(int64_t tokens, int64_t hidden_size);
FfnRows take_ffn_rows(Scratch& scratch, const LayerView& layer, const std::vector<FfnPart>& parts,
                      int64_t tokens);

// block(rows) for consecutive blocks of at most `most` tokens.
template <class Block>
void for_each_token_block(FfnRows rows, const float* hidden, int64_t tokens, int64_t most,
                          float* out, Block block) {
  for (int64_t first = 0; first < tokens; first += most) {
    rows.tokens = std::min(most, tokens - first);
    rows.hidden = hidden + first * rows.width();
    rows.out = out + first * rows.width();
    block(rows);
  }
}

}  // namespace matryo
