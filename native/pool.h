// One process-wide team of threads that runs one parallel region at a time, also on a crowded
// machine.
//
//   pool().run([&](Worker& worker) {     // on every thread that comes; the caller is thread 0
//     for (int64_t i; (i = worker.next()) < chunks;) work(i);  // chunks handed out dynamically
//     worker.barrier();                  // everybody waits for everybody; slots restart
//     auto [first, last] = worker.slice(total);                // or a static share
//     ...
//   });                                  // returns when the body has ended on every thread
//
// Rules inside a region: no exceptions, no Python, no nested run(), the same number of barriers on
// every thread; allocate before (scratch.h). Which thread does which chunk, and how many threads
// there are, must never change a value.
//
// A region is of those threads of the team that come when it begins: at most pool().threads(), at
// least the caller, who waits for nobody that does not run (pool.cpp). Waiting is a spin of about
// 100 us (two calls of a forward pass are closer than that) and then a sleep, so an idle model
// costs no CPU. Concurrent callers take turns (a mutex). After fork() the child starts a new team
// at its next run(). The team is never destroyed at exit: sleeping threads die with the process and
// no destructor has to wait for them.
#pragma once

#include <atomic>
#include <cstdint>
#include <utility>

namespace matryo {

struct Team;

class Worker {
 public:
  int thread = 0;       // 0 .. num_threads - 1
  int num_threads = 1;  // of this region

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
  // Runs body(worker) on every thread that comes. Throws std::logic_error when called inside a
  // region.
  template <class Body>
  void run(Body&& body) {
    run_function([](Worker& worker, void* context) { (*static_cast<Body*>(context))(worker); },
                 const_cast<void*>(static_cast<const void*>(&body)));
  }

  int threads() const;
  // Between 1 and 256; std::invalid_argument otherwise. Waits for a running region.
  void set_threads(int threads);

 private:
  void run_function(void (*function)(Worker&, void*), void* context);
};

Pool& pool();

}  // namespace matryo
