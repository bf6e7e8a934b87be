// Which instruction sets this CPU has, and the kernel table in use.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace matryo {

// Tables this CPU can run, best first; "scalar" is always the last one.
const std::vector<const Kernels*>& available_kernels();

// The table in use; the best one until select_kernels is called.
const Kernels& kernels();

// Throws std::invalid_argument naming the available ones. Not while another thread runs kernels.
void select_kernels(const std::string& name);

}  // namespace matryo
