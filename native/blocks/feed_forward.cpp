// The feed-forward block, and the units of dense layers: gated units, then the down product.
//
//   T tokens of a block · d model · W units used now
#include "blocks/feed_forward.h"

#include <algorithm>
#include <vector>

#include "blocks/ffn_rows.h"
#include "blocks/sparse_units.h"

namespace matryo {
namespace {

constexpr int64_t kMostTokens = 512;  // bounds the scratch of a long call

// Activations (T, W) as the down products read them; a form no part reads stays null.
struct Activations {
  float* dense;
  QuantizedGroup* codes;
  int64_t width;
};

std::vector<GatedJob> gated_jobs(const LayerView& layer, const std::vector<FfnPart>& parts,
                                 const Activations& act) {
  std::vector<GatedJob> jobs;
  for (const FfnPart& part : parts) {
    const bool quantized = is_quantized(part.segment.down.kind);
    jobs.push_back({part.segment.gate, part.segment.up, part.count, layer.hidden_size,
                    quantized ? nullptr : act.dense + part.first, act.width,
                    quantized ? act.codes + part.first / kGroup : nullptr, act.width / kGroup});
  }
  return jobs;
}

constexpr int64_t kChunkBytes = 96 << 10;  // of the down product of few tokens, as in matrix.cpp
constexpr int64_t kMostChunkPanels = 8;
constexpr int64_t kFewTokens = 8;

int64_t down_chunk_panels(const std::vector<FfnPart>& parts, int64_t panels, int64_t tokens,
                          int threads) {
  int64_t bytes = 0;
  for (const FfnPart& part : parts)
    bytes += storage_stride(part.segment.down.kind, kPanelLayout, part.count);
  const int64_t most =
      tokens <= kFewTokens ? kChunkBytes / std::max<int64_t>(bytes, 1) : kMostChunkPanels;
  return std::max<int64_t>(2, std::min(most, panels / (4 * threads)) / 2 * 2);
}

PanelProduct down_product(const FfnPart& part, const FfnRows& rows, const Activations& act,
                          int64_t first, int64_t last) {
  const MatrixView& down = part.segment.down;
  const TokenRows x = {act.dense == nullptr ? nullptr : act.dense + part.first, act.width,
                       act.codes == nullptr ? nullptr : act.codes + part.first / kGroup,
                       act.width / kGroup, static_cast<int32_t>(rows.tokens)};
  return {down.data + first / kPanel * down.stride,
          down.stride,
          static_cast<int32_t>(last - first),
          static_cast<int32_t>(part.count),
          x,
          rows.total + first,
          rows.total_stride(),
          part.first > 0};
}

// A chunk of outputs goes through all parts in order, each starting from the sum so far: the bits
// of one product.
void down_phase(Worker& worker, const FfnRows& rows, const std::vector<FfnPart>& parts,
                const Activations& act) {
  const int64_t panels = (rows.width() + kPanel - 1) / kPanel;
  const int64_t size = down_chunk_panels(parts, panels, rows.tokens, worker.num_threads);
  for (int64_t first; (first = worker.next() * size) < panels;) {
    const int64_t last = std::min((first + size) * kPanel, rows.width());
    for (const FfnPart& part : parts) {
      kernels().panel_product[part.segment.down.kind](
          down_product(part, rows, act, first * kPanel, last));
    }
  }
}

void dense_feed_forward(const LayerView& layer, const float* hidden, int64_t tokens,
                        const std::vector<FfnPart>& parts, int64_t width, float* out) {
  const int64_t most = std::min(tokens, kMostTokens);
  const int64_t dense = any_of_kind(parts, false) ? most * width : 0;
  const int64_t groups = any_of_kind(parts, true) ? most * width / kGroup : 0;
  Scratch scratch(ffn_rows_bytes(most, layer.hidden_size) + Scratch::bytes<float>(dense) +
                  Scratch::bytes<QuantizedGroup>(groups));
  const FfnRows rows = take_ffn_rows(scratch, layer, parts, most);
  const Activations act = {dense == 0 ? nullptr : scratch.take<float>(dense),
                           groups == 0 ? nullptr : scratch.take<QuantizedGroup>(groups), width};
  const std::vector<GatedJob> jobs = gated_jobs(layer, parts, act);
  for_each_token_block(rows, hidden, tokens, most, out, [&](const FfnRows& block) {
    block.run([&](Worker& worker) {
      gated_phase(worker, block.view(), jobs.data(), static_cast<int>(jobs.size()));
      worker.barrier();
      down_phase(worker, block, parts, act);
    });
  });
}

void sparse_feed_forward(const LayerView& layer, const float* hidden, int64_t tokens,
                         const std::vector<FfnPart>& parts, int64_t width, float* out) {
  const int64_t most = std::min(tokens, kSparseTokens);
  const SparseSize size = {most, width, layer.hidden_size, pool().threads()};
  Scratch scratch(ffn_rows_bytes(most, layer.hidden_size) + size.bytes());
  const FfnRows rows = take_ffn_rows(scratch, layer, parts, most);
  SparseUnits units(scratch, layer, parts, size);
  for_each_token_block(rows, hidden, tokens, most, out, [&](const FfnRows& block) {
    units.prepare(block.tokens);
    block.run([&](Worker& worker) { units.run(worker, block); });
  });
}

}  // namespace

void feed_forward(const LayerView& layer, const float* hidden, int64_t tokens, int64_t width,
                  float* out) {
  if (tokens == 0) return;
  const std::vector<FfnPart> parts = used_parts(layer, width);
  if (parts.empty()) {
    std::copy_n(hidden, tokens * layer.hidden_size, out);
    return;
  }
  const auto run = layer.sparsity_z == 0.0f ? dense_feed_forward : sparse_feed_forward;
  run(layer, hidden, tokens, parts, width, out);
}

}  // namespace matryo
