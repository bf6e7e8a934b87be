// The feed-forward block of a layer, over the first `width` units of its segments together.
#pragma once

#include <cstdint>

#include "layer.h"

namespace matryo {

// out (T, d) = hidden (T, d) + rms(ffn(rms(hidden))). `width` is a multiple of GROUP, at most
// layer.num_units().
void feed_forward(const LayerView& layer, const float* hidden, int64_t tokens, int64_t width,
                  float* out);

}  // namespace matryo
