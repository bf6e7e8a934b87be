#include "pool.h"

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#ifndef _WIN32
#include <pthread.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace matryo {
namespace {

constexpr int kMaxThreads = 256;
constexpr int kSlots = 4;
constexpr int kPausesPerClockRead = 32;
// A wait this long means imbalance or a crowded machine: let others have the core, perhaps the very
// thread waited for. On an idle machine a yield returns at once.
constexpr std::chrono::microseconds kYieldAfter{5};

std::atomic<int> spin_us{100};
thread_local bool inside_region = false;

inline void pause() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// A counter threads wait on: spin first, then sleep until someone advances it.
class Gate {
 public:
  uint32_t value() const { return value_.load(std::memory_order_acquire); }

  void advance() {
    // Sequentially consistent with sleepers_: either we see the sleeper or it sees the value.
    value_.fetch_add(1);
    if (sleepers_.load() == 0) return;
    std::lock_guard<std::mutex> lock(mutex_);
    changed_.notify_all();
  }

  void wait_while(uint32_t old) {
    if (!spin_while(old)) sleep_while(old);
  }

 private:
  bool spin_while(uint32_t old) const {
    using Clock = std::chrono::steady_clock;
    const auto limit = std::chrono::microseconds(spin_us.load(std::memory_order_relaxed));
    const auto start = Clock::now();
    auto now = start;
    do {
      for (int i = 0; i < kPausesPerClockRead; ++i) {
        if (value() != old) return true;
        pause();
      }
      if (now - start > kYieldAfter) std::this_thread::yield();
      now = Clock::now();
    } while (now - start < limit);
    return value() != old;
  }

  void sleep_while(uint32_t old) {
    std::unique_lock<std::mutex> lock(mutex_);
    sleepers_.fetch_add(1);
    changed_.wait(lock, [&] { return value_.load() != old; });
    sleepers_.fetch_sub(1);
  }

  std::atomic<uint32_t> value_{0};
  std::atomic<int> sleepers_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
};

struct alignas(64) Counter {
  std::atomic<int64_t> value{0};
};

}  // namespace

// The threads of one team size. Regions start by advancing `begin_` and end with a barrier.
struct Team {
  explicit Team(int count) : num_threads(count) {
    for (int i = 1; i < count; ++i) threads_.emplace_back([this, i] { work(i); });
  }

  ~Team() {
    stopping_.store(true);
    begin_.advance();
    for (std::thread& thread : threads_) thread.join();
  }

  void run(void (*function)(Worker&, void*), void* context) {
    function_ = function;
    context_ = context;
    if (num_threads > 1) begin_.advance();
    enter(0);
  }

  void barrier() {
    if (num_threads == 1) return restart_counters();
    const uint32_t phase = passed_.value();
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 < num_threads) {
      passed_.wait_while(phase);
      return;
    }
    arrived_.store(0, std::memory_order_relaxed);
    restart_counters();
    passed_.advance();
  }

  int64_t next(int slot) { return counters_[slot].value.fetch_add(1, std::memory_order_relaxed); }

  const int num_threads;

 private:
  void enter(int thread) {
    Worker worker;
    worker.thread = thread;
    worker.num_threads = num_threads;
    worker.team_ = this;
    inside_region = true;
    function_(worker, context_);
    barrier();
    inside_region = false;
  }

  void work(int thread) {
    uint32_t seen = 0;
    for (;;) {
      begin_.wait_while(seen);
      ++seen;
      if (stopping_.load()) return;
      enter(thread);
    }
  }

  void restart_counters() {
    for (Counter& counter : counters_) counter.value.store(0, std::memory_order_relaxed);
  }

  Gate begin_, passed_;
  std::atomic<int> arrived_{0};
  std::atomic<bool> stopping_{false};
  Counter counters_[kSlots];
  void (*function_)(Worker&, void*) = nullptr;
  void* context_ = nullptr;
  std::vector<std::thread> threads_;
};

namespace {

// Everything a forked child must not inherit in a half-used state; replaced there as a whole.
struct PoolState {
  std::mutex turn;  // one region at a time
  std::unique_ptr<Team> team;
};

std::atomic<int> team_size{0};
PoolState* state = nullptr;

// The child has none of the threads and maybe a locked mutex: forget the old state (leaked on
// purpose: destroying it would join threads that do not exist) and start afresh at the next run.
void forget_team() {
  state = new PoolState;
  inside_region = false;
}

int default_threads() {
  const unsigned count = std::thread::hardware_concurrency();
  return count == 0 ? 1 : std::min<int>(static_cast<int>(count), kMaxThreads);
}

}  // namespace

void Worker::barrier() { team_->barrier(); }
int64_t Worker::next(int slot) { return team_->next(slot); }

std::pair<int64_t, int64_t> Worker::slice(int64_t total, int64_t unit) const {
  const int64_t units = (total + unit - 1) / unit;
  const int64_t first = units * thread / num_threads * unit;
  const int64_t last = units * (thread + 1) / num_threads * unit;
  return {std::min(first, total), std::min(last, total)};
}

int Pool::threads() const { return team_size.load(); }

void Pool::set_threads(int threads) {
  if (threads < 1 || threads > kMaxThreads) {
    throw std::invalid_argument("threads: expected 1.." + std::to_string(kMaxThreads) + ", got " +
                                std::to_string(threads));
  }
  if (inside_region) throw std::logic_error("set_threads: called inside a parallel region");
  std::lock_guard<std::mutex> turn(state->turn);
  if (threads != team_size.load()) state->team.reset();
  team_size.store(threads);
}

void Pool::set_spin_us(int microseconds) { spin_us.store(microseconds); }

void Pool::run_function(void (*function)(Worker&, void*), void* context) {
  if (inside_region) throw std::logic_error("pool: run() called inside a parallel region");
  std::lock_guard<std::mutex> turn(state->turn);
  if (!state->team) state->team = std::make_unique<Team>(team_size.load());
  state->team->run(function, context);
}

Pool& pool() {
  static Pool* instance = [] {
    state = new PoolState;
    team_size.store(default_threads());
#ifndef _WIN32
    pthread_atfork(nullptr, nullptr, forget_team);
#endif
    return new Pool;
  }();
  return *instance;
}

}  // namespace matryo
