#include "bind.h"

namespace matryo {

void bind_blocks(nb::module_&) {}

}  // namespace matryo
