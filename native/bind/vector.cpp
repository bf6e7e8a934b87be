#include "bind.h"

namespace matryo {

void bind_vector(nb::module_&) {}

}  // namespace matryo
