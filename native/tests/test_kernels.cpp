// Every kernel of every instruction set this CPU has. Matrix kernels are compared with plain loops
// in double here, the others with the scalar table (test_vector.cpp, test_attention.cpp). Needs no
// Python, so it also runs under an emulator: `make test-arm`. Prints one line a table; exits 1
// after the first failure.
#include "check.h"
#include "matrix.h"
#include "pool.h"
#include "storage.h"

namespace matryo {
namespace {

const Kind kKinds[] = {kF32, kBf16, kQ8, kQ4};

// A packed random matrix, and what it holds after rounding.
struct Stored {
  Stored(Kind kind, Layout layout, int64_t rows, int64_t cols)
      : bytes(static_cast<size_t>(storage_bytes(kind, layout, rows, cols))),
        dense(random_floats(rows * cols)) {
    pack(kind, layout, dense.data(), rows, cols, bytes.data());
    view = {kind, layout, rows, cols, storage_stride(kind, layout, cols), bytes.data()};
    unpack(view, dense.data());
  }

  std::vector<uint8_t> bytes;
  std::vector<float> dense;
  MatrixView view;
};

// T tokens and, as seen by a quantised product, their rounded values.
struct Tokens {
  Tokens(int64_t tokens, int64_t cols)
      : x(random_floats(tokens * cols)),
        rounded(x),
        codes(static_cast<size_t>(tokens * groups_of(cols))) {
    for (int64_t t = 0; t < tokens; ++t) {
      QuantizedGroup* row = codes.data() + t * groups_of(cols);
      kernels().quantize_row(x.data() + t * cols, cols, row);
      for (int64_t c = 0; c < cols; ++c) {
        rounded[static_cast<size_t>(t * cols + c)] =
            row[c / kGroup].scale * static_cast<float>(row[c / kGroup].q[c % kGroup]);
      }
    }
    rows = {x.data(), cols, codes.data(), groups_of(cols), static_cast<int32_t>(tokens)};
  }

  const std::vector<float>& seen_by(Kind kind) const { return is_quantized(kind) ? rounded : x; }

  std::vector<float> x, rounded;
  std::vector<QuantizedGroup> codes;
  TokenRows rows;
};

// Σ w x in double and Σ |w x|: n roundings of partial sums below the latter bound the error of any
// order.
struct Sum {
  double value = 0.0, magnitude = 0.0;
  void add(double term) {
    value += term;
    magnitude += std::fabs(term);
  }
  double limit(int64_t terms) const {
    return 6e-8 * static_cast<double>(terms + 4) * magnitude + 1e-30;
  }
};

void test_panel_product(Kind kind, int64_t rows, int64_t cols, int64_t used_rows, int64_t used_cols,
                        int tokens) {
  const Stored w(kind, kPanelLayout, rows, cols);
  const Tokens x(tokens, used_cols);
  const int64_t stride = used_rows + 3;
  std::vector<float> out(static_cast<size_t>(stride * tokens), kGuard);
  PanelProduct call = {w.bytes.data(),
                       w.view.stride,
                       static_cast<int32_t>(used_rows),
                       static_cast<int32_t>(used_cols),
                       x.rows,
                       out.data(),
                       stride,
                       false};
  kernels().panel_product[kind](call);
  const std::vector<float> once = out;
  call.accumulate = true;
  kernels().panel_product[kind](call);
  for (int t = 0; t < tokens; ++t) {
    for (int64_t r = 0; r < stride; ++r) {
      const auto at = static_cast<size_t>(t * stride + r);
      if (r >= used_rows) {
        expect_near("panel_product guard", out[at], kGuard, 0.0);
        continue;
      }
      Sum sum;
      for (int64_t c = 0; c < used_cols; ++c) {
        sum.add(static_cast<double>(w.dense[static_cast<size_t>(r * cols + c)]) *
                x.seen_by(kind)[static_cast<size_t>(t * used_cols + c)]);
      }
      expect_near("panel_product", once[at], sum.value, sum.limit(used_cols));
      expect_near("panel_product accumulate", out[at], 2.0 * sum.value,
                  3.0 * sum.limit(2 * used_cols));
    }
  }
}

double gelu(double x) {
  return 0.5 * x * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x)));
}

