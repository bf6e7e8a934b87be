#include "matrix.h"

#include <algorithm>
#include <stdexcept>

#include "dispatch.h"

namespace matryo {
namespace {

const char* const kKindNames[] = {"f32", "bf16", "q8", "q4"};
const char* const kLayoutNames[] = {"panel", "rows"};

// A chunk of a decode-sized product reads about this much: long enough to stream, short enough that
// the threads of a team end together.
constexpr int64_t kChunkBytes = 96 << 10;
constexpr int64_t kMaxChunkPanels = 8;  // many tokens: the chunk's weights stay in L2
constexpr int kFewTokens = 8;

int64_t panels_of(int64_t rows) { return (rows + kPanel - 1) / kPanel; }

// Panels of one chunk, even so that panels can be taken in pairs.
int64_t chunk_panels(int64_t panels, int64_t panel_bytes, int tokens, int num_threads) {
  const int64_t share = panels / (4 * num_threads);
  const int64_t streaming = kChunkBytes / std::max<int64_t>(panel_bytes, 1);
  const int64_t wanted =
      tokens <= kFewTokens ? std::min(streaming, share) : std::min(kMaxChunkPanels, share);
  return std::max<int64_t>(2, wanted / 2 * 2);
}

int64_t used_panel_bytes(const MatrixView& w, int64_t cols) {
  return storage_stride(w.kind, kPanelLayout, cols);
}

void softcap_rows(const ProductJob& job, int64_t first, int64_t last, int tokens) {
  for (int t = 0; t < tokens; ++t) {
    kernels().softcap(job.out + t * job.out_stride + first, last - first, job.softcap);
  }
}

void run_chunk(const ProductJob& job, const TokenRows& x, int64_t first_panel, int64_t last_panel) {
  const int64_t first = first_panel * kPanel;
  const int64_t last = std::min(last_panel * kPanel, job.rows);
  const PanelProduct call = {job.w.data + first_panel * job.w.stride,
                             job.w.stride,
                             static_cast<int32_t>(last - first),
                             static_cast<int32_t>(job.cols),
                             x,
                             job.out + first,
                             job.out_stride,
                             job.accumulate};
  kernels().panel_product[job.w.kind](call);
  if (job.softcap > 0.0f) softcap_rows(job, first, last, x.tokens);
}

void run_chunk(const GatedJob& job, const TokenRows& x, int64_t first_panel, int64_t last_panel) {
  const int64_t first = first_panel * kPanel;
  const int64_t last = std::min(last_panel * kPanel, job.rows);
  const GatedProduct call = {job.gate.data + first_panel * job.gate.stride,
                             job.up.data + first_panel * job.up.stride,
                             job.gate.stride,
                             static_cast<int32_t>(last - first),
                             static_cast<int32_t>(job.cols),
                             x,
                             job.act == nullptr ? nullptr : job.act + first,
                             job.act_stride,
                             job.quantized == nullptr ? nullptr : job.quantized + first / kGroup,
                             job.quantized_stride};
  kernels().gated_product[job.gate.kind](call);
}

const MatrixView& weights_of(const ProductJob& job) { return job.w; }
const MatrixView& weights_of(const GatedJob& job) { return job.gate; }

// Chunks of all jobs are numbered one after the other; `next` hands the numbers out in order, so a
// thread only ever moves forward through the jobs.
template <class Job>
void run_jobs(Worker& worker, const TokenRows& x, const Job* jobs, int count, int slot) {
  int64_t wanted = worker.next(slot);
  int64_t passed = 0;
  for (int i = 0; i < count; ++i) {
    const Job& job = jobs[i];
    const int64_t panels = panels_of(job.rows);
    const int64_t bytes = used_panel_bytes(weights_of(job), job.cols);
    const int64_t size = chunk_panels(panels, bytes, x.tokens, worker.num_threads);
    const int64_t chunks = (panels + size - 1) / size;
    while (wanted < passed + chunks) {
      const int64_t first = (wanted - passed) * size;
      run_chunk(job, x, first, std::min(first + size, panels));
      wanted = worker.next(slot);
    }
    passed += chunks;
  }
}

template <size_t kCount>
int index_of(const std::string& name, const char* const (&names)[kCount], const char* what) {
  std::string allowed;
  for (size_t i = 0; i < kCount; ++i) {
    if (name == names[i]) return static_cast<int>(i);
    allowed += (i == 0 ? "" : ", ") + std::string(names[i]);
  }
  throw std::invalid_argument(std::string(what) + ": expected one of " + allowed + ", got '" +
                              name + "'");
}

}  // namespace

int64_t storage_stride(Kind kind, Layout layout, int64_t cols) {
  const int64_t padded = groups_of(cols) * kGroup;
  const int64_t rows = layout == kPanelLayout ? kPanel : 1;
  switch (kind) {
    case kF32:
      return rows * padded * 4;
    case kBf16:
      return rows * padded * 2;
    case kQ8:
      return rows * (padded + padded / 16);
    case kQ4:
      return rows * (padded / 2 + padded / 16);
  }
  throw std::logic_error("storage_stride: unknown kind");
}

int64_t storage_bytes(Kind kind, Layout layout, int64_t rows, int64_t cols) {
  const int64_t pieces = layout == kPanelLayout ? panels_of(rows) : rows;
  return pieces * storage_stride(kind, layout, cols);
}

Kind kind_from_name(const std::string& name) {
  return static_cast<Kind>(index_of(name, kKindNames, "kind"));
}
Layout layout_from_name(const std::string& name) {
  return static_cast<Layout>(index_of(name, kLayoutNames, "layout"));
}
const char* kind_name(Kind kind) { return kKindNames[kind]; }
const char* layout_name(Layout layout) { return kLayoutNames[layout]; }

void product_phase(Worker& worker, const TokenRows& x, const ProductJob* jobs, int count,
                   int slot) {
  run_jobs(worker, x, jobs, count, slot);
}

void gated_phase(Worker& worker, const TokenRows& x, const GatedJob* jobs, int count, int slot) {
  run_jobs(worker, x, jobs, count, slot);
}

void quantize_phase(Worker& worker, const float* x, int64_t stride, int64_t tokens, int64_t cols,
                    QuantizedGroup* out) {
  const int64_t groups = groups_of(cols);
  const auto [first, last] = worker.slice(tokens * groups);
  for (int64_t i = first; i < last;) {
    const int64_t token = i / groups, group = i % groups;
    const int64_t end = std::min(groups, group + last - i);
    const int64_t columns = std::min(cols, end * kGroup) - group * kGroup;
    kernels().quantize_row(x + token * stride + group * kGroup, columns, out + i);
    i += end - group;
  }
}

}  // namespace matryo
