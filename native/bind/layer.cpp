// Segment and Layer: references to packed matrices and vectors, checked once when they are made.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <vector>

#include "bind.h"
#include "matrix.h"

namespace matryo {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw std::invalid_argument("Layer: " + what); }

std::string size_text(int64_t rows, int64_t cols) {
  return "(" + std::to_string(rows) + ", " + std::to_string(cols) + ")";
}

// Reads the keyword arguments of Layer by name and remembers what has to stay alive.
class Fields {
 public:
  explicit Fields(nb::kwargs given) : given_(std::move(given)) {}

  nb::object get(const char* name) {
    ++used_;
    if (!given_.contains(name)) refuse(std::string(name) + " is missing");
    return given_[name];
  }

  bool is_none(const char* name) { return given_.contains(name) && given_[name].is_none(); }

  template <class T>
  T value(const char* name) {
    T out{};
    if (!nb::try_cast<T>(get(name), out, false)) refuse(std::string(name) + " has the wrong type");
    return out;
  }

  // A C-contiguous float32 array of exactly this shape; rows 0 = one dimension.
  const float* vector(const char* name, int64_t rows, int64_t cols) {
    nb::ndarray<const float, nb::c_contig, nb::device::cpu> array;
    if (!nb::try_cast(get(name), array, false))
      refuse(std::string(name) + " must be a C-contiguous float32 array");
    const bool same = rows == 0
                          ? array.ndim() == 1 && static_cast<int64_t>(array.shape(0)) == cols
                          : array.ndim() == 2 && static_cast<int64_t>(array.shape(0)) == rows &&
                                static_cast<int64_t>(array.shape(1)) == cols;
    if (!same) {
      refuse(std::string(name) + " must have shape " +
             (rows == 0 ? "(" + std::to_string(cols) + ")" : size_text(rows, cols)));
    }
    return array.data();
  }

  MatrixView panel(const char* name, int64_t rows, int64_t cols) {
    const MatrixView view = matrix(name);
    if (view.layout != kPanelLayout || view.rows != rows || view.cols != cols) {
      refuse(std::string(name) + " must be a panel matrix of " + size_text(rows, cols) +
             ", got a " + layout_name(view.layout) + " matrix of " +
             size_text(view.rows, view.cols));
    }
    return view;
  }

  MatrixView matrix(const char* name) {
    const Matrix* held = nullptr;
    if (!nb::try_cast<const Matrix*>(get(name), held, false) || held == nullptr) {
      refuse(std::string(name) + " must be a Matrix");
    }
    return held->view;
  }

  void done() const {
    if (nb::len(nb::handle(given_)) != used_) refuse("got an argument it does not know");
  }

  nb::object owned() const { return nb::borrow(given_); }

 private:
  nb::kwargs given_;
  size_t used_ = 0;
};

void check_segment(const SegmentView& segment, int64_t d, bool sparse) {
  const int64_t units = segment.gate.rows;
  const bool gate = segment.gate.layout == kPanelLayout && segment.gate.cols == d;
  const Layout layout = sparse ? kRowsLayout : kPanelLayout;
  const bool up = segment.up.layout == layout && segment.up.rows == units && segment.up.cols == d;
  const bool down = segment.down.layout == layout && segment.down.rows == (sparse ? units : d) &&
                    segment.down.cols == (sparse ? d : units);
  const bool kinds = segment.up.kind == segment.gate.kind && segment.down.kind == segment.gate.kind;
  if (gate && up && down && kinds && units % kGroup == 0) return;
  refuse(std::string("a segment of a ") + (sparse ? "sparse" : "dense") +
         " layer needs gate, up and down of one kind, as panel" +
         (sparse ? ", rows and rows" : " matrices") + ", for a multiple of 32 units and " +
         std::to_string(d) + " columns");
}

void construct_segment(Segment* self, nb::object gate, nb::object up, nb::object down) {
  const SegmentView view = {nb::cast<const Matrix&>(gate).view, nb::cast<const Matrix&>(up).view,
                            nb::cast<const Matrix&>(down).view};
  new (self) Segment{view, std::move(gate), std::move(up), std::move(down)};
}

