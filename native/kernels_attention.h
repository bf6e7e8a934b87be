// The third part of the kernel table: rotation, K/V pages, attention.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace matryo {

struct AttentionKernels {};

}  // namespace matryo
