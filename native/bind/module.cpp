// The module: control of instruction set and threads, and the other binding files.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <memory>
#include <vector>

#include "bind.h"
#include "dispatch.h"
#include "pool.h"

namespace matryo {
namespace {

std::vector<std::string> isa_names() {
  std::vector<std::string> names;
  for (const Kernels* table : available_kernels()) names.emplace_back(table->name);
  return names;
}

constexpr int64_t kReadPiece = 1 << 20;

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// GB/s (1e9 bytes) of reading a fresh buffer of `bytes` once, `repeats` times, with a team of
// `threads`.
std::vector<double> read_bandwidth(int64_t bytes, int threads, int repeats) {
  if (bytes < kReadPiece || repeats < 1) {
    throw std::invalid_argument("read_bandwidth: expected bytes >= 1048576 and repeats >= 1");
  }
  const int before = pool().threads();
  pool().set_threads(threads);
  const std::unique_ptr<uint8_t[]> buffer(new uint8_t[static_cast<size_t>(bytes)]());
  std::vector<double> rates;
  std::vector<uint64_t> sums(static_cast<size_t>(threads));
  for (int i = 0; i < repeats; ++i) {
    const double start = seconds();
    pool().run([&](Worker& worker) {
      uint64_t sum = 0;
      for (int64_t piece; (piece = worker.next() * kReadPiece) < bytes;) {
        sum += kernels().read_bytes(buffer.get() + piece, std::min(kReadPiece, bytes - piece));
      }
      sums[static_cast<size_t>(worker.thread)] = sum;
    });
    rates.push_back(static_cast<double>(bytes) / (seconds() - start) / 1e9);
  }
  pool().set_threads(before);
  return rates;
}

}  // namespace

void bind_control(nb::module_& module) {
  module.def("isas", &isa_names, "Instruction sets of this CPU, best first.");
  module.def("isa", [] { return std::string(kernels().name); }, "The instruction set in use.");
  module.def("set_isa", &select_kernels, nb::arg("name"),
             "Use another instruction set; not while another thread computes. Raises ValueError "
             "for an unknown one.");
  module.def("threads", [] { return pool().threads(); }, "Threads of a parallel region.");
  module.def(
      "set_threads", [](int threads) { pool().set_threads(threads); }, nb::arg("threads"),
      nb::call_guard<ReleasedGil>(), "Set the number of threads, 1..256. Raises ValueError.");
  module.def("read_bandwidth", &read_bandwidth, nb::arg("bytes"), nb::arg("threads"),
             nb::arg("repeats"), nb::call_guard<ReleasedGil>(),
             "GB/s of reading `bytes` of memory, once for each repeat: the roofline of decoding.");
}

}  // namespace matryo

NB_MODULE(_native, module) {
  matryo::bind_control(module);
  matryo::bind_matrix(module);
  matryo::bind_matmul(module);
  matryo::bind_layer(module);
  matryo::bind_vector(module);
  matryo::bind_attention(module);
  matryo::bind_feed_forward(module);
  matryo::bind_audio(module);
  matryo::bind_vision(module);
  matryo::bind_training(module);
}
