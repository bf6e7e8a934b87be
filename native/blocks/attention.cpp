#include "blocks/attention.h"

#include <algorithm>
#include <vector>

#include "blocks/attend.h"
#include "blocks/norms.h"
#include "dispatch.h"
#include "matrix.h"
#include "pool.h"
#include "scratch.h"

namespace matryo {
namespace {

// Fewer groups than this are quantised before the threads are woken: a barrier would cost more.
constexpr int64_t kSerialGroups = 256;

// Activations that enter several products: the floats, and their quantised form if one of the
// matrices wants it.
class Input {
 public:
  Input(const float* x, int64_t tokens, int64_t cols,
        std::initializer_list<const MatrixView*> users)
      : x_(x), tokens_(tokens), cols_(cols) {
    for (const MatrixView* w : users)
      quantized_ = quantized_ || (w->data != nullptr && is_quantized(w->kind));
  }

  size_t bytes() const {
    return Scratch::bytes<QuantizedGroup>(quantized_ ? tokens_ * groups_of(cols_) : 0);
  }
  void take(Scratch& scratch) {
    if (quantized_) codes_ = scratch.take<QuantizedGroup>(tokens_ * groups_of(cols_));
  }

  const float* floats() const { return x_; }
  void set_floats(const float* x) { x_ = x; }
  QuantizedGroup* codes() const { return codes_; }  // null if no matrix wants them
  int64_t cols() const { return cols_; }
  bool small() const { return tokens_ * groups_of(cols_) < kSerialGroups; }
  TokenRows rows() const {
    return {x_, cols_, codes_, groups_of(cols_), static_cast<int32_t>(tokens_)};
  }

  void quantize_token(int64_t token) const {
    if (quantized_)
      kernels().quantize_row(x_ + token * cols_, cols_, codes_ + token * groups_of(cols_));
  }
  void quantize_all() const {
    for (int64_t token = 0; token < tokens_; ++token) quantize_token(token);
  }
  void quantize(Worker& worker) const {
    if (quantized_) quantize_phase(worker, x_, cols_, tokens_, cols_, codes_);
  }

 private:
  const float* x_;
  int64_t tokens_, cols_;
  bool quantized_ = false;
  QuantizedGroup* codes_ = nullptr;
};

ProductJob job_of(const MatrixView& w, float* out) { return {w, out, w.rows, w.rows, w.cols}; }

// Keys and values of the rows before norm and rotation.
struct RawKv {
  float *keys, *values;  // (T, K, Dh); overwritten by their normed forms
};

// Norms, rotates and stores the key and value of one row and kv head.
void store_head(const LayerView& layer, const BlockRows& block, const RawKv& raw, int64_t row,
                int32_t kv_head) {
  const TableRows& rows = block.rows;
  const int32_t n = layer.head_dim;
  const int64_t at = (row * layer.num_kv_heads + kv_head) * n, angle = row * (n / 2);
  float *key = raw.keys + at, *value = raw.values + at;
  rms_norm_row(key, n, layer.k_norm, layer.eps, key);
  kernels().rotate(key, n, block.cos + angle, block.sin + angle);
  rms_norm_row(value, n, nullptr, layer.eps, value);
  const int32_t position = rows.positions[row];
  const KvPart part = rows.table->part(rows.sequences[row], position / kPage, kv_head);
  kernels().store_kv[rows.table->kind](key, value, n, position % kPage, part);
}

// One call of `attention`: its buffers and its phases.
class Attention {
 public:
  Attention(const LayerView& layer, const BlockRows& block, const float* active, bool write,
            float* hidden)
      : layer_(layer),
        block_(block),
        active_(active),
        write_(write),
        hidden_(hidden),
        tokens_(block.rows.tokens),
        query_cols_(int64_t{layer.num_heads} * layer.head_dim),
        kv_cols_(write ? int64_t{layer.num_kv_heads} * layer.head_dim : 0),
        rank_(layer.laurel_left.rows),
        plan_(block.rows, layer.num_heads, pool().threads()),
        normed_(block.normed, tokens_, layer.hidden_size,
                {&layer.q, &layer.k, &layer.v, &layer.laurel_left}),
        attended_(nullptr, tokens_, query_cols_, {&layer.o}),
        narrow_(nullptr, tokens_, rank_, {&layer.laurel_right}) {}

