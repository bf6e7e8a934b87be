// Heads, K/V pages, attention: the bits of the scalar table, which the Python tests compare with
// the numpy twins.
#include "check.h"

namespace matryo {
namespace {

const KvKind kKvKinds[] = {kKvF32, kKvBf16, kKvInt8};

// One kv head of a page with tokens in slots [0, used).
struct Page {
  Page(const Kernels& table, KvKind kind, int32_t head_dim, int32_t used,
       const std::vector<float>& rows)
      : keys(static_cast<size_t>(head_dim * kPage * 4)),
        values(keys.size()),
        key_scales(kPage),
        value_scales(kPage) {
    part = {keys.data(), values.data(), key_scales.data(), value_scales.data()};
    if (kind != kKvInt8) part.key_scales = part.value_scales = nullptr;
    for (int32_t slot = 0; slot < used; ++slot) {
      const float* key = rows.data() + 2 * slot * head_dim;
      table.store_kv[kind](key, key + head_dim, head_dim, slot, part);
    }
  }
  Page(const Page&) = delete;

  std::vector<uint8_t> keys, values;
  std::vector<float> key_scales, value_scales;
  KvPart part;
};

struct State {
  State(int32_t count, int32_t head_dim)
      : maxima(static_cast<size_t>(count), -INFINITY),
        sums(static_cast<size_t>(count)),
        mixed(static_cast<size_t>(count * head_dim)) {}

  SoftmaxState view() { return {maxima.data(), sums.data(), mixed.data()}; }
  std::vector<float> all() const {
    std::vector<float> out = maxima;
    append(out, sums);
    append(out, mixed);
    return out;
  }

  std::vector<float> maxima, sums, mixed;
};

void test_page(KvKind kind, int32_t head_dim, int32_t count) {
  constexpr int32_t kUsed = 61;
  const std::vector<float> rows = random_floats(2 * kUsed * head_dim),
                           queries = random_floats(count * head_dim);
  std::vector<int32_t> first, last;
  for (int32_t i = 0; i < count; ++i) {
    first.push_back(i % 3 * 5);
    last.push_back(i % 4 == 3 ? first.back() : kUsed - i % 7);  // some see no key
  }
  expect_as_scalar("store_kv", [&](const Kernels& table) {
    const Page page(table, kind, head_dim, kUsed, rows);
    std::vector<float> out = page.key_scales;
    append(out, page.value_scales);
    append_bytes(out, page.keys.data(), page.keys.size());
    append_bytes(out, page.values.data(), page.values.size());
    return out;
  });
  expect_as_scalar("attend_page, merge_states", [&](const Kernels& table) {
    const Page page(table, kind, head_dim, kUsed, rows);
    std::vector<float> scores(static_cast<size_t>(count * kPage));
    State state(count, head_dim), part(count, head_dim);
    const AttendPage call = {page.part,   page.keys.data(), head_dim,
                             count,       queries.data(),   first.data(),
                             last.data(), state.view(),     scores.data()};
    table.attend_page[kind](call);
    table.attend_page[kind](call);  // a second page of the same keys: the state has history
    AttendPage other = call;
    other.state = part.view();
    table.attend_page[kind](other);
    table.merge_states(state.view(), part.view(), count, head_dim);
    return state.all();
  });
}

void test_rows(int32_t n) {
  const std::vector<float> x = random_floats(n), weight = random_floats(n),
                           cos = random_floats(n / 2);
  const std::vector<float> sin = random_floats(n / 2), attended = random_floats(n),
                           normed = random_floats(n);
  const std::vector<float> laurel = random_floats(n);
  const auto size = static_cast<size_t>(n);
  expect_as_scalar("rotate", [&](const Kernels& table) {
    std::vector<float> out = x;
    out.push_back(kGuard);
    table.rotate(out.data(), n, cos.data(), sin.data());
    return out;
  });
  expect_as_scalar("int8_to_f32", [&](const Kernels& table) {
    std::vector<int8_t> bytes;
    for (int32_t i = 0; i < n; ++i) bytes.push_back(static_cast<int8_t>(i * 37 - 128));
    std::vector<float> out(size + 1, kGuard);
    table.int8_to_f32(bytes.data(), n, out.data());
    return out;
  });
  expect_as_scalar("end_attention", [&](const Kernels& table) {
    std::vector<float> out(size + 1, kGuard);
    table.end_attention({x.data(), attended.data(), weight.data(), normed.data(), laurel.data(),
                         weight.data(), 0.7f, 1.3f, n, out.data()});
    return out;
  });
}

}  // namespace

void test_attention_kernels() {
  static_assert(sizeof(AttentionKernels) == 10 * sizeof(void*),
                "the table grew: test the new entry here");
  for (const KvKind kind : kKvKinds) {
    for (const int32_t head_dim : {8, 40, 256}) {
      for (const int32_t count : {1, 3, 4, 9}) test_page(kind, head_dim, count);
    }
  }
  for (const int32_t n : {2, 6, 16, 34, 64, 130, 256}) test_rows(n);
}

}  // namespace matryo
