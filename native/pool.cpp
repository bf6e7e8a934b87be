#include "pool.h"

#include <algorithm>
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

using Clock = std::chrono::steady_clock;
using Microseconds = std::chrono::microseconds;

constexpr Microseconds kSpin{100};  // two calls of a forward pass are closer than that

thread_local bool inside_region = false;

inline void pause() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Looks at `done` for so long; returns whether it came true.
template <class Done>
bool spin_until(Microseconds limit, const Done& done) {
  const auto start = Clock::now();
  do {
    for (int i = 0; i < kPausesPerClockRead; ++i) {
      if (done()) return true;
      pause();
    }
  } while (Clock::now() - start < limit);
  return done();
}

// A number that threads wait on: spin first, then sleep until it changes. Never yield: a scheduler
// that shares by deadlines takes it as giving up the whole slice, some 10 ms on a crowded machine,
// while who sleeps is let in again soon after it wakes.
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
    const bool seen = spin_until(kSpin, [&] { return value() != old; });
    if (!seen) sleep_while(old);
  }

 private:
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

// How long the next region waits for threads that are not spinning at its beginning. Not at all for
// a while after one did not come, longer each time: on a crowded machine it may take milliseconds.
class Patience {
 public:
  Microseconds now() const {
    return complete_ || Clock::now() > retry_at_ ? length_ : Microseconds(0);
  }
  void note(bool complete) {
    if (complete) {
      length_ = std::min(length_ + length_ / 8, kLongest);
      pause_ = kShortestPause;
    } else if (const auto time = Clock::now(); complete_ || time > retry_at_) {
      length_ = std::max(length_ / 2, kShortest);
      retry_at_ = time + pause_;
      pause_ = std::min(2 * pause_, kLongestPause);
    }
    complete_ = complete;
  }

 private:
  static constexpr Microseconds kShortest{50}, kLongest{1000};
  static constexpr Microseconds kShortestPause{500}, kLongestPause{8000};
  bool complete_ = true;
  Microseconds length_ = kLongest, pause_ = kShortestPause;
  Clock::time_point retry_at_{};
};

}  // namespace

// The threads of one team size.
//
// A region begins with boarding: the caller takes seat 0 and opens it, threads that run now take
// the next seats, and it closes when all are aboard or the caller has waited long enough. Who comes
// later skips the region, so nobody ever waits for a thread that did not start; the caller may end
// up alone. Seats are the thread numbers of the region.
struct Team {
  explicit Team(int count) : num_threads(count) {
    for (int i = 1; i < count; ++i) threads_.emplace_back([this] { work(); });
  }

  ~Team() {
    stopping_.store(true);
    begin_.advance();
    for (std::thread& thread : threads_) thread.join();
  }

  void run(void (*function)(Worker&, void*), void* context) {
    function_ = function;
    context_ = context;
    enter(0, num_threads == 1 ? 1 : board_team());
  }

  void barrier(const Worker& worker) {
    if (worker.num_threads == 1) return restart_counters();
    const uint32_t phase = passed_.value();
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 < worker.num_threads) {
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
  static constexpr uint32_t kOpen = 1u << 31;

  // Opens the region, waits for the team, closes it; returns how many are aboard.
  int board_team() {
    const auto all = static_cast<uint32_t>(num_threads);
    seats_.store(kOpen | 1, std::memory_order_release);
    begin_.advance();
    // Who missed the last region comes by itself: look, but do not wait.
    spin_until(patience_.now(),
               [&] { return seats_.load(std::memory_order_acquire) == (kOpen | all); });
    const uint32_t taken = seats_.fetch_and(~kOpen, std::memory_order_acq_rel) & ~kOpen;
    patience_.note(taken == all);
    closed_.advance();
    return static_cast<int>(taken);
  }

  // Takes a seat of the region that is open now and waits until it is known who is aboard; 0 if
  // none is open.
  int board() {
    uint32_t taken = seats_.load(std::memory_order_acquire);
    do {
      if ((taken & kOpen) == 0) return 0;
    } while (!seats_.compare_exchange_weak(taken, taken + 1, std::memory_order_acq_rel));
    for (;;) {
      const uint32_t closed = closed_.value();
      const uint32_t now = seats_.load(std::memory_order_acquire);
      if ((now & kOpen) == 0 || (now & ~kOpen) == static_cast<uint32_t>(num_threads)) break;
      closed_.wait_while(closed);
    }
    return static_cast<int>(taken & ~kOpen);
  }

  void enter(int seat, int aboard) {
    Worker worker;
    worker.thread = seat;
    worker.num_threads = aboard;
    worker.team_ = this;
    inside_region = true;
    function_(worker, context_);
    barrier(worker);
    inside_region = false;
  }

  void work() {
    uint32_t seen = 0;
    for (;;) {
      begin_.wait_while(seen);
      seen = begin_.value();
      if (stopping_.load()) return;
      const int seat = board();
      if (seat > 0) enter(seat, static_cast<int>(seats_.load(std::memory_order_acquire) & ~kOpen));
    }
  }

  void restart_counters() {
    for (Counter& counter : counters_) counter.value.store(0, std::memory_order_relaxed);
  }

  Gate begin_, closed_, passed_;
  std::atomic<uint32_t> seats_{0};
  std::atomic<int> arrived_{0};
  std::atomic<bool> stopping_{false};
  Patience patience_;
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

void Worker::barrier() { team_->barrier(*this); }
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