  void run() {
    Scratch scratch(bytes());
    take(scratch);
    if (normed_.small()) normed_.quantize_all();
    pool().run([this](Worker& worker) { phases(worker); });
  }

 private:
  size_t bytes() const {
    return 2 * Scratch::bytes<float>(tokens_ * query_cols_) +
           2 * Scratch::bytes<float>(tokens_ * kv_cols_) +
           Scratch::bytes<float>(tokens_ * query_cols_) + Scratch::bytes<float>(tokens_ * rank_) +
           2 * Scratch::bytes<float>(tokens_ * layer_.hidden_size) + plan_.scratch_bytes() +
           normed_.bytes() + attended_.bytes() + narrow_.bytes();
  }

  void take(Scratch& scratch) {
    raw_queries_ = scratch.take<float>(tokens_ * query_cols_);
    queries_ = scratch.take<float>(tokens_ * query_cols_);
    raw_kv_.keys = scratch.take<float>(tokens_ * kv_cols_);
    raw_kv_.values = scratch.take<float>(tokens_ * kv_cols_);
    mixed_ = scratch.take<float>(tokens_ * query_cols_);
    laurel_rank_ = scratch.take<float>(tokens_ * rank_);
    projected_ = scratch.take<float>(tokens_ * layer_.hidden_size);
    laurel_ = scratch.take<float>(tokens_ * layer_.hidden_size);
    plan_.take_scratch(scratch);
    normed_.take(scratch);
    attended_.take(scratch);
    narrow_.take(scratch);
    attended_.set_floats(mixed_);
    narrow_.set_floats(laurel_rank_);
  }

  void phases(Worker& worker) const {
    if (!normed_.small()) {
      normed_.quantize(worker);
      worker.barrier();
    }
    project(worker);
    worker.barrier();
    finish_heads(worker);
    worker.barrier();
    attend(worker);
    worker.barrier();
    const ProductJob o = job_of(layer_.o, projected_), right = job_of(layer_.laurel_right, laurel_);
    product_phase(worker, attended_.rows(), &o, 1, 0);
    product_phase(worker, narrow_.rows(), &right, 1, 1);
    worker.barrier();
    end(worker);
  }

  void project(Worker& worker) const {
    const ProductJob jobs[] = {job_of(layer_.q, raw_queries_),
                               job_of(layer_.laurel_left, laurel_rank_),
                               job_of(layer_.k, raw_kv_.keys), job_of(layer_.v, raw_kv_.values)};
    product_phase(worker, normed_.rows(), jobs, write_ ? 4 : 2);
  }

  // Norms and rotation of every head, K/V into their pages; and the quantised input of
  // laurel_right.
  void finish_heads(Worker& worker) const {
    const int64_t heads = layer_.num_heads + (write_ ? layer_.num_kv_heads : 0);
    const auto [first, last] = worker.slice(tokens_ * heads);
    for (int64_t i = first; i < last; ++i) {
      const int64_t row = i / heads;
      const auto head = static_cast<int32_t>(i % heads);
      if (head < layer_.num_heads) {
        finish_query(row, head);
      } else {
        store_head(layer_, block_, raw_kv_, row, head - layer_.num_heads);
      }
    }
    narrow_.quantize(worker);
  }

  void finish_query(int64_t row, int32_t head) const {
    const int32_t n = layer_.head_dim, group = layer_.num_heads / layer_.num_kv_heads;
    const float* x = raw_queries_ + (row * layer_.num_heads + head) * n;
    float* out = queries_ + ((head / group * tokens_ + row) * group + head % group) * n;
    const int64_t angle = row * (n / 2);
    rms_norm_row(x, n, layer_.q_norm, layer_.eps, out);
    kernels().rotate(out, n, block_.cos + angle, block_.sin + angle);
  }

  void attend(Worker& worker) const {
    const bool whole_groups = layer_.head_dim % kGroup == 0;
    const AttendIo io = {queries_, mixed_, whole_groups ? attended_.codes() : nullptr};
    plan_.attend(worker, io);
    if (plan_.split()) {
      worker.barrier();
      plan_.merge(worker, io);
    }
    if (whole_groups) return;
    worker.barrier();
    attended_.quantize(worker);
  }