void test_gated_product(Kind kind, int64_t units, int64_t cols, int tokens) {
  const Stored gate(kind, kPanelLayout, units, cols), up(kind, kPanelLayout, units, cols);
  const Tokens x(tokens, cols);
  const int64_t groups = groups_of(units);
  std::vector<float> act(static_cast<size_t>(units * tokens + 1), kGuard);
  std::vector<QuantizedGroup> codes(static_cast<size_t>(groups * tokens)), expected(codes.size());
  const GatedProduct call = {gate.bytes.data(),
                             up.bytes.data(),
                             gate.view.stride,
                             static_cast<int32_t>(units),
                             static_cast<int32_t>(cols),
                             x.rows,
                             act.data(),
                             units,
                             codes.data(),
                             groups};
  kernels().gated_product[kind](call);
  expect_near("gated_product guard", act.back(), kGuard, 0.0);
  for (int t = 0; t < tokens; ++t) {
    kernels().quantize_row(act.data() + t * units, units, expected.data() + t * groups);
    for (int64_t u = 0; u < units; ++u) {
      Sum g, p;
      for (int64_t c = 0; c < cols; ++c) {
        const double value = x.seen_by(kind)[static_cast<size_t>(t * cols + c)];
        g.add(gate.dense[static_cast<size_t>(u * cols + c)] * value);
        p.add(up.dense[static_cast<size_t>(u * cols + c)] * value);
      }
      const double wanted = gelu(g.value) * p.value;
      const double limit = 1.2 * g.limit(cols) * std::fabs(p.value) +
                           std::fabs(gelu(g.value)) * p.limit(cols) + 1e-6 * std::fabs(wanted) +
                           1e-12;
      expect_near("gated_product", act[static_cast<size_t>(t * units + u)], wanted, limit);
    }
  }
  if (std::memcmp(codes.data(), expected.data(), codes.size() * sizeof(QuantizedGroup)) != 0) {
    fail("gated_product codes", 0, 0, 0);
  }
}

void test_rows(Kind kind, int64_t rows, int64_t cols, int count) {
  const Stored w(kind, kRowsLayout, rows, cols);
  const int64_t padded = groups_of(cols) * kGroup;
  Tokens x(1, padded);
  std::vector<int32_t> ids;
  for (int i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>((i * 7 + 3) % rows));
  const RowSet set = {w.bytes.data(), w.view.stride, padded, ids.data(), count};
  std::vector<float> dots(static_cast<size_t>(count) + 1, kGuard);
  kernels().dot_rows[kind](set, x.x.data(), x.codes.data(), dots.data());
  expect_near("dot_rows guard", dots.back(), kGuard, 0.0);
  for (int i = 0; i < count; ++i) {
    Sum sum;
    for (int64_t c = 0; c < cols; ++c) {
      sum.add(static_cast<double>(
                  w.dense[static_cast<size_t>(ids[static_cast<size_t>(i)] * cols + c)]) *
              x.seen_by(kind)[static_cast<size_t>(c)]);
    }
    expect_near("dot_rows", dots[static_cast<size_t>(i)], sum.value, sum.limit(cols));
  }
  const int64_t first = padded > kGroup ? kGroup : 0;
  const std::vector<float> a = random_floats(count), start = random_floats(padded);
  std::vector<float> y = start, row(static_cast<size_t>(cols));
  kernels().axpy_rows[kind](set, a.data(), first, cols, y.data());
  for (int64_t c = 0; c < padded; ++c) {
    Sum sum;
    sum.add(start[static_cast<size_t>(c)]);
    for (int i = 0; i < count && c >= first && c < cols; ++i) {
      sum.add(static_cast<double>(a[static_cast<size_t>(i)]) *
              w.dense[static_cast<size_t>(ids[static_cast<size_t>(i)] * cols + c)]);
    }
    expect_near("axpy_rows", y[static_cast<size_t>(c)], sum.value,
                c >= first && c < cols ? sum.limit(count) : 0.0);
  }
  const int64_t columns = padded - first;
  std::vector<float> q(static_cast<size_t>(rows * columns)),
      scales(static_cast<size_t>(rows * columns / kGroup));
  const UnpackedRows unpacked = {0, columns, q.data(), scales.data()};
  std::vector<float> unpacked_y = start;
  kernels().unpack_rows[kind](set, first, unpacked);
  kernels().axpy_unpacked(unpacked, ids.data(), a.data(), count, cols - first,
                          unpacked_y.data() + first);
  if (unpacked_y != y) fail("axpy_unpacked has other bits than axpy_rows", 0, 0, 0);
  kernels().dequantize_row[kind](w.bytes.data(), padded, cols, 3.0f, row.data());
  for (int64_t c = 0; c < cols; ++c) {
    expect_near("dequantize_row", row[static_cast<size_t>(c)],
                w.dense[static_cast<size_t>(c)] * 3.0f, 0.0);
  }
}

