#include "blocks/ffn_rows.h"

namespace matryo {

std::vector<FfnPart> used_parts(const LayerView& layer, int64_t width) {
  std::vector<FfnPart> parts;
  int64_t first = 0;
  for (const SegmentView& segment : layer.segments) {
    const int64_t count = std::min(width - first, segment.num_units());
    if (count > 0) parts.push_back({segment, first, count});
    first += count;
  }
  return parts;
}

bool any_of_kind(const std::vector<FfnPart>& parts, bool quantized) {
  return std::any_of(parts.begin(), parts.end(), [&](const FfnPart& part) {
    return is_quantized(part.segment.gate.kind) == quantized;
  });
}

void FfnRows::prepare(const Worker& worker) const {
  const auto [first, last] = worker.slice(tokens);
  for (int64_t t = first; t < last; ++t) {
    float* row = normed + t * padded();
    rms_norm_row(hidden + t * width(), width(), layer.pre_ffn_norm, layer.eps, row);
    std::fill(row + width(), row + padded(), 0.0f);
    if (quantized) kernels().quantize_row(row, width(), codes + t * groups());
  }
}

size_t ffn_rows_bytes(int64_t tokens, int64_t hidden_size) {
  const int64_t groups = tokens * groups_of(hidden_size);
  return Scratch::bytes<float>(groups * kGroup) + Scratch::bytes<QuantizedGroup>(groups) +
         Scratch::bytes<float>(groups * kGroup + tokens * kRowPadding);
}

FfnRows take_ffn_rows(Scratch& scratch, const LayerView& layer, const std::vector<FfnPart>& parts,
                      int64_t tokens) {
  const int64_t groups = tokens * groups_of(layer.hidden_size);
  float* normed = scratch.take<float>(groups * kGroup);
  QuantizedGroup* codes = scratch.take<QuantizedGroup>(groups);
  float* total = scratch.take<float>(groups * kGroup + tokens * kRowPadding);
  return {layer, nullptr, nullptr, tokens, any_of_kind(parts, true), normed, codes, total};
}

}  // namespace matryo
