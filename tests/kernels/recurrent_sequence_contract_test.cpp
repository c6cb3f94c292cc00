// What the contract of recurrent_sequence says about bad input, and what holds without a reference.
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <string>

#include "kernels/common/check.h"
#include "kernels/matmul/matmul.h"
#include "tests/kernels/recurrent_options.h"
#include "tests/kernels/recurrent_sequence_run.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/products.h"

namespace carousel::test {
namespace {

Named all_of(const RecurrentSolution& r) {
  Named all = named(r.s);
  const Named gradients = named(r.d);
  all.insert(all.end(), gradients.begin(), gradients.end());
  return all;
}

void expect_equal_bits(const RecurrentSolution& a, const RecurrentSolution& b) {
  const Named left = all_of(a), right = all_of(b);
  for (std::size_t i = 0; i < left.size(); ++i) {
    EXPECT_EQ(*left[i].second, *right[i].second) << left[i].first;
  }
}

template <class V>
V part(const V& values, std::size_t first, std::size_t count) {
  if (values.empty()) return {};
  const auto begin = values.begin() + static_cast<std::ptrdiff_t>(first);
  return V(begin, begin + static_cast<std::ptrdiff_t>(count));
}

Values joined(Values a, const Values& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

/// Steps first … first + count − 1 of a problem.
RecurrentProblem window(const RecurrentProblem& p, std::size_t first, std::size_t count) {
  RecurrentProblem w = p;
  const auto [T, B, I, H] = std::array{count, p.layer.B, p.layer.I, p.layer.H};
  w.layer.T = T;
  w.layer.x = part(p.layer.x, first * B * I, T * B * I);
  w.out.d_h = part(p.out.d_h, first * B * H, T * B * H);
  w.layer.reset = part(p.layer.reset, first * B, T * B);
  return w;
}

class RecurrentContract : public testing::TestWithParam<CellKind> {};
INSTANTIATE_TEST_SUITE_P(Cells, RecurrentContract, testing::ValuesIn(tested_cells()),
                         [](const auto& each) { return test_name(each.param); });

// Truncated BPTT without the truncation: states forwards, their gradients backwards.
template <class T>
void expect_two_windows_to_be_one(CellKind cell, const Tolerance& forward,
                                  const Tolerance& backward) {
  const RecurrentProblem whole = random_problem<T>(cell, {7, 3, 4, 5}, {}, 31);
  for (const Device& device : devices()) {
    const RecurrentSolution want = solve<T>(device, whole);
    RecurrentProblem early = window(whole, 0, 3), late = window(whole, 3, 4);
    late.layer.initial = solve<T>(device, early).s.last;
    const RecurrentSolution second = solve<T>(device, late);
    early.out.d_last = second.d.d_initial;
    const RecurrentSolution first = solve<T>(device, early);

    // Not bit for bit: products over fewer rows may sum in another order.
    for (std::size_t k = 0; k < whole.layer.cell->states; ++k) {
      EXPECT_TRUE(close(joined(first.s.state[k], second.s.state[k]), want.s.state[k], forward));
      EXPECT_TRUE(close(second.s.last[k], want.s.last[k], forward));
      EXPECT_TRUE(close(first.d.d_initial[k], want.d.d_initial[k], backward));
    }
    EXPECT_TRUE(close(joined(first.d.d_x, second.d.d_x), want.d.d_x, backward));
    Values sum = first.d.d_weight_hh;
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += second.d.d_weight_hh[i];
    EXPECT_TRUE(close(sum, want.d.d_weight_hh, backward));
  }
}
TEST_P(RecurrentContract, TwoWindowsThatHandOnTheirStateAreOneSequence) {
  expect_two_windows_to_be_one<float>(GetParam(), kRecurrentForwardTolerance.f32,
                                      kRecurrentBackwardTolerance.f32);
}
TEST_P(RecurrentContract, TwoWindowsInBf16AreOneSequence) {
  // States are handed on as stored, so that only sums in another order may differ by a rounding.
  expect_two_windows_to_be_one<bf16>(GetParam(), {.absolute = 1e-3, .relative = 8e-3},
                                     {.absolute = 1e-2, .relative = 1e-2});
}

// Even a state of NaN does not pass a reset, in either direction.
TEST_P(RecurrentContract, AResetIsAFreshStart) {
  RecurrentProblem whole = random_problem<float>(GetParam(), {6, 2, 3, 9}, {.resets = false}, 32);
  const std::size_t cut = 4, units = 2 * 9;
  for (std::size_t b = 0; b < 6 * 2; ++b) whole.layer.reset.push_back(b / 2 == cut);
  RecurrentProblem poisoned = whole;
  std::fill_n(poisoned.layer.x.begin(), cut * 2 * 3, std::numeric_limits<double>::quiet_NaN());
  RecurrentProblem late = window(whole, cut, 6 - cut);
  late.layer.initial = {}, late.layer.reset.clear();
  RecurrentProblem unreached = whole;
  std::fill_n(unreached.out.d_h.begin(), cut * units, 0.0);
  for (const Device& device : devices()) {
    const RecurrentSolution want = solve<float>(device, late);
    const RecurrentSolution after = solve<float>(device, poisoned);
    EXPECT_TRUE(close(part(after.s.state[0], cut * units, 2 * units), want.s.state[0],
                      kRecurrentForwardTolerance.f32));
    EXPECT_TRUE(close(part(after.d.d_x, cut * 2 * 3, 2 * 2 * 3), want.d.d_x,
                      kRecurrentBackwardTolerance.f32));
    const RecurrentSolution before = solve<float>(device, unreached);
    const std::size_t gates = whole.layer.cell->gates;
    EXPECT_EQ(part(before.d.d_gates, 0, cut * gates * units), Values(cut * gates * units, 0.0));
    for (std::size_t k = 0; k < whole.layer.cell->states; ++k) {
      EXPECT_EQ(before.d.d_initial[k], Values(units, 0.0));
    }
  }
}

// A reset at step 0 overrides the initial state, and its gradient is 0.
TEST_P(RecurrentContract, AResetAtTheFirstStepForgetsTheInitialState) {
  RecurrentProblem given = random_problem<float>(GetParam(), {3, 2, 3, 4}, {.resets = false}, 33);
  given.layer.reset = {1, 1, 0, 0, 0, 0};
  RecurrentProblem without = given;
  without.layer.initial = {}, without.layer.reset.clear();
  for (const Device& device : devices()) {
    const RecurrentSolution a = solve<float>(device, given), b = solve<float>(device, without);
    EXPECT_EQ(a.s.state[0], b.s.state[0]);
    EXPECT_EQ(a.d.d_x, b.d.d_x);
    for (std::size_t k = 0; k < given.layer.cell->states; ++k) {
      EXPECT_EQ(a.d.d_initial[k], Values(8, 0.0));
    }
  }
}

/// A problem with NaN wherever a row has no step.
RecurrentProblem with_padding(RecurrentProblem p, double padding) {
  for (std::size_t n = 0; n < p.layer.T * p.layer.B; ++n) {
    const std::size_t t = n / p.layer.B, b = n % p.layer.B;
    if (p.layer.first(b) <= t && t < p.layer.past(b)) continue;
    const auto fill = [&](Values& values, std::size_t width) {
      std::fill_n(values.begin() + static_cast<std::ptrdiff_t>(n * width), width, padding);
    };
    fill(p.layer.x, p.layer.I), fill(p.out.d_h, p.layer.H);
  }
  return p;
}

TEST_P(RecurrentContract, PaddingHasNoInfluence) {
  const RecurrentProblem p = random_problem<float>(GetParam(), {5, 19, 4, 7}, {.ranges = true}, 39);
  const RecurrentProblem zeros = with_padding(p, 0);
  const RecurrentProblem poison = with_padding(p, std::numeric_limits<double>::quiet_NaN());
  for (const Device& device : devices()) {
    expect_equal_bits(solve<float>(device, poison), solve<float>(device, zeros));
    const RecurrentProblem rough =
        with_padding(random_problem<bf16>(GetParam(), {5, 19, 4, 7}, {.ranges = true}, 39),
                     std::numeric_limits<double>::quiet_NaN());
    const RecurrentSolution solution = solve<bf16>(device, rough);
    for (const auto& [name, values] : all_of(solution)) {
      EXPECT_TRUE(std::none_of(values->begin(), values->end(), [](double v) { return v != v; }))
          << name;
    }
  }
}

// Ranges beyond the sequence are cut to it; one that ends before it begins is empty.
TEST_P(RecurrentContract, RangesAreClamped) {
  RecurrentProblem p = random_problem<float>(GetParam(), {4, 3, 2, 6}, {.resets = false}, 40);
  p.layer.begin = {-3, 3, 9}, p.layer.end = {9, 1, 12};
  RecurrentProblem same = p;
  same.layer.begin = {0, 0, 0}, same.layer.end = {4, 0, 0};
  for (const Device& device : devices()) {
    const RecurrentSolution a = solve<float>(device, p);
    expect_equal_bits(a, solve<float>(device, same));
    RecurrentProblem open = p;  // from the first step, to the last
    open.layer.begin = {}, open.layer.end = {4, 0, 2};
    RecurrentProblem closed = open;
    closed.layer.begin = {0, 0, 0};
    expect_equal_bits(solve<float>(device, open), solve<float>(device, closed));
    open.layer.begin = {3, 0, 2}, open.layer.end = {};
    closed.layer.begin = {3, 0, 2}, closed.layer.end = {4, 4, 4};
    expect_equal_bits(solve<float>(device, open), solve<float>(device, closed));
    EXPECT_EQ(part(a.s.last[0], 6, 12), part(p.layer.initial[0], 6, 12));
    EXPECT_EQ(part(a.d.d_initial[0], 6, 12), part(p.out.d_last[0], 6, 12));
  }
}

TEST_P(RecurrentContract, RowsOfABatchAreStrangers) {
  const std::size_t T = 3, B = 19, I = 4, H = 21;
  const RecurrentProblem p = random_problem<float>(GetParam(), {T, B, I, H}, {.ranges = true}, 34);
  const auto reversed = [&](const auto& values, std::size_t width) {
    auto result = values;
    for (std::size_t n = 0; n < values.size() / width; ++n) {
      const std::size_t to = n / B * B + (B - 1 - n % B);
      std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(n * width), width,
                  result.begin() + static_cast<std::ptrdiff_t>(to * width));
    }
    return result;
  };
  RecurrentProblem q = p;
  q.layer.x = reversed(p.layer.x, I), q.layer.reset = reversed(p.layer.reset, 1);
  q.layer.begin = reversed(p.layer.begin, 1), q.layer.end = reversed(p.layer.end, 1);
  q.out.d_h = reversed(p.out.d_h, H);
  for (std::size_t k = 0; k < kStates; ++k) {
    q.layer.initial[k] = reversed(p.layer.initial[k], H);
    q.out.d_last[k] = reversed(p.out.d_last[k], H);
  }
  for (const Device& device : devices()) {
    const RecurrentSolution a = solve<float>(device, p), b = solve<float>(device, q);
    EXPECT_EQ(reversed(a.d.d_gates, p.layer.cell->gates * H), b.d.d_gates);
    EXPECT_EQ(reversed(a.d.d_x, I), b.d.d_x);
    for (std::size_t k = 0; k < p.layer.cell->states; ++k) {
      EXPECT_EQ(reversed(a.s.state[k], H), b.s.state[k]);
      EXPECT_EQ(reversed(a.s.last[k], H), b.s.last[k]);
      EXPECT_EQ(reversed(a.d.d_initial[k], H), b.d.d_initial[k]);
    }
  }
}

TEST_P(RecurrentContract, RepeatsBitForBit) {
  const RecurrentProblem p = random_problem<bf16>(GetParam(), {5, 18, 7, 33}, {}, 35);
  for (const Device& device : devices()) {
    expect_equal_bits(solve<bf16>(device, p), solve<bf16>(device, p));
  }
}

/// One gradient after the other is added to what is there; no other may be.
void expect_own_accumulate_flags(const Device& device, const RecurrentProblem& p) {
  const RecurrentSolution plain = solve<float>(device, p);
  const Named want = named(plain.d);
  for (const auto& [flag, values] : want) {
    if (flag == "d_gates" || values->empty()) continue;
    RecurrentProblem adding = p;
    adding.accumulate = {flag};
    const RecurrentSolution solution = solve<float>(device, adding);
    const Named got = named(solution.d);
    for (std::size_t i = 0; i < want.size(); ++i) {
      Values expected = *want[i].second;
      if (want[i].first == flag) {
        for (double& v : expected) v += kOld;
      }
      EXPECT_TRUE(close(*got[i].second, expected, {.absolute = 1e-6, .relative = 1e-6}))
          << want[i].first << " while adding to " << flag;
    }
  }
}
// Each set of parts takes its own way to the gradients of x and W_hh.
TEST_P(RecurrentContract, EveryGradientHasItsOwnAccumulateFlag) {
  RecurrentParts options{.start = true, .carried = true};
  options.projection = legal(GetParam(), options_of({"projection"}));
  options.gain = legal(GetParam(), options_of({"gain"}));
  for (const RecurrentParts& parts : {RecurrentParts{.resets = false}, {.ranges = true}, options}) {
    const RecurrentProblem p = random_problem<float>(GetParam(), {4, 3, 4, 6}, parts, 41);
    for (const Device& device : devices()) expect_own_accumulate_flags(device, p);
  }
}

TEST_P(RecurrentContract, ALayerWithoutUnitsMayHaveItsMatrix) {
  if (!GetParam()->multiplies) GTEST_SKIP() << "no recurrent product";
  const RecurrentProblem p = random_problem<float>(GetParam(), {2, 2, 3, 0}, {}, 37);
  for (const Device& device : devices()) {
    const RecurrentRun<float> run(device, p);
    auto forward = run.forward();
    auto backward = run.backward();
    forward.weight_hh.data = backward.weight_hh.data = forward.x.data;  // there, and empty
    run.run(forward);
    run.run(backward);
    EXPECT_EQ(run.d_x_values(), Values(2 * 2 * 3, 0.0));
  }
}

TEST_P(RecurrentContract, TheNumberOfThreadsDoesNotChangeTheStates) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "OpenMP\'s own barriers are not visible to ThreadSanitizer";
#endif
  const int threads = omp_get_max_threads();
  const RecurrentProblem p = random_problem<float>(GetParam(), {4, 37, 24, 96}, {}, 36);
  omp_set_num_threads(1);
  const RecurrentSolution one = solve<float>(Cpu{}, p);
  for (const int count : {2, 3, 8}) {
    omp_set_num_threads(count);
    const RecurrentSolution many = solve<float>(Cpu{}, p);
    EXPECT_EQ(one.s.state, many.s.state) << count;
    EXPECT_EQ(one.d.d_gates, many.d.d_gates) << count;
    EXPECT_EQ(one.d.d_bias_ih, many.d.d_bias_ih) << count;
    EXPECT_EQ(one.d.d_parameter, many.d.d_parameter) << count;
  }
  omp_set_num_threads(threads);
}

TEST(RecurrentSequence, Tf32RoundsProductsWhereItRan) {
  for (const RecurrentSize& size : {RecurrentSize{4, 3, 24, 40}, RecurrentSize{2, 8, 512, 128}}) {
    const RecurrentProblem exact = random_problem<float>(cell_kind("lstm"), size, {}, 38);
    RecurrentProblem rough = exact;
    rough.tf32 = true;
    for (const Device& device : devices()) {
      const RecurrentSolution want = solve<float>(device, exact);
      RecurrentSolution got;
      const bool rounds = ran_in_tf32([&] { got = solve<float>(device, rough); });
      EXPECT_EQ(got.s.state[0] != want.s.state[0], rounds);
      EXPECT_EQ(got.d.d_x != want.d.d_x, rounds);
      EXPECT_FALSE(rounds && is_cpu(device));
      if (!has_gpu() && !is_cpu(device)) {
        EXPECT_EQ(rounds, size.I == 512);
      }
      EXPECT_TRUE(close(got.s.state[0], want.s.state[0], kMatmulTf32Tolerance));
      EXPECT_TRUE(close(got.d.d_weight_hh, want.d.d_weight_hh, kMatmulTf32Tolerance));
    }
  }
}

TEST_P(RecurrentContract, UnwantedGradientsAreNotNeeded) {
  const RecurrentProblem p = random_problem<float>(GetParam(), {4, 3, 2, 6}, {}, 37);
  for (const Device& device : devices()) {
    const RecurrentSolution all = solve<float>(device, p);
    const RecurrentRun<float> run(device, p);
    run.run(run.forward());
    RecurrentSequenceBackward<float> only = run.backward();
    only.d_x = {}, only.d_weight_ih = {}, only.d_bias_ih = {}, only.d_h0 = {}, only.d_state0 = {};
    only.d_bias_hh = {}, only.d_parameter = {};
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

TEST(RecurrentSequence, RefusesTensorsThatDisagree) {
  const RecurrentProblem p = random_problem<float>(cell_kind("lstm"), {4, 3, 2, 6}, {}, 38);
  const RecurrentRun<float> run(Cpu{}, p);
  using Forward = RecurrentSequenceForward<float>;
  using Backward = RecurrentSequenceBackward<float>;
  const auto forward = [&](auto spoil) { return refusal<Forward>(run.forward(), spoil); };
  const auto backward = [&](auto spoil) { return refusal<Backward>(run.backward(), spoil); };
  EXPECT_EQ(forward([](Forward& op) { op.weight_hh.extent[0] = 23; }),
            "recurrent_sequence: an extent of weight_hh is 23, expected 24");
  EXPECT_EQ(forward([](Forward& op) { op.weight_ih.extent[1] = 3; }),
            "recurrent_sequence: an extent of weight_ih is 3, expected 2");
  EXPECT_EQ(forward([](Forward& op) { op.h0.extent[0] = 4; }),
            "recurrent_sequence: an extent of h0 is 4, expected 3");
  EXPECT_EQ(forward([](Forward& op) { op.gates.extent[2] = 6; }),
            "recurrent_sequence: an extent of gates is 6, expected 24");
  EXPECT_EQ(forward([](Forward& op) { op.bias_hh = {}; }),
            "recurrent_sequence: bias_hh, given bias_ih, is missing");
  EXPECT_EQ(forward([](Forward& op) { op.x = {}; }), "recurrent_sequence: x is missing");
  EXPECT_EQ(forward([](Forward& op) { op.cell = nullptr; }), "recurrent_sequence: cell is missing");
  EXPECT_EQ(forward([](Forward& op) { op.state[0] = {}; }), "recurrent_sequence: state is missing");
  EXPECT_EQ(forward([](Forward& op) { op.state[1] = op.state[0]; }),
            "recurrent_sequence: state 1 is given, which lstm has not");
  static const std::int32_t end[2] = {};
  EXPECT_EQ(forward([](Forward& op) {
              op.rows.end = {end, {2}};
            }),
            "recurrent_sequence: an extent of rows.end is 2, expected 3");
  EXPECT_NE(
      forward([](Forward&) {}).find("recurrent_sequence: scratch bytes is 0, expected at least"),
      std::string::npos);
  EXPECT_EQ(backward([](Backward& op) { op.d_h_last.extent[1] = 5; }),
            "recurrent_sequence: an extent of d_h_last is 5, expected 6");
  EXPECT_EQ(backward([](Backward& op) { op.d_bias_hh.view.extent[0] = 6; }),
            "recurrent_sequence: an extent of d_bias_hh is 6, expected 24");
  EXPECT_EQ(backward([](Backward& op) { op.reset.extent[0] = 3; }),
            "recurrent_sequence: an extent of reset is 3, expected 4");
  EXPECT_EQ(backward([](Backward& op) { op.weight_hh = {}; }),
            "recurrent_sequence: weight_hh, given d_weight_hh, is missing");
  EXPECT_THROW(cell_kind("lsmt"), ConfigError);
}

}  // namespace
}  // namespace carousel::test
