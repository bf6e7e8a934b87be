#include "bind.h"

namespace matryo {

void bind_feed_forward(nb::module_&) {}

}  // namespace matryo
