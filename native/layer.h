// One decoder layer's weights as the blocks take them: the C++ twin of src/matryo/kernels/layer.py.
// Nothing is owned.
//
//   d model · A altup streams (kStreams) · r laurel rank · P per-layer dim · F ffn units
//   H query heads · K kv heads · Dh head dim
#pragma once

#include <cstdint>
#include <vector>

#include "kernels.h"

namespace matryo {

constexpr int kStreams = 4;  // config.py refuses any other number

// The FFN units one shell adds. Dense layers: up (F, d), down (d, F), both panel.
// Sparse: both (F, d) rows, down transposed.
struct SegmentView {
  MatrixView gate, up, down;
  int64_t num_units() const { return gate.rows; }
};

struct LayerView {
  const float* router_norm;           // (d)
  const float* router;                // (A, d)
  const float* prediction_coefs;      // (A·A, A), row A·i + j mixes stream j into stream i
  const float* correction_coefs;      // (A, A)
  const float* correct_output_scale;  // (d)
  const float* input_norm;            // (d)
  const float* post_attention_norm;   // (d)
  const float* pre_ffn_norm;          // (d)
  const float* post_ffn_norm;         // (d)
  const float* post_ple_norm;         // (d)
  const float* post_laurel_norm;      // (d)
  const float* q_norm;                // (Dh)
  const float* k_norm;                // (Dh), null in reader layers
  MatrixView q;                       // (H·Dh, d)
  MatrixView k, v;                    // (K·Dh, d), data null in reader layers
  MatrixView o;                       // (d, H·Dh)
  MatrixView laurel_left;             // (r, d)
  MatrixView laurel_right;            // (d, r)
  MatrixView ple_gate;                // (P, d)
  MatrixView ple_projection;          // (d, P)
  std::vector<SegmentView> segments;  // in order of units
  int64_t hidden_size;                // d
  int32_t num_heads, num_kv_heads, head_dim;
  float eps;
  float sparsity_z;  // 0 = dense FFN

  bool owns_kv() const { return k_norm != nullptr; }
  int64_t num_units() const {
    int64_t units = 0;
    for (const SegmentView& segment : segments) units += segment.num_units();
    return units;
  }
};

}  // namespace matryo
