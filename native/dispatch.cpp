#include "dispatch.h"

#include <atomic>
#include <stdexcept>

#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace matryo {

extern const Kernels kernels_scalar;
#if defined(__x86_64__)
extern const Kernels kernels_avx2, kernels_avx512;
#elif defined(__aarch64__)
extern const Kernels kernels_neon, kernels_neondot;
#endif

namespace {

// libgcc's and compiler-rt's check covers the operating system's part too (xgetbv): a kernel that
// does not save the wide registers counts as a CPU without them.
std::vector<const Kernels*> detect() {
  std::vector<const Kernels*> tables;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#if defined(MATRYO_EMULATE_AVX512)
  const bool avx512 = avx2;
#else
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
#endif
  if (avx512) tables.push_back(&kernels_avx512);
  if (avx2) tables.push_back(&kernels_avx2);
#elif defined(__aarch64__)
#if defined(__APPLE__)
  tables.push_back(&kernels_neondot);  // every Apple M CPU has it
#elif defined(__linux__)
  if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) tables.push_back(&kernels_neondot);
#endif
  tables.push_back(&kernels_neon);
#endif
  tables.push_back(&kernels_scalar);
  return tables;
}

std::atomic<const Kernels*>& selected() {
  static std::atomic<const Kernels*> table{available_kernels().front()};
  return table;
}

}  // namespace

const std::vector<const Kernels*>& available_kernels() {
  static const std::vector<const Kernels*> tables = detect();
  return tables;
}

const Kernels& kernels() { return *selected().load(std::memory_order_relaxed); }

void select_kernels(const std::string& name) {
  std::string allowed;
  for (const Kernels* table : available_kernels()) {
    if (name == table->name) {
      selected().store(table);
      return;
    }
    allowed += allowed.empty() ? table->name : std::string(", ") + table->name;
  }
  throw std::invalid_argument("instruction set '" + name +
                              "' is not available here; expected one of " + allowed);
}

}  // namespace matryo
