// Shared by the binding files: array types, the Matrix object, shape checks that name what is
// wrong.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <thread>

#include "kernels.h"
#include "layer.h"

namespace matryo {

namespace nb = nanobind;

// Arguments of these types are declared with `.noconvert()`: a wrong dtype or a strided array is a
// TypeError instead of a silent copy that the kernel would fill in place of the caller's array.
template <class T, int kDimensions>
using Array = nb::ndarray<T, nb::ndim<kDimensions>, nb::c_contig, nb::device::cpu>;
using Floats1 = Array<float, 1>;
using Floats2 = Array<float, 2>;
using Floats3 = Array<float, 3>;
using ConstFloats1 = Array<const float, 1>;
using ConstFloats2 = Array<const float, 2>;
using ConstFloats3 = Array<const float, 3>;
using ConstInts1 = Array<const int32_t, 1>;

// The Python class: a view of its data and the reference that keeps the data alive. Copying needs
// the GIL.
struct Matrix {
  MatrixView view;
  nb::object data;
};

// The Python classes Segment and Layer: views, and the references that keep the weights alive.
struct Segment {
  SegmentView view;
  nb::object gate, up, down;
};
struct Layer {
  LayerView view;
  nb::object owned;  // a dict of everything the view points into
};

// Lets other Python threads run. Differs from nb::gil_scoped_release when the interpreter ends
// meanwhile: CPython up to 3.13 then ends a daemon thread by unwinding its stack, and unwinding
// through a destructor aborts the process. Such a thread waits here for the end of the process
// instead, as CPython 3.14 has it wait.
class ReleasedGil {
 public:
  ReleasedGil() : state_(PyEval_SaveThread()) {}
  ReleasedGil(const ReleasedGil&) = delete;
  ReleasedGil& operator=(const ReleasedGil&) = delete;

  ~ReleasedGil() {
    try {
      PyEval_RestoreThread(state_);
    } catch (...) {  // the forced unwinding of pthread_exit, the only thing that arrives here
      for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    }
  }

 private:
  PyThreadState* state_;
};

std::string shape_text(const size_t* shape, size_t dimensions);

// Throws std::invalid_argument "<where>: <name> has shape (a, b), expected (c, d)".
template <class ArrayType>
void expect_shape(const char* where, const char* name, const ArrayType& array,
                  std::initializer_list<int64_t> expected) {
  bool same = array.ndim() == expected.size();
  std::string wanted = "(";
  size_t i = 0;
  for (const int64_t size : expected) {
    same = same && i < array.ndim() && static_cast<int64_t>(array.shape(i)) == size;
    wanted += (i == 0 ? "" : ", ") + std::to_string(size);
    ++i;
  }
  if (same) return;
  std::string got = "(";
  for (i = 0; i < array.ndim(); ++i) got += (i == 0 ? "" : ", ") + std::to_string(array.shape(i));
  throw std::invalid_argument(std::string(where) + ": " + name + " has shape " + got +
                              "), expected " + wanted + ")");
}

inline void expect_layout(const char* where, const MatrixView& w, Layout layout) {
  if (w.layout == layout) return;
  throw std::invalid_argument(std::string(where) + ": expected a matrix in " +
                              (layout == kPanelLayout ? "panel" : "rows") + " layout");
}

void bind_matrix(nb::module_& module);
void bind_matmul(nb::module_& module);
void bind_control(nb::module_& module);
void bind_layer(nb::module_& module);
void bind_vector(nb::module_& module);
void bind_attention(nb::module_& module);
void bind_feed_forward(nb::module_& module);
void bind_audio(nb::module_& module);
void bind_vision(nb::module_& module);
void bind_training(nb::module_& module);

}  // namespace matryo