void construct_layer(Layer* self, nb::kwargs given) {
  Fields fields(given);
  LayerView view{};
  view.num_heads = fields.value<int32_t>("num_heads");
  view.num_kv_heads = fields.value<int32_t>("num_kv_heads");
  view.head_dim = fields.value<int32_t>("head_dim");
  // By way of double: a cast to float would refuse what float rounds.
  view.eps = static_cast<float>(fields.value<double>("eps"));
  view.sparsity_z = static_cast<float>(fields.value<double>("sparsity_z"));
  if (view.num_heads < 1 || view.num_kv_heads < 1 || view.num_heads % view.num_kv_heads != 0 ||
      view.head_dim < 2 || view.head_dim % 2 != 0) {
    refuse("num_heads must be a multiple of num_kv_heads, and head_dim even");
  }
  const int64_t d = fields.matrix("q").cols;
  fields = Fields(given);  // starts to count again
  for (const char* read : {"num_heads", "num_kv_heads", "head_dim", "eps", "sparsity_z"})
    fields.get(read);
  const int64_t queries = int64_t{view.num_heads} * view.head_dim,
                keys = int64_t{view.num_kv_heads} * view.head_dim;
  view.hidden_size = d;
  view.router_norm = fields.vector("router_norm", 0, d);
  view.router = fields.vector("router", kStreams, d);
  view.prediction_coefs = fields.vector("prediction_coefs", kStreams * kStreams, kStreams);
  view.correction_coefs = fields.vector("correction_coefs", kStreams, kStreams);
  view.correct_output_scale = fields.vector("correct_output_scale", 0, d);
  view.input_norm = fields.vector("input_norm", 0, d);
  view.post_attention_norm = fields.vector("post_attention_norm", 0, d);
  view.pre_ffn_norm = fields.vector("pre_ffn_norm", 0, d);
  view.post_ffn_norm = fields.vector("post_ffn_norm", 0, d);
  view.post_ple_norm = fields.vector("post_ple_norm", 0, d);
  view.post_laurel_norm = fields.vector("post_laurel_norm", 0, d);
  view.q_norm = fields.vector("q_norm", 0, view.head_dim);
  view.q = fields.panel("q", queries, d);
  view.o = fields.panel("o", d, queries);
  const bool reader = fields.is_none("k") && fields.is_none("v") && fields.is_none("k_norm");
  if (reader) {
    for (const char* name : {"k", "v", "k_norm"}) fields.get(name);
  } else {
    view.k = fields.panel("k", keys, d);
    view.v = fields.panel("v", keys, d);
    view.k_norm = fields.vector("k_norm", 0, view.head_dim);
  }
  view.laurel_left = fields.matrix("laurel_left");
  const int64_t rank = view.laurel_left.rows;
  if (view.laurel_left.layout != kPanelLayout || view.laurel_left.cols != d)
    refuse("laurel_left must be a panel matrix (r, d)");
  view.laurel_right = fields.panel("laurel_right", d, rank);
  view.ple_gate = fields.matrix("ple_gate");
  const int64_t ple = view.ple_gate.rows;
  if (view.ple_gate.layout != kPanelLayout || view.ple_gate.cols != d)
    refuse("ple_gate must be a panel matrix (P, d)");
  view.ple_projection = fields.panel("ple_projection", d, ple);
  for (const Segment* segment : fields.value<std::vector<const Segment*>>("segments")) {
    check_segment(segment->view, d, view.sparsity_z != 0.0f);
    view.segments.push_back(segment->view);
  }
  fields.done();
  new (self) Layer{std::move(view), fields.owned()};
}

}  // namespace

void bind_layer(nb::module_& module) {
  nb::class_<Segment>(module, "Segment", "The FFN units one shell adds to a layer.")
      .def("__init__", &construct_segment, nb::arg("gate"), nb::arg("up"), nb::arg("down"));
  nb::class_<Layer>(module, "Layer",
                    "One decoder layer: keyword arguments as in docs/architecture.md section 3. "
                    "Raises ValueError naming "
                    "what does not fit.")
      .def("__init__", &construct_layer);
}

}  // namespace matryo
