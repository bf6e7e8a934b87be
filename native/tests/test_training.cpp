// Gradients of row operations: the bits of the scalar table; the Python tests compare values with
// what torch derives.
#include "check.h"

namespace matryo {
namespace {

const int64_t kSizes[] = {1, 3, 7, 8, 15, 16, 17, 33, 64, 65, 130};

std::vector<float> guarded(int64_t n) {
  return std::vector<float>(static_cast<size_t>(n) + 1, kGuard);
}

// A sum that something is added to, and the guard behind it.
std::vector<float> begun(int64_t n) {
  std::vector<float> values(static_cast<size_t>(n) + 1, 0.25f);
  values.back() = kGuard;
  return values;
}

void test_norm(int64_t n) {
  const std::vector<float> x = random_floats(n), weight = random_floats(n), grad = random_floats(n);
  for (const bool accumulate : {false, true}) {
    expect_as_scalar("norm_row_grad", [&](const Kernels& table) {
      std::vector<float> x_grad = begun(n), plain = begun(n), weight_grad = begun(n);
      table.norm_row_grad({x.data(), weight.data(), grad.data(), n, 0.7f, x_grad.data(), accumulate,
                           weight_grad.data()});
      table.norm_row_grad(
          {x.data(), nullptr, grad.data(), n, 0.7f, plain.data(), accumulate, nullptr});
      append(x_grad, plain);
      append(x_grad, weight_grad);
      return x_grad;
    });
  }
}

void test_streams(int64_t n) {
  const std::vector<float> x = random_floats(4 * n), grad = random_floats(4 * n),
                           norm = random_floats(n), router = random_floats(4 * n),
                           mix = random_floats(16);
  expect_as_scalar("route_grad", [&](const Kernels& table) {
    std::vector<float> x_grad = begun(n), norm_grad = begun(n), router_grad = begun(4 * n);
    table.route_grad({x.data(),
                      norm.data(),
                      router.data(),
                      n,
                      1e-6f,
                      {0.1f, -0.9f, 0.4f, 0.0f},
                      {1.0f, -2.0f, 0.5f, 3.0f},
                      x_grad.data(),
                      norm_grad.data(),
                      router_grad.data()});
    append(x_grad, norm_grad);
    append(x_grad, router_grad);
    return x_grad;
  });
  expect_as_scalar("mix_streams_grad", [&](const Kernels& table) {
    std::vector<float> x_grad = guarded(4 * n), mix_grad = guarded(16);
    MixStreamsGrad call = {};
    for (int i = 0; i < 4; ++i) {
      call.x[i] = x.data() + i * n;
      call.grad[i] = grad.data() + i * n;
      call.x_grad[i] = x_grad.data() + i * n;
    }
    std::memcpy(call.mix, mix.data(), sizeof(call.mix));
    call.n = n;
    call.mix_grad = mix_grad.data();
    table.mix_streams_grad(call);
    append(x_grad, mix_grad);
    return x_grad;
  });
  expect_as_scalar("correct_streams_grad", [&](const Kernels& table) {
    std::vector<float> first = guarded(n), active = guarded(n), added = guarded(n),
                       gains = guarded(4);
    CorrectStreamsGrad call = {};
    call.first = x.data();
    call.active = norm.data();
    for (int i = 0; i < 4; ++i) {
      call.grad[i] = grad.data() + i * n;
      call.gains[i] = mix[static_cast<size_t>(i)];
    }
    call.n = n;
    call.first_grad = first.data();
    call.active_grad = active.data();
    call.added_grad = added.data();
    call.gains_grad = gains.data();
    table.correct_streams_grad(call);
    append(first, active);
    append(first, added);
    append(first, gains);
    return first;
  });
  expect_as_scalar("correct_first_grad", [&](const Kernels& table) {
    std::vector<float> first = guarded(n), active = guarded(n), scale = begun(n), gain = begun(1);
    table.correct_first_grad({x.data(), norm.data(), router.data(), grad.data(), 0.9f, n,
                              first.data(), active.data(), scale.data(), gain.data()});
    append(first, active);
    append(first, scale);
    append(first, gain);
    return first;
  });
}

void test_gate(int64_t n) {
  const std::vector<float> gate = random_floats(n), up = random_floats(n), grad = random_floats(n);
  for (const bool has_cut : {false, true}) {
    const GatedRow call = {gate.data(), up.data(), n, has_cut, 0.1f, 0.8f, 0.5f};
    expect_as_scalar("gated_row", [&](const Kernels& table) {
      std::vector<float> act = guarded(n);
      table.gated_row(call, act.data());
      return act;
    });
    expect_as_scalar("gated_row_grad", [&](const Kernels& table) {
      std::vector<float> gate_grad = guarded(n), up_grad = guarded(n);
      table.gated_row_grad(call, grad.data(), gate_grad.data(), up_grad.data());
      append(gate_grad, up_grad);
      return gate_grad;
    });
  }
}

void test_head(int64_t n) {
  const std::vector<float> logits = random_floats(n), teacher = random_floats(n);
  for (const float cap : {0.0f, 3.0f}) {
    for (const float temperature : {1.0f, 2.0f}) {
      for (const bool taught : {false, true}) {
        expect_as_scalar("head_row", [&](const Kernels& table) {
          std::vector<float> ours = logits, theirs = teacher, losses = guarded(2);
          table.head_row({ours.data(), taught ? theirs.data() : nullptr, n, n / 2, cap, cap, 0.3f,
                          0.7f, temperature},
                         losses.data());
          append(ours, losses);
          return ours;
        });
      }
    }
  }
}

void test_rows(int64_t n) {
  const std::vector<float> x = random_floats(2 * n), cosine = random_floats(n),
                           sine = random_floats(n);
  for (const float sign : {1.0f, -1.0f}) {
    expect_as_scalar("rotate_row", [&](const Kernels& table) {
      std::vector<float> out = guarded(2 * n);
      table.rotate_row(x.data(), cosine.data(), sine.data(), sign, n, out.data());
      return out;
    });
  }
  expect_as_scalar("add_rows", [&](const Kernels& table) {
    std::vector<float> out = guarded(n);
    table.add_rows(cosine.data(), sine.data(), 0.7f, n, out.data());
    return out;
  });
}

}  // namespace

void test_training_kernels() {
  static_assert(sizeof(TrainingKernels) == 10 * sizeof(void*),
                "the table grew: test the new entry here");
  for (const int64_t n : kSizes) {
    test_norm(n);
    test_streams(n);
    test_gate(n);
    test_head(n);
    test_rows(n);
  }
}

}  // namespace matryo