// One row times several tokens: the bits of dot_rows of each token alone.
void test_dot_tokens(Kind kind, int64_t cols, int count) {
  const Stored w(kind, kRowsLayout, 1, cols);
  const int64_t padded = groups_of(cols) * kGroup;
  const Tokens x(9, padded);
  std::vector<int32_t> tokens;
  for (int i = 0; i < count; ++i) tokens.push_back(i * 4 % 9);
  std::vector<float> dots(static_cast<size_t>(count) + 1, kGuard);
  kernels().dot_tokens[kind](w.bytes.data(), padded, x.rows, tokens.data(), count, dots.data());
  expect_near("dot_tokens guard", dots.back(), kGuard, 0.0);
  const int32_t id = 0;
  for (int i = 0; i < count; ++i) {
    const int64_t token = tokens[static_cast<size_t>(i)];
    float alone = 0.0f;
    kernels().dot_rows[kind]({w.bytes.data(), w.view.stride, padded, &id, 1},
                             x.x.data() + token * padded,
                             x.codes.data() + token * groups_of(padded), &alone);
    expect_near("dot_tokens", dots[static_cast<size_t>(i)], alone, 0.0);
  }
}

void test_elementwise() {
  for (int64_t n = 0; n < 70; ++n) {
    std::vector<float> x = random_floats(n), capped = x, back(static_cast<size_t>(n));
    std::vector<uint16_t> bits(static_cast<size_t>(n) + 1, 7);
    for (float& value : capped) value *= 20.0f;
    const std::vector<float> before = capped;
    kernels().softcap(capped.data(), n, 30.0f);
    kernels().f32_to_bf16(x.data(), n, bits.data());
    kernels().bf16_to_f32(bits.data(), n, back.data());
    float largest = -INFINITY;
    for (int64_t i = 0; i < n; ++i) {
      const auto at = static_cast<size_t>(i);
      const double wanted = 30.0 * std::tanh(before[at] / 30.0);
      expect_near("softcap", capped[at], wanted, 4e-7 * std::fabs(wanted));
      expect_near("bf16", back[at], x[at], std::fabs(x[at]) / 256.0);
      largest = std::fmax(largest, x[at]);
    }
    expect_near("bf16 guard", bits.back(), 7, 0);
    if (kernels().maximum(x.data(), n) != largest)
      fail("maximum", kernels().maximum(x.data(), n), largest, 0);
    if (!kernels().all_finite(x.data(), n)) fail("all_finite", 0, 1, 0);
    if (n == 0) continue;
    x[static_cast<size_t>(n / 2)] = n % 2 == 0 ? INFINITY : NAN;
    if (kernels().all_finite(x.data(), n)) fail("all_finite", 1, 0, 0);
  }
}

// The scalar table defines the bytes.
void test_pack_is_the_same() {
  const std::string name = kernels().name;
  const std::vector<float> dense = random_floats(37 * 100);
  for (const Kind kind : kKinds) {
    for (const Layout layout : {kPanelLayout, kRowsLayout}) {
      const auto size = static_cast<size_t>(storage_bytes(kind, layout, 37, 100));
      std::vector<uint8_t> ours(size), reference(size);
      pack(kind, layout, dense.data(), 37, 100, ours.data());
      select_kernels("scalar");
      pack(kind, layout, dense.data(), 37, 100, reference.data());
      select_kernels(name);
      if (ours != reference) fail("pack differs from scalar", kind, layout, 0);
    }
  }
}

// Products of quantised matrices have the scalar table's bits for any number of tokens; so have f32
// and bf16 ones.
void test_product_bits(Kind kind, int64_t rows, int64_t cols, int tokens) {
  const Stored w(kind, kPanelLayout, rows, cols);
  const Tokens x(tokens, cols);
  expect_as_scalar("panel_product bits", [&](const Kernels& table) {
    std::vector<float> out(static_cast<size_t>(rows * tokens));
    table.panel_product[kind]({w.bytes.data(), w.view.stride, static_cast<int32_t>(rows),
                               static_cast<int32_t>(cols), x.rows, out.data(), rows, false});
    return out;
  });
  expect_as_scalar("quantize_row", [&](const Kernels& table) {
    std::vector<QuantizedGroup> codes(static_cast<size_t>(groups_of(cols)));
    table.quantize_row(x.x.data(), cols, codes.data());
    std::vector<float> out;
    append_bytes(out, codes.data(), codes.size() * sizeof(QuantizedGroup));
    return out;
  });
}

