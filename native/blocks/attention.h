// The attention block of a layer: projections, norms, rotation, K/V pages, attention, output
// projection, LAuReL.
#pragma once

#include <cstdint>

#include "layer.h"
#include "pages.h"

namespace matryo {

// T rows of one call. Arguments are trusted: bind/attention.cpp checks them.
struct TableRows {
  const PageTableView* table;
  const int32_t *sequences, *positions;  // (T)
  int64_t tokens;
};

struct BlockRows {
  TableRows rows;
  const float* normed;     // (T, d)
  const float *cos, *sin;  // (T, Dh / 2)
};

// hidden (T, d) = ((active + rms(attention)) + laurel) / sqrt 2; `write`: keys and values of the
// rows are stored first.
void attention(const LayerView& layer, const BlockRows& block, const float* active, bool write,
               float* hidden);

// Only stores keys and values.
void write_kv(const LayerView& layer, const BlockRows& block);

// out (T, H, Dh): attention of queries (T, H, Dh), normed and rotated, over the pages.
void attend(const float* queries, int32_t num_heads, const TableRows& rows, float* out);

}  // namespace matryo
