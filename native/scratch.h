// Temporary arrays of a native call: a grow-only buffer of the calling thread, reused from call to
// call.
//
//   Scratch scratch(Scratch::bytes<float>(T * d) + Scratch::bytes<QuantizedGroup>(T * groups));
//   float* normed = scratch.take<float>(T * d);
//
// Pointers are 64-byte aligned and valid until the next Scratch of the same thread; contents are
// left from before. Make it before Pool::run: inside a region nothing allocates.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>

namespace matryo {

class Scratch {
 public:
  explicit Scratch(size_t bytes);  // throws std::bad_alloc

  template <class T>
  static constexpr size_t bytes(int64_t count) {
    return (static_cast<size_t>(count) * sizeof(T) + 63) & ~static_cast<size_t>(63);
  }

  template <class T>
  T* take(int64_t count) {
    uint8_t* start = next_;
    next_ += bytes<T>(count);
    if (next_ > end_) throw std::logic_error("scratch: more taken than reserved");
    return reinterpret_cast<T*>(start);
  }

 private:
  uint8_t* next_;
  uint8_t* end_;
};

}  // namespace matryo
