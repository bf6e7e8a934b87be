// Products, logits and the choice of the largest logits.
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "bind.h"
#include "dispatch.h"
#include "matrix.h"
#include "pool.h"
#include "scratch.h"

namespace matryo {
namespace {

ProductJob job_of(const Matrix& w, Floats2& out, const char* where, int64_t tokens, int64_t cols) {
  expect_layout(where, w.view, kPanelLayout);
  if (w.view.cols != cols) {
    throw std::invalid_argument(std::string(where) + ": x has " + std::to_string(cols) +
                                " columns, expected " + std::to_string(w.view.cols));
  }
  expect_shape(where, "out", out, {tokens, w.view.rows});
  return {w.view, out.data(), w.view.rows, w.view.rows, cols};
}

// Quantises x once if any job needs it and runs all jobs in one parallel region.
void run_products(const float* x, int64_t tokens, int64_t cols,
                  const std::vector<ProductJob>& jobs) {
  if (tokens == 0) return;
  const bool quantized = std::any_of(
      jobs.begin(), jobs.end(), [](const ProductJob& job) { return is_quantized(job.w.kind); });
  const int64_t groups = groups_of(cols);
  Scratch scratch(Scratch::bytes<QuantizedGroup>(tokens * groups));
  QuantizedGroup* codes = scratch.take<QuantizedGroup>(tokens * groups);
  const TokenRows rows = {x, cols, codes, groups, static_cast<int32_t>(tokens)};
  pool().run([&](Worker& worker) {
    if (quantized) {
      quantize_phase(worker, x, cols, tokens, cols, codes);
      worker.barrier();
    }
    product_phase(worker, rows, jobs.data(), static_cast<int>(jobs.size()));
  });
}

void matmul_group(const std::vector<const Matrix*>& weights, ConstFloats2 x,
                  std::vector<Floats2> outs) {
  if (weights.size() != outs.size()) {
    throw std::invalid_argument("matmul_group: " + std::to_string(weights.size()) +
                                " matrices but " + std::to_string(outs.size()) + " outputs");
  }
  const auto tokens = static_cast<int64_t>(x.shape(0)), cols = static_cast<int64_t>(x.shape(1));
  std::vector<ProductJob> jobs;
  for (size_t i = 0; i < weights.size(); ++i) {
    jobs.push_back(job_of(*weights[i], outs[i], "matmul_group", tokens, cols));
  }
  ReleasedGil release;
  run_products(x.data(), tokens, cols, jobs);
}

void matmul(const Matrix& w, ConstFloats2 x, Floats2 out) {
  const auto tokens = static_cast<int64_t>(x.shape(0)), cols = static_cast<int64_t>(x.shape(1));
  const std::vector<ProductJob> jobs = {job_of(w, out, "matmul", tokens, cols)};
  ReleasedGil release;
  run_products(x.data(), tokens, cols, jobs);
}

void logits(const Matrix& head, ConstFloats2 hidden, float softcap, Floats2 out) {
  if (!(softcap >= 0.0f) || !std::isfinite(softcap)) {
    throw std::invalid_argument("logits: softcap must be finite and >= 0, got " +
                                std::to_string(softcap));
  }
  const auto tokens = static_cast<int64_t>(hidden.shape(0)),
             cols = static_cast<int64_t>(hidden.shape(1));
  std::vector<ProductJob> jobs = {job_of(head, out, "logits", tokens, cols)};
  jobs[0].softcap = softcap;
  ReleasedGil release;
  run_products(hidden.data(), tokens, cols, jobs);
}

constexpr int64_t kScanBlock = 1024;

int32_t argmax(ConstFloats1 values) {
  const float* x = values.data();
  const auto n = static_cast<int64_t>(values.shape(0));
  const float best = kernels().maximum(x, n);
  for (int64_t i = 0; i < n; ++i) {
    if (x[i] == best) return static_cast<int32_t>(i);
  }
  throw std::invalid_argument("argmax: no number among " + std::to_string(n) + " values");
}

// Larger value first; of equals the lower id.
using Choice = std::pair<float, int32_t>;
bool before(const Choice& a, const Choice& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}

// A heap with the worst of the k best on top; blocks whose maximum does not beat it are skipped
// whole.
std::vector<Choice> largest(const float* x, int64_t n, size_t k) {
  std::vector<Choice> heap;
  for (int64_t start = 0; start < n; start += kScanBlock) {
    const int64_t end = std::min(n, start + kScanBlock);
    if (heap.size() == k && !(kernels().maximum(x + start, end - start) > heap.front().first))
      continue;
    for (int64_t i = start; i < end; ++i) {
      const Choice choice{x[i], static_cast<int32_t>(i)};
      if (std::isnan(x[i]) || (heap.size() == k && !before(choice, heap.front()))) continue;
      if (heap.size() == k) {
        std::pop_heap(heap.begin(), heap.end(), before);
        heap.pop_back();
      }
      heap.push_back(choice);
      std::push_heap(heap.begin(), heap.end(), before);
    }
  }
  std::sort_heap(heap.begin(), heap.end(), before);
  return heap;
}

template <class T>
nb::ndarray<nb::numpy, T, nb::ndim<1>> owned_array(const std::vector<T>& values) {
  T* copy = new T[values.size()];
  std::copy(values.begin(), values.end(), copy);
  const nb::capsule owner(copy, [](void* p) noexcept { delete[] static_cast<T*>(p); });
  return {copy, {values.size()}, owner};
}

auto top_k(ConstFloats1 values, int64_t k) {
  const auto n = static_cast<int64_t>(values.shape(0));
  if (k < 1 || k > n) {
    throw std::invalid_argument("top_k: k must lie in 1.." + std::to_string(n) + ", got " +
                                std::to_string(k));
  }
  const std::vector<Choice> best = largest(values.data(), n, static_cast<size_t>(k));
  std::vector<int32_t> ids;
  std::vector<float> chosen;
  for (const Choice& choice : best) {
    chosen.push_back(choice.first);
    ids.push_back(choice.second);
  }
  return nb::make_tuple(owned_array(ids), owned_array(chosen));
}

}  // namespace

void bind_matmul(nb::module_& module) {
  module.def("matmul", &matmul, nb::arg("w"), nb::arg("x").noconvert(), nb::arg("out").noconvert(),
             "out (T,R) = x (T,C) · w^T.");
  module.def("matmul_group", &matmul_group, nb::arg("weights"), nb::arg("x").noconvert(),
             nb::arg("outs").noconvert(), "Several products of one input in one parallel region.");
  module.def("logits", &logits, nb::arg("head"), nb::arg("hidden").noconvert(), nb::arg("softcap"),
             nb::arg("out").noconvert(),
             "out (T,V) = softcap · tanh(hidden (T,d) · head^T / softcap); 0 = no cap.");
  module.def(
      "argmax", &argmax, nb::arg("values").noconvert(),
      "Index of the largest value, the lowest of equals. Raises ValueError if there is no number.");
  module.def(
      "top_k", &top_k, nb::arg("values").noconvert(), nb::arg("k"),
      "(ids i32, values f32) of the k largest, sorted, ties to the lower id; NaN is never chosen.");
}

}  // namespace matryo
