#include "pages.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

namespace matryo {
namespace {

constexpr struct {
  const char* name;
  int64_t bytes;
} kKinds[] = {{"f32", 4}, {"bf16", 2}, {"int8", 1}};  // indexed by KvKind

// Pages [first, last] that rows of one sequence touch.
struct Span {
  int64_t first = std::numeric_limits<int64_t>::max(), last = -1;
};

std::string row_text(const char* where, int64_t row, const char* what, int64_t value) {
  return std::string(where) + ": " + what + "[" + std::to_string(row) +
         "] = " + std::to_string(value);
}

void check_span(const char* where, const PageTableView& table, size_t sequence, const Span& span) {
  const auto pages = static_cast<int64_t>(table.sequences[sequence]->data.size());
  const int64_t needed = table.window == 0 ? span.last + 1 : span.last - span.first + 1;
  if (span.last < 0 || needed <= pages) return;
  throw std::invalid_argument(std::string(where) + ": sequence " + std::to_string(sequence) +
                              " has " + std::to_string(pages) + " pages, these positions need " +
                              std::to_string(needed) + "; reserve room in the cache first");
}

}  // namespace

KvKind kv_kind_from_name(const std::string& name) {
  std::string allowed;
  for (int32_t kind = 0; kind < 3; ++kind) {
    if (name == kKinds[kind].name) return static_cast<KvKind>(kind);
    allowed += (kind == 0 ? "" : ", ") + std::string(kKinds[kind].name);
  }
  throw std::invalid_argument("kind: expected one of " + allowed + ", got '" + name + "'");
}

int64_t kv_element_bytes(KvKind kind) { return kKinds[kind].bytes; }

int64_t page_bytes(KvKind kind, int64_t num_kv_heads, int64_t head_dim) {
  const int64_t scales = kind == kKvInt8 ? 2 * num_kv_heads * kPage * 4 : 0;
  return 2 * num_kv_heads * head_dim * kPage * kv_element_bytes(kind) + scales;
}

KvPart PageTableView::part(int32_t sequence, int64_t page, int32_t kv_head) const {
  const std::vector<uint8_t*>& pages = sequences[static_cast<size_t>(sequence)]->data;
  uint8_t* start = pages[static_cast<size_t>(page) % pages.size()];
  const int64_t half = int64_t{head_dim} * kPage * kv_element_bytes(kind);
  KvPart out = {start + 2 * kv_head * half, start + (2 * kv_head + 1) * half, nullptr, nullptr};
  if (kind == kKvInt8) {
    out.key_scales =
        reinterpret_cast<float*>(start + 2 * num_kv_heads * half) + 2 * kPage * kv_head;
    out.value_scales = out.key_scales + kPage;
  }
  return out;
}

void check_rows(const char* where, const PageTableView& table, const int32_t* sequences,
                const int32_t* positions, int64_t rows, bool reads) {
  const auto count = static_cast<int64_t>(table.sequences.size());
  std::vector<Span> spans(table.sequences.size());
  for (int64_t row = 0; row < rows; ++row) {
    if (sequences[row] < 0 || sequences[row] >= count) {
      throw std::invalid_argument(row_text(where, row, "sequences", sequences[row]) +
                                  ", the table has " + std::to_string(count));
    }
    if (positions[row] < 0)
      throw std::invalid_argument(row_text(where, row, "positions", positions[row]) + " < 0");
    Span& span = spans[static_cast<size_t>(sequences[row])];
    const int32_t first = reads ? table.first_visible(positions[row]) : positions[row];
    span.first = std::min<int64_t>(span.first, first / kPage);
    span.last = std::max<int64_t>(span.last, positions[row] / kPage);
  }
  for (size_t sequence = 0; sequence < spans.size(); ++sequence) {
    check_span(where, table, sequence, spans[sequence]);
  }
}

}  // namespace matryo
