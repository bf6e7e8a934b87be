// Pages of keys and values, and the attention block.
#include "blocks/attention.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <string>
#include <vector>

#include "bind.h"
#include "pages.h"

namespace matryo {
namespace {

using Page = Array<uint8_t, 1>;

// The Python class. Calls take a copy of the view: `set` from another thread must not pull pages
// away under a kernel.
struct PageTable {
  PageTableView view;
};

void construct_table(PageTable* self, const std::string& kind, int32_t num_kv_heads,
                     int32_t head_dim, int32_t window) {
  if (num_kv_heads < 1 || head_dim < 2 || head_dim % 2 != 0 || window < 0) {
    throw std::invalid_argument(
        "PageTable: expected num_kv_heads >= 1, an even head_dim >= 2 and window >= 0, got " +
        std::to_string(num_kv_heads) + ", " + std::to_string(head_dim) + " and " +
        std::to_string(window));
  }
  new (self) PageTable{
      {kv_kind_from_name(kind), num_kv_heads, head_dim, window, {std::make_shared<Pages>()}}};
}

void set_pages(PageTable& self, std::vector<Page> arrays) {
  const int64_t size = page_bytes(self.view.kind, self.view.num_kv_heads, self.view.head_dim);
  auto pages = std::make_shared<Pages>();
  for (size_t i = 0; i < arrays.size(); ++i) {
    const std::string name = "pages[" + std::to_string(i) + "]";
    expect_shape("PageTable.set", name.c_str(), arrays[i], {size});
    if (reinterpret_cast<uintptr_t>(arrays[i].data()) % sizeof(float) != 0) {
      throw std::invalid_argument("PageTable.set: " + name +
                                  " does not start at a multiple of 4 bytes");
    }
    pages->data.push_back(arrays[i].data());
  }
  pages->owner = std::make_shared<std::vector<Page>>(std::move(arrays));
  self.view.sequences = {std::move(pages)};
}

PageTable stack(const std::vector<const PageTable*>& tables) {
  if (tables.empty()) throw std::invalid_argument("PageTable.stack: expected at least one table");
  PageTable stacked = *tables.front();
  stacked.view.sequences.clear();
  for (const PageTable* table : tables) {
    const PageTableView &one = table->view, &first = tables.front()->view;
    if (one.kind != first.kind || one.num_kv_heads != first.num_kv_heads ||
        one.head_dim != first.head_dim || one.window != first.window || one.sequences.size() != 1) {
      throw std::invalid_argument(
          "PageTable.stack: expected tables of one sequence each with equal kind, num_kv_heads, "
          "head_dim and window");
    }
    stacked.view.sequences.push_back(one.sequences.front());
  }
  return stacked;
}

TableRows rows_of(const char* where, const PageTableView& table, const ConstInts1& sequences,
                  const ConstInts1& positions, int64_t tokens, bool reads) {
  expect_shape(where, "sequences", sequences, {tokens});
  expect_shape(where, "positions", positions, {tokens});
  check_rows(where, table, sequences.data(), positions.data(), tokens, reads);
  return {&table, sequences.data(), positions.data(), tokens};
}

void expect_table(const char* where, const LayerView& layer, const PageTableView& table) {
  if (table.num_kv_heads == layer.num_kv_heads && table.head_dim == layer.head_dim) return;
  throw std::invalid_argument(
      std::string(where) + ": the table has " + std::to_string(table.num_kv_heads) +
      " kv heads of " + std::to_string(table.head_dim) + ", the layer " +
      std::to_string(layer.num_kv_heads) + " of " + std::to_string(layer.head_dim));
}

void expect_owner(const char* where, const LayerView& layer) {
  if (layer.owns_kv()) return;
  throw std::invalid_argument(std::string(where) +
                              ": this layer has no k, v and k_norm; it reads an owner's pages");
}

void check_angles(const char* where, const LayerView& layer, int64_t tokens,
                  const ConstFloats2& cos, const ConstFloats2& sin) {
  expect_shape(where, "cos", cos, {tokens, layer.head_dim / 2});
  expect_shape(where, "sin", sin, {tokens, layer.head_dim / 2});
}

void bound_attention(const Layer& layer, ConstFloats2 normed, ConstFloats2 active,
                     const PageTable& table, ConstInts1 sequences, ConstInts1 positions,
                     ConstFloats2 cos, ConstFloats2 sin, bool write, Floats2 hidden) {
  constexpr const char* kWhere = "attention";
  const LayerView& weights = layer.view;
  const PageTableView view = table.view;
  const auto tokens = static_cast<int64_t>(normed.shape(0)), d = weights.hidden_size;
  expect_shape(kWhere, "normed", normed, {tokens, d});
  expect_shape(kWhere, "active", active, {tokens, d});
  expect_shape(kWhere, "hidden", hidden, {tokens, d});
  check_angles(kWhere, weights, tokens, cos, sin);
  expect_table(kWhere, weights, view);
  if (write) expect_owner(kWhere, weights);
  const BlockRows block = {rows_of(kWhere, view, sequences, positions, tokens, true), normed.data(),
                           cos.data(), sin.data()};
  ReleasedGil release;
  attention(weights, block, active.data(), write, hidden.data());
}

void bound_write_kv(const Layer& layer, ConstFloats2 normed, const PageTable& table,
                    ConstInts1 sequences, ConstInts1 positions, ConstFloats2 cos,
                    ConstFloats2 sin) {
  constexpr const char* kWhere = "write_kv";
  const PageTableView view = table.view;
  const auto tokens = static_cast<int64_t>(normed.shape(0));
  expect_shape(kWhere, "normed", normed, {tokens, layer.view.hidden_size});
  check_angles(kWhere, layer.view, tokens, cos, sin);
  expect_table(kWhere, layer.view, view);
  expect_owner(kWhere, layer.view);
  const BlockRows block = {rows_of(kWhere, view, sequences, positions, tokens, false),
                           normed.data(), cos.data(), sin.data()};
  ReleasedGil release;
  write_kv(layer.view, block);
}

void bound_attend(ConstFloats3 queries, const PageTable& table, ConstInts1 sequences,
                  ConstInts1 positions, Floats3 out) {
  constexpr const char* kWhere = "attend";
  const PageTableView view = table.view;
  const auto tokens = static_cast<int64_t>(queries.shape(0)),
             heads = static_cast<int64_t>(queries.shape(1));
  if (heads == 0 || heads % view.num_kv_heads != 0) {
    throw std::invalid_argument("attend: " + std::to_string(heads) +
                                " query heads, expected a multiple of " +
                                std::to_string(view.num_kv_heads));
  }
  expect_shape(kWhere, "queries", queries, {tokens, heads, view.head_dim});
  expect_shape(kWhere, "out", out, {tokens, heads, view.head_dim});
  const TableRows rows = rows_of(kWhere, view, sequences, positions, tokens, true);
  ReleasedGil release;
  attend(queries.data(), static_cast<int32_t>(heads), rows, out.data());
}

}  // namespace

void bind_attention(nb::module_& module) {
  nb::class_<PageTable>(module, "PageTable",
                        "K/V pages of one owner layer, of one sequence (set) or several (stack).")
      .def("__init__", &construct_table, nb::arg("kind"), nb::arg("num_kv_heads"),
           nb::arg("head_dim"), nb::arg("window"))
      .def("set", &set_pages, nb::arg("pages").noconvert(),
           "Replaces the pages of the only sequence: writable uint8 arrays of a page's size, kept "
           "alive.")
      .def_static("stack", &stack, nb::arg("tables"),
                  "Tables of one sequence each as one table of many.");
  module.def("attention", &bound_attention, nb::arg("layer"), nb::arg("normed").noconvert(),
             nb::arg("active").noconvert(), nb::arg("table"), nb::arg("sequences").noconvert(),
             nb::arg("positions").noconvert(), nb::arg("cos").noconvert(),
             nb::arg("sin").noconvert(), nb::arg("write_kv"), nb::arg("hidden").noconvert(),
             "hidden (T,d) = ((active + rms(attention)) + laurel) / sqrt 2; owners first store K/V "
             "if `write_kv`.");
  module.def("write_kv", &bound_write_kv, nb::arg("layer"), nb::arg("normed").noconvert(),
             nb::arg("table"), nb::arg("sequences").noconvert(), nb::arg("positions").noconvert(),
             nb::arg("cos").noconvert(), nb::arg("sin").noconvert(),
             "Only the K/V part of `attention`.");
  module.def(
      "attend", &bound_attend, nb::arg("queries").noconvert(), nb::arg("table"),
      nb::arg("sequences").noconvert(), nb::arg("positions").noconvert(),
      nb::arg("out").noconvert(),
      "out (T,H,Dh): causal attention of queries (T,H,Dh), normed and rotated, over the pages.");
}

}  // namespace matryo
