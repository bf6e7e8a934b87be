// The Matrix class, packing, gathering.
#include <nanobind/stl/string.h>

#include <vector>

#include "bind.h"
#include "matrix.h"
#include "storage.h"

namespace matryo {

std::string shape_text(const size_t* shape, size_t dimensions) {
  std::string text = "(";
  for (size_t i = 0; i < dimensions; ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + ")";
}

namespace {

using Stored = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
using Writable = nb::ndarray<nb::c_contig, nb::device::cpu>;

struct StoredShape {
  nb::dlpack::dtype type;
  size_t sizes[4];
  size_t dimensions;
};

// docs/architecture.md section 2.
StoredShape stored_shape(Kind kind, Layout layout, int64_t rows, int64_t cols) {
  const auto pieces =
      static_cast<size_t>(layout == kPanelLayout ? (rows + kPanel - 1) / kPanel : rows);
  const auto padded = static_cast<size_t>(groups_of(cols) * kGroup);
  const auto stride = static_cast<size_t>(storage_stride(kind, layout, cols));
  if (is_quantized(kind)) {
    if (layout == kRowsLayout) return {nb::dtype<uint8_t>(), {pieces, stride}, 2};
    const auto group_bytes = static_cast<size_t>(storage_stride(kind, layout, kGroup));
    return {nb::dtype<uint8_t>(), {pieces, padded / kGroup, group_bytes}, 3};
  }
  const nb::dlpack::dtype type = kind == kF32 ? nb::dtype<float>() : nb::dtype<uint16_t>();
  if (layout == kRowsLayout) return {type, {pieces, padded}, 2};
  if (kind == kF32) return {type, {pieces, padded, kPanel}, 3};
  return {type, {pieces, padded / 2, kPanel, 2}, 4};
}

std::string describe(Kind kind, Layout layout, int64_t rows, int64_t cols) {
  return std::string(kind_name(kind)) + " " + layout_name(layout) + " matrix of " +
         std::to_string(rows) + " x " + std::to_string(cols);
}

template <class ArrayType>
void expect_stored(const char* where, const ArrayType& array, Kind kind, Layout layout,
                   int64_t rows, int64_t cols) {
  const StoredShape wanted = stored_shape(kind, layout, rows, cols);
  bool same = array.ndim() == wanted.dimensions && array.dtype() == wanted.type;
  for (size_t i = 0; i < wanted.dimensions && same; ++i) same = array.shape(i) == wanted.sizes[i];
  if (same) return;
  std::vector<size_t> got;
  for (size_t i = 0; i < array.ndim(); ++i) got.push_back(array.shape(i));
  throw std::invalid_argument(std::string(where) + ": a " + describe(kind, layout, rows, cols) +
                              " is stored as " +
                              (is_quantized(kind) ? "uint8 "
                               : kind == kF32     ? "float32 "
                                                  : "uint16 ") +
                              shape_text(wanted.sizes, wanted.dimensions) + ", got shape " +
                              shape_text(got.data(), got.size()) + " of " +
                              std::to_string(array.dtype().bits) + "-bit elements");
}

void construct(Matrix* self, const std::string& kind_text, const std::string& layout_text,
               int64_t rows, int64_t cols, nb::object data) {
  const Kind kind = kind_from_name(kind_text);
  const Layout layout = layout_from_name(layout_text);
  constexpr int64_t kMost = 1 << 30;
  if (rows < 0 || cols < 0 || rows > kMost || cols > kMost) {
    throw std::invalid_argument("Matrix: rows and cols must lie in 0..2^30, got " +
                                std::to_string(rows) + " x " + std::to_string(cols));
  }
  Stored array;
  if (!nb::try_cast<Stored>(data, array, false)) {
    throw nb::type_error("Matrix: data must be a C-contiguous CPU array");
  }
  expect_stored("Matrix", array, kind, layout, rows, cols);
  const MatrixView view = {kind,
                           layout,
                           rows,
                           cols,
                           storage_stride(kind, layout, cols),
                           static_cast<const uint8_t*>(array.data())};
  new (self) Matrix{view, std::move(data)};
}

void pack_array(const std::string& kind_text, const std::string& layout_text, ConstFloats2 dense,
                Writable out) {
  const Kind kind = kind_from_name(kind_text);
  const Layout layout = layout_from_name(layout_text);
  const auto rows = static_cast<int64_t>(dense.shape(0)),
             cols = static_cast<int64_t>(dense.shape(1));
  expect_stored("pack", out, kind, layout, rows, cols);
  ReleasedGil release;
  pack(kind, layout, dense.data(), rows, cols, static_cast<uint8_t*>(out.data()));
}

void unpack_array(const Matrix& matrix, Floats2 out) {
  expect_shape("unpack", "out", out, {matrix.view.rows, matrix.view.cols});
  const MatrixView view = matrix.view;
  ReleasedGil release;
  unpack(view, out.data());
}

void gather_rows(const Matrix& w, ConstInts1 ids, float scale, Floats2 out) {
  const auto tokens = static_cast<int64_t>(ids.shape(0));
  expect_shape("gather", "out", out, {tokens, w.view.cols});
  const MatrixView view = w.view;
  ReleasedGil release;
  gather(view, ids.data(), tokens, scale, out.data());
}

void advise(const Matrix& w, ConstInts1 ids) {
  expect_layout("advise_rows", w.view, kRowsLayout);
  const MatrixView view = w.view;
  ReleasedGil release;
  advise_rows(view, ids.data(), static_cast<int64_t>(ids.shape(0)));
}

}  // namespace

void bind_matrix(nb::module_& module) {
  nb::class_<Matrix>(module, "Matrix",
                     "Stored weights: a read-only view of an array, kept alive, never copied.")
      .def("__init__", &construct, nb::arg("kind"), nb::arg("layout"), nb::arg("rows"),
           nb::arg("cols"), nb::arg("data"))
      .def_prop_ro("kind",
                   [](const Matrix& self) { return std::string(kind_name(self.view.kind)); })
      .def_prop_ro("layout",
                   [](const Matrix& self) { return std::string(layout_name(self.view.layout)); })
      .def_prop_ro("rows", [](const Matrix& self) { return self.view.rows; })
      .def_prop_ro("cols", [](const Matrix& self) { return self.view.cols; })
      .def_prop_ro("data", [](const Matrix& self) { return self.data; })
      .def_prop_ro("nbytes", [](const Matrix& self) {
        return storage_bytes(self.view.kind, self.view.layout, self.view.rows, self.view.cols);
      });
  module.def("pack", &pack_array, nb::arg("kind"), nb::arg("layout"), nb::arg("dense").noconvert(),
             nb::arg("out").noconvert(),
             "dense (R,C) f32 -> stored bytes. Raises ValueError naming the first weight that is "
             "not finite.");
  module.def("unpack", &unpack_array, nb::arg("matrix"), nb::arg("out").noconvert(),
             "matrix -> out (R,C) f32, overwritten.");
  module.def("gather", &gather_rows, nb::arg("w"), nb::arg("ids").noconvert(), nb::arg("scale"),
             nb::arg("out").noconvert(), "out (T,C) f32 = rows ids (T,) i32 of w, times scale.");
  module.def("advise_rows", &advise, nb::arg("w"), nb::arg("ids").noconvert(),
             "Ask the operating system to page these rows of a mapped table in.");
}

}  // namespace matryo
