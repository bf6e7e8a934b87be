// Pages of cached keys and values on the baseline side (layout: docs/architecture.md section 4).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels_attention.h"

namespace matryo {

KvKind kv_kind_from_name(const std::string& name);  // std::invalid_argument names the allowed ones
int64_t kv_element_bytes(KvKind kind);
int64_t page_bytes(KvKind kind, int64_t num_kv_heads, int64_t head_dim);

// The pages of one sequence and whatever keeps them alive.
struct Pages {
  std::vector<uint8_t*> data;
  std::shared_ptr<void> owner;
};

// The pages of one owner layer. Position t lies in page (t / 64) mod number of pages, slot t
// mod 64.
struct PageTableView {
  KvKind kind;
  int32_t num_kv_heads, head_dim;
  int32_t window;  // tokens visible, self included; 0 = all
  std::vector<std::shared_ptr<const Pages>> sequences;

  int32_t first_visible(int32_t position) const {
    return window == 0 || position < window ? 0 : position - window + 1;
  }

  // Page number `page`, counted from position 0.
  KvPart part(int32_t sequence, int64_t page, int32_t kv_head) const;
};

// Throws std::invalid_argument unless every row names a sequence and the pages at hand hold,
// without two positions in one slot, what its rows write and (if `reads`) see.
void check_rows(const char* where, const PageTableView& table, const int32_t* sequences,
                const int32_t* positions, int64_t rows, bool reads);

}  // namespace matryo
