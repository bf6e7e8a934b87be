// Products of the sound encoder with the norms around them, light convolution and the stem's norm.
#include "blocks/audio.h"

#include <algorithm>
#include <cmath>

#include "blocks/norms.h"
#include "dispatch.h"
#include "pool.h"
#include "scratch.h"

namespace matryo {
namespace {

constexpr int64_t kMostFrames = 768;  // bounds the scratch of a long call

// body(first frame, frames) for pieces of equal size.
template <class Body>
void for_pieces(int64_t frames, const Body& body) {
  const int64_t pieces = (frames + kMostFrames - 1) / kMostFrames;
  for (int64_t i = 0; i < pieces; ++i) {
    const int64_t first = frames * i / pieces;
    body(first, frames * (i + 1) / pieces - first);
  }
}

int64_t most_frames(int64_t frames) { return std::min(frames, kMostFrames); }

void clipped_norm_row(const float* x, int64_t width, const float* norm, float clip, float eps,
                      float* out) {
  kernels().clip_row(x, width, clip, out);
  rms_norm_row(out, width, norm, eps, out);
}

// out = residual + gain · rms(clipped(x)); x is overwritten.
void add_clipped_row(float* x, int64_t width, const float* norm, float clip, float eps, float gain,
                     const float* residual, float* out) {
  kernels().clip_row(x, width, clip, x);
  kernels().add_norm_row(x, width, rms_factor(x, width, eps) * gain, norm, residual, 1.0f, out);
}

void copy_tile(const Tile& tile, float* out, int64_t stride) {
  for (int64_t t = 0; t < tile.count; ++t) {
    std::copy_n(tile.room.sums + t * TileRoom::kStride, tile.columns,
                out + (tile.first + t) * stride + tile.column);
  }
}

}  // namespace

void audio_feed_forward(const AudioFeedForward& call, const float* x, int64_t frames, float* out) {
  if (frames == 0) return;
  const int64_t width = call.down.rows, units = call.up.rows, most = most_frames(frames);
  const int64_t stride = width + kRowPadding;
  const int threads = pool().threads();
  Scratch scratch(PackedRows::bytes(most, width, call.up.codes()) +
                  PackedRows::bytes(most, units, call.down.codes()) +
                  Scratch::bytes<float>(most * stride) + TileRooms::bytes(width, threads));
  const PackedRows normed(scratch, most, width, call.up.codes());
  const PackedRows hidden(scratch, most, units, call.down.codes());
  float* total = scratch.take<float>(most * stride);
  const TileRooms rooms(scratch, width, threads);
  for_pieces(frames, [&](int64_t start, int64_t count) {
    const float* from = x + start * width;
    float* to = out + start * width;
    pool().run([&](Worker& worker) {
      pack_phase(worker, rooms, normed, count, width, [&](int64_t t, float* row) {
        clipped_norm_row(from + t * width, width, call.pre_norm, call.clip, call.eps, row);
      });
      worker.barrier();
      // A chunk of units is a block of what the second product reads.
      multiply_phase(worker, rooms, &call.up, 1, normed, count, kChunkPanels,
                     [&](int64_t, const Tile& tile) {
                       for (int64_t t = 0; t < tile.count; ++t) {
                         kernels().silu_row(tile.room.sums + t * TileRoom::kStride, tile.columns);
                       }
                       hidden.pack(tile.first, tile.count, tile.column / kBlockColumns,
                                   tile.room.sums, TileRoom::kStride);
                     });
      worker.barrier();
      multiply_phase(worker, rooms, &call.down, 1, hidden, count, chunk_panels(count),
                     [&](int64_t, const Tile& tile) { copy_tile(tile, total, stride); });
      worker.barrier();
      const auto [first, last] = worker.slice(count);
      for (int64_t t = first; t < last; ++t) {
        float* row = to + t * width;
        add_clipped_row(total + t * stride, width, call.post_norm, call.clip, call.eps, call.gain,
                        from + t * width, row);
        if (call.end_norm == nullptr) continue;
        clipped_norm_row(row, width, call.end_norm, call.clip, call.eps, row);
      }
    });
  });
}

void audio_project(const AudioProjection& call, const float* x, int64_t frames,
                   float* const* outs) {
  if (frames == 0 || call.count == 0) return;
  const int64_t depth = call.ws[0].cols, most = most_frames(frames);
  const bool codes = call.ws[0].codes();
  const int threads = pool().threads();
  Scratch scratch(PackedRows::bytes(most, depth, codes) + TileRooms::bytes(depth, threads));
  const PackedRows packed(scratch, most, depth, codes);
  const TileRooms rooms(scratch, depth, threads);
  for_pieces(frames, [&](int64_t start, int64_t count) {
    const float* from = x + start * depth;
    pool().run([&](Worker& worker) {
      if (call.norm == nullptr) {
        pack_phase(worker, packed, count, from, depth);
      } else {
        pack_phase(worker, rooms, packed, count, depth, [&](int64_t t, float* row) {
          clipped_norm_row(from + t * depth, depth, call.norm, call.clip, call.eps, row);
        });
      }
      worker.barrier();
      multiply_phase(worker, rooms, call.ws, call.count, packed, count, chunk_panels(count),
                     [&](int64_t i, const Tile& tile) {
                       copy_tile(tile, outs[i] + start * call.ws[i].rows, call.ws[i].rows);
                     });
    });
  });
}

void audio_add(const AudioAddition& call, const float* x, const float* residual, int64_t frames,
               float* out) {
  if (frames == 0) return;
  const int64_t depth = call.w.cols, width = call.w.rows, most = most_frames(frames);
  const int64_t stride = width + kRowPadding;
  const int threads = pool().threads();
  Scratch scratch(PackedRows::bytes(most, depth, call.w.codes()) +
                  Scratch::bytes<float>(most * stride) + TileRooms::bytes(depth, threads));
  const PackedRows packed(scratch, most, depth, call.w.codes());
  float* total = scratch.take<float>(most * stride);
  const TileRooms rooms(scratch, depth, threads);
  for_pieces(frames, [&](int64_t start, int64_t count) {
    const float *from = x + start * depth, *added = residual + start * width;
    float* to = out + start * width;
    pool().run([&](Worker& worker) {
      pack_phase(worker, packed, count, from, depth);
      worker.barrier();
      multiply_phase(worker, rooms, &call.w, 1, packed, count, chunk_panels(count),
                     [&](int64_t, const Tile& tile) { copy_tile(tile, total, stride); });
      worker.barrier();
      const auto [first, last] = worker.slice(count);
      for (int64_t t = first; t < last; ++t) {
        float* row = total + t * stride;
        if (call.norm == nullptr) {
          kernels().add_row(row, added + t * width, width, to + t * width);
        } else {
          add_clipped_row(row, width, call.norm, call.clip, call.eps, 1.0f, added + t * width,
                          to + t * width);
        }
      }
    });
  });
}

void audio_light_conv(const LightConvolution& call, float* out) {
  if (call.frames == 0) return;
  const int64_t width = call.width, before = call.taps_count - 1;
  Scratch scratch(Scratch::bytes<float>((before + call.frames) * width));
  float* mixed = scratch.take<float>((before + call.frames) * width);
  std::copy_n(call.past, before * width, mixed);
  pool().run([&](Worker& worker) {
    const auto [first, last] = worker.slice(call.frames);
    for (int64_t t = first; t < last; ++t) {
      const float* gates = call.gates + 2 * t * width;
      kernels().gate_row(gates, gates + width, width, mixed + (before + t) * width);
    }
    worker.barrier();
    for (int64_t t = first; t < last; ++t) {
      float* row = out + t * width;
      kernels().convolve_row(mixed + t * width, call.taps, static_cast<int32_t>(call.taps_count),
                             width, call.clip, row);
      kernels().norm_silu_row(row, width, rms_factor(row, width, call.eps), call.norm, row);
    }
  });
  std::copy_n(mixed + call.frames * width, before * width, call.past);
}

void audio_group_norm(const float* x, int64_t frames, int64_t size, const float* weight,
                      double* sums, float eps, float* out) {
  if (frames == 0 || size == 0) return;
  Scratch scratch(Scratch::bytes<Moments>(frames) + 2 * Scratch::bytes<float>(frames));
  Moments* moments = scratch.take<Moments>(frames);
  float* means = scratch.take<float>(frames);
  float* factors = scratch.take<float>(frames);
  pool().run([&](Worker& worker) {
    const auto [first, last] = worker.slice(frames);
    for (int64_t t = first; t < last; ++t) moments[t] = kernels().moments(x + t * size, size);
    worker.barrier();
    if (worker.thread == 0) {
      const auto count = static_cast<double>(size);
      for (int64_t t = 0; t < frames; ++t) {
        sums[0] += 1.0;
        sums[1] += moments[t].mean * count;
        const double seen = sums[0] * count, mean = sums[1] / seen;
        const double distance = moments[t].mean - mean;
        sums[2] += (moments[t].variance + distance * distance) * count;
        means[t] = static_cast<float>(mean);
        factors[t] = static_cast<float>(1.0 / std::sqrt(sums[2] / seen + eps));
      }
    }
    worker.barrier();
    for (int64_t t = first; t < last; ++t) {
      kernels().center_row(x + t * size, size, means[t], factors[t], weight, out + t * size);
    }
  });
}

}  // namespace matryo
