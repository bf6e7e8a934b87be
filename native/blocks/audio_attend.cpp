// Banded attention of the sound encoder: frame by frame and head by head.
#include "blocks/audio.h"
#include "dispatch.h"
#include "pool.h"
#include "scratch.h"

namespace matryo {

void audio_attend(const BandedAttention& call, float* out) {
  if (call.frames == 0) return;
  const int64_t keys = call.past + 1, stride = call.heads * call.head_dim;
  const int64_t room = (keys + 15) / 16 * 16 + (call.head_dim + 15) / 16 * 16;
  const int threads = pool().threads();
  Scratch scratch(Scratch::bytes<float>(threads * room));
  float* scores = scratch.take<float>(threads * room);
  pool().run([&](Worker& worker) {
    const auto [first, last] = worker.slice(call.frames * call.heads);
    for (int64_t i = first; i < last; ++i) {
      const int64_t t = i / call.heads, head = i % call.heads * call.head_dim;
      const int64_t row = t * stride + head;
      kernels().attend_frame({call.q + row, call.scale, call.k + row, call.v + row,
                              call.position + head, call.valid + t, stride,
                              static_cast<int32_t>(keys), static_cast<int32_t>(call.head_dim),
                              call.cap, scores + worker.thread * room, out + row});
    }
  });
}

}  // namespace matryo
