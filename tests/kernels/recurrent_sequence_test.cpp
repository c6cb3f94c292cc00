#include "kernels/recurrent_sequence/recurrent_sequence.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <tuple>

#include "tests/kernels/recurrent_options.h"
#include "tests/kernels/recurrent_sequence_run.h"
#include "tests/support/close.h"
#include "tests/support/device.h"

namespace carousel::test {
namespace {

constexpr RecurrentParts kAllParts{};
constexpr RecurrentParts kNoParts{
    .biases = false, .state = false, .resets = false, .d_h = false, .d_last = false};
constexpr RecurrentParts kRanges{.ranges = true};

template <class T>
const Tolerance& of(const Tolerances& t) {
  return std::is_same_v<T, bf16> ? t.bf16 : t.f32;
}

void expect_close(const Named& got, const Named& want, const Tolerance& tolerance) {
  for (std::size_t i = 0; i < want.size(); ++i) {
    EXPECT_TRUE(close(*got[i].second, *want[i].second, tolerance)) << want[i].first;
  }
}

// σ(±ln 3) = 3/4, 1/4; tanh ln 2 = 3/5; c0 is chosen so that c = c0/4 + 9/20 = ln 2.
TEST(RecurrentSequence, OneStepOfAnLstmWorkedByHand) {
  const double ln2 = std::log(2.0), ln3 = std::log(3.0), c0 = 4 * (ln2 - 0.45);
  RecurrentProblem p{.cell = cell_kind("lstm")};
  p.layer = {.cell = &reference::cell("lstm"), .T = 1, .B = 1, .I = 1, .H = 1};
  p.layer.x = {2}, p.layer.weight_ih = {ln3 / 2, -ln3 / 2, 0, 0};  // i and f from the input
  p.layer.weight_hh = {0, 0, ln2 - 1, -1};                         // g and o from the state …
  p.layer.bias_ih = {0, 0, 0.25, 0.5}, p.layer.bias_hh = {0, 0, 0.75, 0.5};  // … and the biases
  p.layer.initial = {Values{1}, Values{c0}};
  p.out.d_h = {1};
  const Values d_a{0.036, 0.06 * c0, 0.1536, 0.15};
  const Tolerance tolerance{.absolute = 2e-7};
  for (const Device& device : devices()) {
    const auto [s, d] = solve<float>(device, p);
    EXPECT_TRUE(close(s.gates, Values{0.75, 0.25, 0.6, 0.5}, tolerance));
    EXPECT_TRUE(close(s.state[1], Values{ln2}, tolerance));
    EXPECT_TRUE(close(s.state[0], Values{0.3}, tolerance));
    EXPECT_TRUE(close(d.d_gates, d_a, tolerance));
    EXPECT_TRUE(close(d.d_bias_ih, d_a, tolerance));
    EXPECT_TRUE(close(d.d_weight_hh, d_a, tolerance));  // h0 is 1
    EXPECT_TRUE(close(d.d_x, Values{(d_a[0] - d_a[1]) * ln3 / 2}, tolerance));
    EXPECT_TRUE(close(d.d_initial[0], Values{d_a[2] * (ln2 - 1) - d_a[3]}, tolerance));
    EXPECT_TRUE(close(d.d_initial[1], Values{0.08}, tolerance));
  }
}

/// A layer of one unit, one row and one step, whose answers are known: x = 2, h0 = −1, d_h = 1.
struct HandCase {
  const char* cell;
  Values weight_ih, weight_hh, bias_ih, bias_hh;
  double h;
  Values d_bias_ih, d_bias_hh;
  double d_h0;
  Values parameter{}, d_parameter{};
  Values state0{}, d_state0{};  ///< of the float states
};
const std::vector<HandCase>& hand_cases() {
  static const double ln2 = std::log(2.0), ln3 = std::log(3.0);
  static const double c0 = 4 * (ln2 - 0.45), d_c = 0.48 + 0.1125 * ln3 / ln2;
  static const std::vector<HandCase> cases{
      {"gru",
       {ln3 / 2, -ln3 / 2, 0},  // r, z = 3/4, 1/4; u_n = 4/3·ln 2, so that n = 3/5
       {0, 0, -ln2},
       {0, 0, 0},
       {0, 0, ln2 / 3},
       0.2,
       {0.12 * ln2, -0.3, 0.48},
       {0.12 * ln2, -0.3, 0.36},
       0.25 - 0.36 * ln2},
      {"gru_reset_before",
       {ln3 / 2, -ln3 / 2, 0},  // r, z = 3/4, 1/4; W·(r·h0) = ln 2, so that n = 3/5
       {0, 0, -4 * ln2 / 3},
       {0, 0, 0},
       {0, 0, 0},
       0.2,
       {0.12 * ln2, -0.3, 0.48},
       {0.12 * ln2, -0.3, 0.48},
       0.25 - 0.48 * ln2},
      {"lstm_peephole",  // i, f = 3/4, 1/4 by c0; g = 3/5, c = ln 2, by which o = 3/4
       {0, 0, ln2, 0},
       {0, 0, ln2, 0},
       {0, 0, 0, 0},
       {0, 0, 0, 0},
       0.45,
       {0.1125 * d_c, 0.1875 * c0 * d_c, 0.48 * d_c, 0.1125},
       {0.1125 * d_c, 0.1875 * c0 * d_c, 0.48 * d_c, 0.1125},
       0.48 * d_c * ln2,
       {ln3 / c0, -ln3 / c0, ln3 / ln2},
       {0.1125 * d_c * c0, 0.1875 * c0 * c0 * d_c, 0.1125 * ln2},
       {c0},
       {d_c / 4 + 0.1125 * d_c * ln3 / c0 - 0.1875 * d_c * ln3}},
      {"lstm_layer_norm",  // one number, normalized, is 0: o = 3/4, tanh(bias) = 3/5
       {0.5, 0.25, 0.125, 0},
       {0.5, 0.25, 0.125, 0},
       {0, 0, 0, ln3},
       {0, 0, 0, 0},
       0.45,
       {0, 0, 0, 0.1125},
       {0, 0, 0, 0.1125},
       0,
       {2, ln2},
       {0, 0.48},
       {0.5},
       {0}},
      {"slstm",  // σ(a_f) = 1/4, m = 0, so that i = 1, f = 1/2; z = 3/5, o = 3/4; c = 1, n = 2
       {0, -ln3 / 2, ln2, 0},
       {0, 0, ln2, 0},
       {0, 0, 0, ln3},
       {0, 0, 0, 0},
       0.375,
       {0.0375, -0.028125, 0.24, 0.09375},
       {0.0375, -0.028125, 0.24, 0.09375},
       0.24 * ln2,
       {},
       {},
       {0.8, 2, ln2},
       {0.1875, -0.09375, 0}},
      {"tanh", {ln2}, {ln2}, {0.25}, {-0.25}, 0.6, {0.64}, {0.64}, 0.64 * ln2},
      {"relu", {1}, {0.5}, {0.25}, {0.75}, 2.5, {1}, {1}, 0.5},
      {"relu", {-1}, {0.5}, {0.25}, {0.75}, 0, {0}, {0}, 0},
      {"linear", {-1}, {0.5}, {0.25}, {0.75}, -1.5, {1}, {1}, 0.5},
      {"indrnn", {1}, {}, {0.25}, {}, 1.75, {1}, {}, 0.5, {0.5}, {-1}},
      {"indrnn", {-1}, {}, {0.25}, {}, 0, {0}, {}, 0, {0.5}, {0}},
      {"indrnn_tanh", {ln2}, {}, {0}, {}, 0.6, {0.64}, {}, 0.64 * ln2, {ln2}, {-0.64}},
  };
  return cases;
}
TEST(RecurrentSequence, OneStepWorkedByHand) {
  for (const HandCase& hand : hand_cases()) {
    SCOPED_TRACE(hand.cell);
    RecurrentProblem p{.cell = cell_kind(hand.cell)};
    p.layer = {.cell = &reference::cell(hand.cell), .T = 1, .B = 1, .I = 1, .H = 1};
    p.layer.x = {2}, p.layer.initial[0] = {-1}, p.out.d_h = {1};
    p.layer.weight_ih = hand.weight_ih, p.layer.weight_hh = hand.weight_hh;
    p.layer.bias_ih = hand.bias_ih, p.layer.bias_hh = hand.bias_hh;
    p.layer.parameter = hand.parameter;
    for (std::size_t k = 0; k < hand.state0.size(); ++k) {
      p.layer.initial[k + 1] = {hand.state0[k]};
    }
    const Tolerance tolerance{.absolute = 2e-7};
    for (const Device& device : devices()) {
      const auto [s, d] = solve<float>(device, p);
      EXPECT_TRUE(close(s.state[0], Values{hand.h}, tolerance));
      EXPECT_TRUE(close(d.d_bias_ih, hand.d_bias_ih, tolerance));
      EXPECT_TRUE(close(d.d_bias_hh, hand.d_bias_hh, tolerance));
      EXPECT_TRUE(close(d.d_initial[0], Values{hand.d_h0}, tolerance));
      EXPECT_TRUE(close(d.d_parameter, hand.d_parameter, tolerance));
      for (std::size_t k = 0; k < hand.d_state0.size(); ++k) {
        EXPECT_TRUE(close(d.d_initial[k + 1], Values{hand.d_state0[k]}, tolerance)) << k;
      }
    }
  }
}

// The cell states 3 and 1 are kept by an open forget gate; normalized, they are ±1/√(1 + 1e-5).
TEST(RecurrentSequence, ANormalizedCellStateWorkedByHand) {
  RecurrentProblem p{.cell = cell_kind("lstm_layer_norm")};
  p.layer = {.cell = &reference::cell("lstm_layer_norm"), .T = 1, .B = 1, .I = 0, .H = 2};
  p.layer.bias_ih = {-100, -100, 100, 100, 0, 0, 0, 0}, p.layer.bias_hh = Values(8, 0.0);
  p.layer.weight_hh = Values(16, 0.0), p.layer.parameter = {1, 1, 0, 0};
  p.layer.initial = {Values{0, 0}, Values{3, 1}};
  const double h = std::tanh(1 / std::sqrt(1 + 1e-5)) / 2;
  for (const Device& device : devices()) {
    const auto s = solve<float>(device, p).s;
    EXPECT_TRUE(close(s.state[0], Values{h, -h}, {.absolute = 2e-7}));
    EXPECT_TRUE(close(s.state[1], Values{3, 1}, {.absolute = 2e-7}));
  }
}

TEST(RecurrentSequence, EveryCellHasItsHandCase) {
  for (const CellKind cell : cell_kinds()) {
    const auto& cases = hand_cases();
    EXPECT_TRUE(cell->name == "lstm" ||
                std::any_of(cases.begin(), cases.end(),
                            [&](const HandCase& hand) { return hand.cell == cell->name; }))
        << cell->name;
  }
}

TEST(RecurrentSequence, TimeMayExceedAGridDimension) {
  RecurrentProblem p{.cell = cell_kind("linear")};
  p.layer = {.cell = &reference::cell("linear"), .T = 70'000, .B = 1, .I = 1, .H = 1};
  p.layer.x.assign(p.layer.T, 1.0);
  p.layer.weight_ih = p.layer.weight_hh = {1};
  p.layer.begin = {1'000}, p.layer.end = {69'999};
  EXPECT_EQ(solve<double>(Cpu{}, p).s.last[0][0], 68'999);  // counts the steps
}

struct Worst {
  double forward = 0, backward = 0;
};

/// The worst excess of any output over seeded problems within the contract's conditions, each cell
/// plain and with each of its options: of those without a normalization, and of those with one.
template <class T>
std::array<Worst, 2> worst_of_sweep() {
  std::array<Worst, 2> all;
  const auto worst = [](const Named& a, const Named& b, const Tolerance& tolerance) {
    double most = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
      most = std::max(most, worst_excess(*a[i].second, *b[i].second, tolerance));
    }
    return most;
  };
  for (const CellKind cell : tested_cells()) {
    const std::vector<OptionSet> sets = single_options(cell);
    for (unsigned seed = 100; seed < 112 + sets.size(); ++seed) {
      const OptionSet set = seed < 112 ? OptionSet{} : sets[seed % sets.size()];
      RecurrentParts parts = parts_of(set);
      const bool normalizes = parts.gain || cell->normalized_phases() > 0;
      RecurrentSize size{1 + seed * 37 % 64, 1 + seed % 5, seed % 9, 1 + seed * 7 % 40};
      if (seed % 12 == 0) size = {2, 16, 128, 256};  // long sums
      if (!set.empty()) size = {1 + seed * 37 % 16, 1 + seed % 4, seed % 9, 1 + seed * 7 % 24};
      if (normalizes) size.H += 8, size.I += 4;
      if (has(set, "cell_clip")) size = {5, 3, 4, 8};  // bf16 decides on gradients of larger ones
      parts.biases = parts.gain || seed % 2 == 0, parts.state = seed % 3 != 0;
      parts.resets = seed % 4 == 1, parts.ranges = parts.ranges || seed % 5 == 2;
      const RecurrentProblem p = random_problem<T>(cell, size, parts, seed);
      const RecurrentSolution want = expected(p);
      Worst& here = all[normalizes ? 1 : 0];
      for (const Device& device : devices()) {
        const RecurrentSolution got = solve<T>(device, p);
        const double forward = worst(named(got.s), named(want.s), of<T>(p.forward_tolerance()));
        const double backward = worst(named(got.d), named(want.d), of<T>(p.backward_tolerance()));
        here = {std::max(here.forward, forward), std::max(here.backward, backward)};
      }
    }
  }
  return all;
}

template <class T>
void expect_recorded_worst() {
  const auto [plain, normalized] = worst_of_sweep<T>();
  expect_recorded(plain.forward, of<T>(kRecurrentForwardTolerance));
  expect_recorded(plain.backward, of<T>(kRecurrentBackwardTolerance));
  expect_recorded(normalized.forward, of<T>(kNormalizedForwardTolerance));
  expect_recorded(normalized.backward, of<T>(kNormalizedBackwardTolerance));
}
TEST(RecurrentSequence, SweepStaysWithinTheRecordedWorstInFloat) { expect_recorded_worst<float>(); }
TEST(RecurrentSequence, SweepStaysWithinTheRecordedWorstInBf16) { expect_recorded_worst<bf16>(); }

using Case = std::tuple<CellKind, RecurrentSize>;
class RecurrentSequenceParity : public testing::TestWithParam<Case> {
 protected:
  template <class T>
  void expect_parity() {
    const auto& [cell, size] = GetParam();
    RecurrentProblem problems[] = {
        random_problem<T>(cell, size, kNoParts, 21),
        random_problem<T>(cell, size, kAllParts, 22),
        random_problem<T>(cell, size, {.resets = false, .d_last = false}, 23),
        random_problem<T>(cell, size, {.biases = false, .state = false, .d_h = false}, 24),
        random_problem<T>(cell, size, kRanges, 25),
        random_problem<T>(cell, size, {.resets = false, .ranges = true, .weight_hh = false}, 26)};
    problems[2].accumulate = problems[3].accumulate = problems[4].accumulate = all_gradients();
    for (const RecurrentProblem& p : problems) {
      const RecurrentSolution want = expected(p);
      for (const Device& device : devices()) {
        SCOPED_TRACE(device_name(device) + ", problem " + std::to_string(&p - problems));
        const RecurrentSolution got = solve<T>(device, p);
        expect_close(named(got.s), named(want.s), of<T>(p.forward_tolerance()));
        expect_close(named(got.d), named(want.d), of<T>(p.backward_tolerance()));
      }
    }
  }
};
TEST_P(RecurrentSequenceParity, EveryDeviceMatchesTheOracleInFloat) { expect_parity<float>(); }
TEST_P(RecurrentSequenceParity, EveryDeviceMatchesTheOracleInBf16) { expect_parity<bf16>(); }

std::string case_name(const testing::TestParamInfo<Case>& info) {
  const auto& [cell, s] = info.param;
  return fmt::format("{}_T{}B{}I{}H{}", test_name(cell), s.T, s.B, s.I, s.H);
}

// None, one, the sizes around a warp and around a vector, a long sequence, a real layer.
INSTANTIATE_TEST_SUITE_P(
    AwkwardSizes, RecurrentSequenceParity,
    testing::Combine(testing::ValuesIn(tested_cells()),
                     testing::Values(RecurrentSize{0, 3, 2, 5}, RecurrentSize{3, 0, 2, 5},
                                     RecurrentSize{4, 3, 0, 8}, RecurrentSize{2, 2, 3, 0},
                                     RecurrentSize{1, 1, 1, 1}, RecurrentSize{5, 3, 7, 5},
                                     RecurrentSize{2, 31, 3, 33}, RecurrentSize{3, 33, 5, 31},
                                     RecurrentSize{64, 2, 4, 12}, RecurrentSize{3, 17, 40, 64})),
    case_name);

}  // namespace
}  // namespace carousel::test
