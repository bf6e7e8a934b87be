#include "scratch.h"

#include <new>

namespace matryo {
namespace {

constexpr std::align_val_t kAlignment{64};

struct Buffer {
  uint8_t* data = nullptr;
  size_t size = 0;

  void reserve(size_t bytes) {
    if (bytes <= size) return;
    release();
    data = static_cast<uint8_t*>(::operator new(bytes, kAlignment));
    size = bytes;
  }

  void release() {
    if (data != nullptr) ::operator delete(data, kAlignment);
    data = nullptr;
    size = 0;
  }

  ~Buffer() { release(); }
};

thread_local Buffer buffer;

}  // namespace

Scratch::Scratch(size_t bytes) {
  buffer.reserve(bytes);
  next_ = buffer.data;
  end_ = buffer.data + buffer.size;
}

}  // namespace matryo
