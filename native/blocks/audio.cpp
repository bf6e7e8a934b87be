// Feed-forward and norms of the sound encoder.
#include "blocks/audio.h"

#include <algorithm>
#include <cmath>

#include "blocks/norms.h"
#include "dispatch.h"
#include "matrix.h"
#include "pool.h"
#include "scratch.h"

namespace matryo {
namespace {

constexpr int64_t kMostFrames = 512;  // bounds the scratch of a long call

// Rows of one block of frames, and what lies between the two products.
struct FeedForwardRows {
  FeedForwardRows(Scratch& scratch, const AudioFeedForward& call, int64_t most)
      : width(call.down.rows),
        units(call.up.rows),
        normed(scratch.take<float>(most * width)),
        codes(scratch.take<QuantizedGroup>(most * groups_of(width))),
        act(is_quantized(call.down.kind) ? nullptr : scratch.take<float>(most * units)),
        act_codes(is_quantized(call.down.kind) ? scratch.take<QuantizedGroup>(most * act_groups())
                                               : nullptr),
        total(scratch.take<float>(most * total_stride())) {}

  static size_t bytes(const AudioFeedForward& call, int64_t most) {
    const int64_t width = call.down.rows, units = call.up.rows;
    return Scratch::bytes<float>(most * width) +
           Scratch::bytes<QuantizedGroup>(most * groups_of(width)) +
           (is_quantized(call.down.kind) ? Scratch::bytes<QuantizedGroup>(most * groups_of(units))
                                         : Scratch::bytes<float>(most * units)) +
           Scratch::bytes<float>(most * (width + kRowPadding));
  }

  int64_t act_groups() const { return groups_of(units); }
  int64_t total_stride() const { return width + kRowPadding; }

  int64_t width, units;
  float* normed;
  QuantizedGroup* codes;
  float* act;
  QuantizedGroup* act_codes;
  float* total;
};

void norm_phase(const Worker& worker, const AudioFeedForward& call, const FeedForwardRows& rows,
                const float* x, int64_t frames) {
  const auto [first, last] = worker.slice(frames);
  for (int64_t t = first; t < last; ++t) {
    float* row = rows.normed + t * rows.width;
    kernels().clip_row(x + t * rows.width, rows.width, call.clip, row);
    rms_norm_row(row, rows.width, call.pre_norm, call.eps, row);
    if (is_quantized(call.up.kind)) {
      kernels().quantize_row(row, rows.width, rows.codes + t * groups_of(rows.width));
    }
  }
}

void add_phase(const Worker& worker, const AudioFeedForward& call, const FeedForwardRows& rows,
               const float* x, int64_t frames, float* out) {
  const auto [first, last] = worker.slice(frames);
  for (int64_t t = first; t < last; ++t) {
    float* row = rows.total + t * rows.total_stride();
    kernels().clip_row(row, rows.width, call.clip, row);
    const float factor = rms_factor(row, rows.width, call.eps) * call.gain;
    kernels().add_norm_row(row, rows.width, factor, call.post_norm, x + t * rows.width, 1.0f,
                           out + t * rows.width);
  }
}

void run_frames(const AudioFeedForward& call, const FeedForwardRows& rows, const float* x,
                int64_t frames, float* out) {
  const auto count = static_cast<int32_t>(frames);
  const TokenRows inputs = {rows.normed, rows.width, rows.codes, groups_of(rows.width), count};
  const TokenRows hidden = {rows.act, rows.units, rows.act_codes, rows.act_groups(), count};
  const SiluJob up = {call.up,    rows.units,     rows.width,       rows.act,
                      rows.units, rows.act_codes, rows.act_groups()};
  const ProductJob down = {call.down, rows.total, rows.total_stride(), rows.width, rows.units};
  pool().run([&](Worker& worker) {
    norm_phase(worker, call, rows, x, frames);
    worker.barrier();
    silu_phase(worker, inputs, up);
    worker.barrier();
    product_phase(worker, hidden, &down, 1);
    worker.barrier();
    add_phase(worker, call, rows, x, frames, out);
  });
}

}  // namespace

void audio_feed_forward(const AudioFeedForward& call, const float* x, int64_t frames, float* out) {
  if (frames == 0) return;
  const int64_t most = std::min(frames, kMostFrames);
  Scratch scratch(FeedForwardRows::bytes(call, most));
  const FeedForwardRows rows(scratch, call, most);
  for (int64_t first = 0; first < frames; first += most) {
    const int64_t offset = first * rows.width;
    run_frames(call, rows, x + offset, std::min(most, frames - first), out + offset);
  }
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