  // One token is cut by columns, several by tokens.
  void end(Worker& worker) const {
    const int64_t d = layer_.hidden_size;
    if (tokens_ == 1) {
      const auto [first, last] = worker.slice(d, kGroup);
      if (first < last) end_token(0, first, last);
      return;
    }
    const auto [first, last] = worker.slice(tokens_);
    for (int64_t token = first; token < last; ++token) end_token(token, 0, d);
  }

  void end_token(int64_t token, int64_t first, int64_t last) const {
    const int64_t d = layer_.hidden_size, at = token * d + first;
    AttentionEnd call = {};
    call.active = active_ + at;
    call.attended = projected_ + at;
    call.attended_weight = layer_.post_attention_norm + first;
    call.attended_factor = rms_factor(projected_ + token * d, d, layer_.eps);
    call.normed = block_.normed + at;
    call.laurel = laurel_ + at;
    call.laurel_weight = layer_.post_laurel_norm + first;
    call.laurel_factor = rms_factor(laurel_ + token * d, d, layer_.eps);
    call.n = last - first;
    call.out = hidden_ + at;
    kernels().end_attention(call);
  }

  const LayerView& layer_;
  const BlockRows& block_;
  const float* active_;
  const bool write_;
  float* hidden_;
  const int64_t tokens_, query_cols_, kv_cols_, rank_;
  AttendPlan plan_;
  Input normed_, attended_, narrow_;
  RawKv raw_kv_{};
  float *raw_queries_ = nullptr, *queries_ = nullptr, *mixed_ = nullptr, *laurel_rank_ = nullptr;
  float *projected_ = nullptr, *laurel_ = nullptr;
};

}  // namespace

void attention(const LayerView& layer, const BlockRows& block, const float* active, bool write,
               float* hidden) {
  if (block.rows.tokens > 0) Attention(layer, block, active, write, hidden).run();
}

void write_kv(const LayerView& layer, const BlockRows& block) {
  const int64_t tokens = block.rows.tokens, cols = int64_t{layer.num_kv_heads} * layer.head_dim;
  if (tokens == 0) return;
  Input normed(block.normed, tokens, layer.hidden_size, {&layer.k, &layer.v});
  Scratch scratch(2 * Scratch::bytes<float>(tokens * cols) + normed.bytes());
  float* keys = scratch.take<float>(tokens * cols);
  const RawKv raw = {keys, scratch.take<float>(tokens * cols)};
  normed.take(scratch);
  const ProductJob jobs[] = {job_of(layer.k, raw.keys), job_of(layer.v, raw.values)};
  pool().run([&](Worker& worker) {
    normed.quantize(worker);
    worker.barrier();
    product_phase(worker, normed.rows(), jobs, 2);
    worker.barrier();
    const auto [first, last] = worker.slice(tokens * layer.num_kv_heads);
    for (int64_t i = first; i < last; ++i) {
      store_head(layer, block, raw, i / layer.num_kv_heads,
                 static_cast<int32_t>(i % layer.num_kv_heads));
    }
  });
}

void attend(const float* queries, int32_t num_heads, const TableRows& rows, float* out) {
  if (rows.tokens == 0) return;
  const int32_t kv_heads = rows.table->num_kv_heads, n = rows.table->head_dim,
                group = num_heads / kv_heads;
  AttendPlan plan(rows, num_heads, pool().threads());
  Scratch scratch(Scratch::bytes<float>(rows.tokens * num_heads * n) + plan.scratch_bytes());
  float* by_kv_head = scratch.take<float>(rows.tokens * num_heads * n);
  plan.take_scratch(scratch);
  const int64_t run = int64_t{group} * n;  // the queries of one row that share a kv head
  for (int64_t row = 0; row < rows.tokens; ++row) {
    for (int64_t head = 0; head < kv_heads; ++head) {
      std::copy_n(queries + (row * kv_heads + head) * run, run,
                  by_kv_head + (head * rows.tokens + row) * run);
    }
  }
  const AttendIo io = {by_kv_head, out, nullptr};
  pool().run([&](Worker& worker) {
    plan.attend(worker, io);
    if (!plan.split()) return;
    worker.barrier();
    plan.merge(worker, io);
  });
}

}  // namespace matryo