// Any number of bytes is read and none beyond (the emulator and valgrind watch the end of the
// block).
void test_read_bytes() {
  for (int64_t n = 0; n < 600; n += 37) {
    const std::vector<uint8_t> zeros(static_cast<size_t>(n));
    if (kernels().read_bytes(zeros.data(), n) != 0) fail("read_bytes of zeros", 1, 0, 0);
  }
}

}  // namespace

void test_matrix_kernels() {
  static_assert(sizeof(MatrixKernels) == 38 * sizeof(void*),
                "the table grew: test the new entry here");
  for (const Kind kind : kKinds) {
    for (const int64_t rows : {1, 15, 16, 17, 33, 48}) {
      for (const int tokens : {1, 2, 3, 4, 5, 9, 33})
        test_panel_product(kind, rows, 96, rows, 96, tokens);
    }
    test_panel_product(kind, 20, 70, 20, 70, 3);
    test_panel_product(kind, 64, 1280, 40, 1120, 6);
    for (const int tokens : {1, 4, 37}) test_gated_product(kind, 64, 96, tokens);
    test_gated_product(kind, 40, 64, 2);
    for (const int64_t cols : {32, 64, 70, 96, 288}) {
      for (const int count : {0, 1, 3, 4, 11}) {
        test_rows(kind, 9, cols, count);
        test_dot_tokens(kind, cols, count);
      }
    }
    // One token, a whole tile and a rest; two column blocks; two token blocks.
    for (const int tokens : {1, 11}) test_product_bits(kind, 52, 2200, tokens);
    test_product_bits(kind, 20, 96, 131);
  }
  test_elementwise();
  test_pack_is_the_same();
  test_read_bytes();
}

namespace {

// Chunks, shares and thread numbers of regions that begin so close to each other, with more threads
// than processors, that some threads come too late for some of them.
void test_pool() {
  for (const int threads : {1, 2, 3, 8}) {
    pool().set_threads(threads);
    std::vector<int64_t> seen(1000), shares(1000);
    double wrong = 0.0;
    for (int round = 0; round < 200; ++round) {
      std::vector<int> sizes(static_cast<size_t>(threads), 0);
      pool().run([&](Worker& worker) {
        sizes[static_cast<size_t>(worker.thread)] = worker.num_threads;
        for (int64_t i; (i = worker.next()) < 1000;) seen[static_cast<size_t>(i)] += 1;
        worker.barrier();
        for (int64_t i; (i = worker.next()) < 1000;) seen[static_cast<size_t>(i)] += 1;
        const auto [first, last] = worker.slice(1000, 7);
        for (int64_t i = first; i < last; ++i) shares[static_cast<size_t>(i)] += 1;
      });
      // Threads 0 .. n - 1 were there, each told the same n, and no others.
      for (int i = 0; i < threads; ++i) {
        wrong += sizes[static_cast<size_t>(i)] != (i < sizes[0] ? sizes[0] : 0);
      }
    }
    expect_near("threads of a region", wrong, 0.0, 0.0);
    for (const int64_t count : seen) expect_near("pool", static_cast<double>(count), 400.0, 0.0);
    for (const int64_t count : shares)
      expect_near("shares", static_cast<double>(count), 200.0, 0.0);
  }
  std::printf("pool ok\n");
}

}  // namespace
}  // namespace matryo

int main() {
  static_assert(
      sizeof(matryo::Kernels) == sizeof(matryo::MatrixKernels) + sizeof(matryo::VectorKernels) +
                                     sizeof(matryo::AttentionKernels) +
                                     sizeof(matryo::DenseKernels) + sizeof(matryo::AudioKernels) +
                                     sizeof(matryo::TrainingKernels) + sizeof(const char*),
      "the table has a new part: test it");
  matryo::test_pool();
  matryo::pool().set_threads(2);
  for (const matryo::Kernels* table : matryo::available_kernels()) {
    matryo::select_kernels(table->name);
    matryo::test_matrix_kernels();
    matryo::test_vector_kernels();
    matryo::test_attention_kernels();
    matryo::test_dense_kernels();
    matryo::test_audio_kernels();
    matryo::test_training_kernels();
    std::printf("%s ok\n", table->name);
  }
  return 0;
}
