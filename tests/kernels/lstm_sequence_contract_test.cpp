// What the contract of lstm_sequence says about bad input, and what holds without a reference.
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <string>

#include "kernels/common/check.h"
#include "kernels/matmul/matmul.h"
#include "tests/kernels/lstm_sequence_problem.h"
#include "tests/support/close.h"
#include "tests/support/device.h"

namespace carousel::test {
namespace {

void expect_equal_bits(const LstmSolution& a, const LstmSolution& b) {
  EXPECT_EQ(a.h, b.h);
  EXPECT_EQ(a.c, b.c);
  EXPECT_EQ(a.gates, b.gates);
  const auto left = named(a.d), right = named(b.d);
  for (std::size_t i = 0; i < left.size(); ++i) {
    EXPECT_EQ(*left[i].second, *right[i].second) << left[i].first;
  }
}

using Values = std::vector<double>;

Values part(const Values& values, std::size_t first, std::size_t count) {
  const auto begin = values.begin() + static_cast<std::ptrdiff_t>(first);
  return Values(begin, begin + static_cast<std::ptrdiff_t>(count));
}

/// Steps first … first + count − 1 of a problem, starting from the given state.
LstmProblem window(const LstmProblem& p, std::size_t first, std::size_t count, const Values& h0,
                   const Values& c0) {
  LstmProblem w = p;
  const auto [T, B, I, H] = std::array{count, p.layer.B, p.layer.I, p.layer.H};
  w.layer.T = T;
  w.layer.x = part(p.layer.x, first * B * I, T * B * I);
  w.layer.h0 = h0, w.layer.c0 = c0;
  w.out.d_h = part(p.out.d_h, first * B * H, T * B * H);
  if (!p.layer.reset.empty()) {
    const auto begin = p.layer.reset.begin() + static_cast<std::ptrdiff_t>(first * B);
    w.layer.reset.assign(begin, begin + static_cast<std::ptrdiff_t>(T * B));
  }
  return w;
}

Values joined(Values a, const Values& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// Truncated BPTT without the truncation: states forwards, their gradients backwards.
TEST(LstmSequence, TwoWindowsThatHandOnTheirStateAreOneSequence) {
  const LstmProblem whole = random_lstm<float>({7, 3, 4, 5}, {}, 31);
  const std::size_t cut = 3, units = 3 * 5;
  for (const Device& device : devices()) {
    const LstmSolution want = solve<float>(device, whole);
    LstmProblem early = window(whole, 0, cut, whole.layer.h0, whole.layer.c0);
    const LstmSolution states = solve<float>(device, early);
    const LstmProblem late = window(whole, cut, 7 - cut, part(states.h, (cut - 1) * units, units),
                                    part(states.c, (cut - 1) * units, units));
    const LstmSolution second = solve<float>(device, late);
    early.out.d_h_last = second.d.d_h0, early.out.d_c_last = second.d.d_c0;
    const LstmSolution first = solve<float>(device, early);

    // Not bit for bit: products over fewer rows may sum in another order.
    EXPECT_TRUE(close(joined(first.h, second.h), want.h, kLstmForwardTolerance.f32));
    EXPECT_TRUE(close(joined(first.c, second.c), want.c, kLstmForwardTolerance.f32));
    const Tolerance& tolerance = kLstmBackwardTolerance.f32;
    EXPECT_TRUE(close(joined(first.d.d_x, second.d.d_x), want.d.d_x, tolerance));
    EXPECT_TRUE(close(first.d.d_h0, want.d.d_h0, tolerance));
    EXPECT_TRUE(close(first.d.d_c0, want.d.d_c0, tolerance));
    Values sum = first.d.d_weight_hh;
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += second.d.d_weight_hh[i];
    EXPECT_TRUE(close(sum, want.d.d_weight_hh, tolerance));
  }
}

// Even a state of NaN does not pass a reset, in either direction.
TEST(LstmSequence, AResetIsAFreshStart) {
  LstmProblem whole = random_lstm<float>({6, 2, 3, 9}, {.resets = false}, 32);
  const std::size_t cut = 4, units = 2 * 9;
  whole.layer.reset.assign(6 * 2, 0);
  std::fill_n(whole.layer.reset.begin() + static_cast<std::ptrdiff_t>(cut * 2), 2, 5);
  LstmProblem late = window(whole, cut, 2, {}, {});
  late.layer.reset.clear();
  for (const Device& device : devices()) {
    LstmProblem poisoned = whole;
    poisoned.layer.h0.assign(units, std::numeric_limits<double>::quiet_NaN());
    const LstmSolution after = solve<float>(device, poisoned), fresh = solve<float>(device, late);
    EXPECT_TRUE(std::isnan(after.h[0]));
    const Tolerance &forward = kLstmForwardTolerance.f32, &backward = kLstmBackwardTolerance.f32;
    EXPECT_TRUE(close(part(after.h, cut * units, 2 * units), fresh.h, forward));
    EXPECT_TRUE(close(part(after.c, cut * units, 2 * units), fresh.c, forward));
    EXPECT_TRUE(
        close(part(after.d.d_gates, cut * 4 * units, 2 * 4 * units), fresh.d.d_gates, backward));

    LstmProblem unreached = whole;  // all gradient enters after the reset
    std::fill_n(unreached.out.d_h.begin(), cut * units, 0.0);
    const LstmSolution before = solve<float>(device, unreached);
    EXPECT_EQ(part(before.d.d_gates, 0, cut * 4 * units), Values(cut * 4 * units, 0.0));
    EXPECT_EQ(before.d.d_h0, Values(units, 0.0));
    EXPECT_EQ(before.d.d_c0, Values(units, 0.0));
  }
}

// A reset at step 0 overrides the initial state, and its gradient is 0.
TEST(LstmSequence, AResetAtTheFirstStepForgetsTheInitialState) {
  LstmProblem given = random_lstm<float>({3, 2, 3, 4}, {.resets = false}, 33);
  given.layer.reset = {1, 1, 0, 0, 0, 0};
  LstmProblem without = given;
  without.layer.h0.clear(), without.layer.c0.clear(), without.layer.reset.clear();
  for (const Device& device : devices()) {
    const LstmSolution a = solve<float>(device, given), b = solve<float>(device, without);
    EXPECT_EQ(a.h, b.h);
    EXPECT_EQ(a.d.d_x, b.d.d_x);
    EXPECT_EQ(a.d.d_h0, Values(8, 0.0));
    EXPECT_EQ(a.d.d_c0, Values(8, 0.0));
  }
}

TEST(LstmSequence, RowsOfABatchAreStrangers) {
  const std::size_t T = 3, B = 19, I = 4, H = 21;
  const LstmProblem p = random_lstm<float>({T, B, I, H}, {}, 34);
  const auto reversed = [&](const auto& values, std::size_t width) {
    auto result = values;
    const std::size_t rows = values.size() / width;
    for (std::size_t n = 0; n < rows; ++n) {
      const std::size_t to = n / B * B + (B - 1 - n % B);
      std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(n * width), width,
                  result.begin() + static_cast<std::ptrdiff_t>(to * width));
    }
    return result;
  };
  LstmProblem q = p;
  q.layer.x = reversed(p.layer.x, I), q.layer.reset = reversed(p.layer.reset, 1);
  q.layer.h0 = reversed(p.layer.h0, H), q.layer.c0 = reversed(p.layer.c0, H);
  q.out.d_h = reversed(p.out.d_h, H);
  q.out.d_h_last = reversed(p.out.d_h_last, H), q.out.d_c_last = reversed(p.out.d_c_last, H);
  for (const Device& device : devices()) {
    const LstmSolution a = solve<float>(device, p), b = solve<float>(device, q);
    EXPECT_EQ(reversed(a.h, H), b.h);
    EXPECT_EQ(reversed(a.c, H), b.c);
    EXPECT_EQ(reversed(a.d.d_gates, 4 * H), b.d.d_gates);
    EXPECT_EQ(reversed(a.d.d_x, I), b.d.d_x);
    EXPECT_EQ(reversed(a.d.d_h0, H), b.d.d_h0);
    EXPECT_EQ(reversed(a.d.d_c0, H), b.d.d_c0);
  }
}

TEST(LstmSequence, RepeatsBitForBit) {
  const LstmProblem p = random_lstm<bf16>({5, 18, 7, 33}, {}, 35);
  for (const Device& device : devices()) {
    expect_equal_bits(solve<bf16>(device, p), solve<bf16>(device, p));
  }
}

TEST(LstmSequence, TheNumberOfThreadsDoesNotChangeTheStates) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "OpenMP\'s own barriers are not visible to ThreadSanitizer";
#endif
  const int threads = omp_get_max_threads();
  const LstmProblem p = random_lstm<float>({4, 37, 24, 96}, {}, 36);
  omp_set_num_threads(1);
  const LstmSolution one = solve<float>(Cpu{}, p);
  for (const int count : {2, 3, 8}) {
    omp_set_num_threads(count);
    const LstmSolution many = solve<float>(Cpu{}, p);
    EXPECT_EQ(one.h, many.h) << count;
    EXPECT_EQ(one.c, many.c) << count;
    EXPECT_EQ(one.d.d_gates, many.d.d_gates) << count;
    EXPECT_EQ(one.d.d_bias, many.d.d_bias) << count;
  }
  omp_set_num_threads(threads);
}

TEST(LstmSequence, Tf32RoundsProductsOnCudaAlone) {
  const LstmProblem exact = random_lstm<float>({4, 3, 24, 40}, {}, 38);
  LstmProblem rough = exact;
  rough.tf32 = true;
  for (const Device& device : devices()) {
    const LstmSolution want = solve<float>(device, exact), got = solve<float>(device, rough);
    EXPECT_EQ(got.h == want.h, is_cpu(device));
    EXPECT_EQ(got.d.d_x == want.d.d_x, is_cpu(device));
    EXPECT_TRUE(close(got.h, want.h, kMatmulTf32Tolerance));
    EXPECT_TRUE(close(got.d.d_weight_hh, want.d.d_weight_hh, kMatmulTf32Tolerance));
  }
}

TEST(LstmSequence, GradientsNobodyWantsAreNotNeeded) {
  const LstmProblem p = random_lstm<float>({4, 3, 2, 6}, {}, 37);
  for (const Device& device : devices()) {
    const LstmSolution all = solve<float>(device, p);
    const LstmRun<float> run(device, p);
    run.run(run.forward());
    LstmSequenceBackward<float> only = run.backward();
    only.d_x = {}, only.d_weight_ih = {}, only.d_bias_ih = {}, only.d_h0 = {}, only.d_c0 = {};
    only.d_bias_hh = {};
    run.run(only);
    EXPECT_EQ(run.d_weight_hh_values(), all.d.d_weight_hh);
  }
}

template <class Op>
std::string refusal(Op op, const std::function<void(Op&)>& spoil) {
  spoil(op);
  try {
    run(Device{Cpu{}}, op);
  } catch (const ShapeError& e) {
    return e.what();
  }
  return "accepted";
}

TEST(LstmSequence, RefusesTensorsThatDisagree) {
  const LstmProblem p = random_lstm<float>({4, 3, 2, 6}, {}, 38);
  const LstmRun<float> run(Cpu{}, p);
  using Forward = LstmSequenceForward<float>;
  using Backward = LstmSequenceBackward<float>;
  const auto forward = [&](auto spoil) { return refusal<Forward>(run.forward(), spoil); };
  const auto backward = [&](auto spoil) { return refusal<Backward>(run.backward(), spoil); };
  EXPECT_EQ(forward([](Forward& op) { op.weight_hh.extent[0] = 23; }),
            "lstm_sequence: an extent of weight_hh is 23, expected 24");
  EXPECT_EQ(forward([](Forward& op) { op.weight_ih.extent[1] = 3; }),
            "lstm_sequence: an extent of weight_ih is 3, expected 2");
  EXPECT_EQ(forward([](Forward& op) { op.h0.extent[0] = 4; }),
            "lstm_sequence: an extent of h0 is 4, expected 3");
  EXPECT_EQ(forward([](Forward& op) { op.gates.extent[2] = 6; }),
            "lstm_sequence: an extent of gates is 6, expected 24");
  EXPECT_EQ(forward([](Forward& op) { op.bias_hh = {}; }),
            "lstm_sequence: bias_hh, given bias_ih, is missing");
  EXPECT_EQ(forward([](Forward& op) { op.x = {}; }), "lstm_sequence: x is missing");
  EXPECT_NE(forward([](Forward&) {}).find("lstm_sequence: scratch bytes is 0, expected at least"),
            std::string::npos);
  EXPECT_EQ(backward([](Backward& op) { op.d_h_last.extent[1] = 5; }),
            "lstm_sequence: an extent of d_h_last is 5, expected 6");
  EXPECT_EQ(backward([](Backward& op) { op.d_bias_hh.extent[0] = 6; }),
            "lstm_sequence: d_bias_hh size is 6, expected 24");
  EXPECT_EQ(backward([](Backward& op) { op.reset.extent[0] = 3; }),
            "lstm_sequence: an extent of reset is 3, expected 4");
}

}  // namespace
}  // namespace carousel::test
