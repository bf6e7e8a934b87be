// One process-wide team of threads that runs one parallel region at a time.
//
//   pool().run([&](Worker& worker) {     // on every thread of the team; the caller is thread 0
//     for (int64_t i; (i = worker.next()) < chunks;) work(i);  // chunks handed out dynamically
//     worker.barrier();                  // everybody waits for everybody; slots restart
//     auto [first, last] = worker.slice(total);                // or a static share
//     ...
//   });                                  // returns when the body has ended on every thread
//
// Rules inside a region: no exceptions, no Python, no nested run(), the same number of barriers on
// every thread; allocate before (scratch.h). Which thread does which chunk must never change a
// value.
//
// Waiting is a spin of about 100 us (two calls of a forward pass are closer than that) and then a
// sleep, so an idle model costs no CPU. After 5 us the spin yields between its looks: on a crowded
// machine the thread waited for may need this very core. Concurrent callers take turns (a mutex).
// After fork() the child starts a new team at its next run(). The team is never destroyed at exit:
// sleeping threads die with the process and no destructor has to wait for them.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

namespace matryo {

struct Team;

class Worker {
 public:
  int thread = 0;  // 0 .. num_threads - 1
  int num_threads = 1;

  // Waits until all threads of the region have arrived, then restarts every chunk counter.
  void barrier();

  // The next chunk index of this phase (0, 1, 2, ... over all threads). Four independent counters.
  int64_t next(int slot = 0);

  // The static share [first, last) of `total` items of this thread, cut at multiples of `unit`.
  std::pair<int64_t, int64_t> slice(int64_t total, int64_t unit = 1) const;

 private:
  friend struct Team;
  Team* team_ = nullptr;
};

class Pool {
 public:
  // Runs body(worker) on every thread. Throws std::logic_error when called inside a region.
  template <class Body>
  void run(Body&& body) {
    run_function([](Worker& worker, void* context) { (*static_cast<Body*>(context))(worker); },
                 const_cast<void*>(static_cast<const void*>(&body)));
  }

  int threads() const;
  // Between 1 and 256; std::invalid_argument otherwise. Waits for a running region.
  void set_threads(int threads);
  // How long a waiting thread spins before it sleeps, in microseconds (default 100).
  void set_spin_us(int microseconds);

 private:
  void run_function(void (*function)(Worker&, void*), void* context);
};

Pool& pool();

}  // namespace matryo
