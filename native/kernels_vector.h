// The second part of the kernel table: vector, attention and AltUp kernels.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace matryo {

struct VectorKernels {};

}  // namespace matryo
