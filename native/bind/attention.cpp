#include "bind.h"

namespace matryo {

void bind_attention(nb::module_&) {}

}  // namespace matryo
