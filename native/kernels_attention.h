// The third part of the kernel table: rotation of heads, K/V pages, attention, the end of the
// block.
//
// Arithmetic contract, the same on every instruction set (the sum over a page has 16 partial sums):
//   score   s[j] = (Σ_d fma(k[d][j], q[d], acc), d ascending) * key scale (int8 only);
//   softmax page by page: m' = max(m, max_j s[j]); sum, mixed are scaled by e^(m - m') if m grew;
//           w[j] = e^(s[j] - m'), exactly 0 for keys that are not visible;
//   mix     mixed[d] = fma(w[j] * value scale (int8 only), v[j][d], mixed[d]), j ascending.
// One accumulator an output; a query's bits depend on its own keys only, not on the queries worked
// on beside it.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace matryo {

constexpr int kPage = 64;  // tokens

enum KvKind : int32_t { kKvF32 = 0, kKvBf16 = 1, kKvInt8 = 2 };

// What one page holds of one kv head (docs/architecture.md section 4); scales (64) are null unless
// int8.
struct KvPart {
  uint8_t* keys;    // (Dh, 64)
  uint8_t* values;  // (64, Dh)
  float* key_scales;
  float* value_scales;
};

// The softmax of several queries over the keys seen so far: largest score, Σ e^(s - largest), Σ
// e^(s - largest) v.
struct SoftmaxState {
  float* maxima;  // (count), -inf before the first key
  float* sums;    // (count)
  float* mixed;   // (count, Dh)
};

// Takes one page into the state of `count` queries of one kv head. Query i sees slots [first[i],
// last[i]).
struct AttendPage {
  KvPart part;
  const uint8_t* ahead;  // bytes to prefetch: the keys of the page that comes next
  int32_t head_dim;
  int32_t count;
  const float* queries;  // (count, Dh)
  const int32_t *first, *last;
  SoftmaxState state;
  float* scores;  // scratch (count, 64)
};

// out (n) = ((active + attended * factor * weight) + (normed + laurel * factor * weight)) / sqrt 2,
// elementwise.
struct AttentionEnd {
  const float *active, *attended, *attended_weight;
  const float *normed, *laurel, *laurel_weight;
  float attended_factor, laurel_factor;  // 1 / rms of the whole row
  int64_t n;
  float* out;
};

struct AttentionKernels {
  // x (n) in place, n even: (a, b) = (x[i], x[i + n/2]) becomes (a cos[i] - b sin[i], b cos[i] + a
  // sin[i]).
  void (*rotate)(float* x, int64_t n, const float* cos, const float* sin);

  // Stores key and value (Dh) of one token as slot `slot`, indexed by KvKind: bf16 to nearest even;
  // int8 as rint(x * (127 / absmax)) with scale absmax / 127, or zeros and scale 0 where absmax <
  // 2^-100.
  void (*store_kv[3])(const float* key, const float* value, int32_t head_dim, int32_t slot,
                      const KvPart& part);

  void (*attend_page[3])(const AttendPage& call);  // indexed by KvKind
  void (*int8_to_f32)(const int8_t* x, int64_t n, float* out);

  // state[i] takes in the keys of part[i], i < count. A part with sum 0 saw no key and changes
  // nothing.
  void (*merge_states)(const SoftmaxState& state, const SoftmaxState& part, int32_t count,
                       int32_t head_dim);
  void (*end_attention)(const AttentionEnd& call);
};

}  // namespace matryo
