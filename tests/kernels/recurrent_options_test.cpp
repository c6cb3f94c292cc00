// Every option of recurrent_sequence with every cell that has it, against the oracle; the oracle
// against its own forward pass.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/kernels/recurrent_options.h"
#include "tests/kernels/recurrent_sequence_run.h"
#include "tests/support/close.h"
#include "tests/support/device.h"

namespace carousel::test {
namespace {

class RecurrentOptions : public testing::TestWithParam<CellKind> {};
INSTANTIATE_TEST_SUITE_P(Cells, RecurrentOptions, testing::ValuesIn(tested_cells()),
                         [](const auto& each) { return test_name(each.param); });

double loss(const RecurrentProblem& p, const reference::LayerStates& s) {
  double sum = 0;
  for (std::size_t n = 0; n < s.state[0].size(); ++n) sum += p.out.d_h[n] * s.state[0][n];
  for (std::size_t k = 0; k < kStates; ++k) {
    for (std::size_t n = 0; n < p.out.d_last[k].size(); ++n) {
      sum += p.out.d_last[k][n] * s.last[k][n];
    }
  }
  return sum;
}

/// What a problem's loss depends on, with the gradients of a solution.
std::vector<std::tuple<std::string, Values*, const Values*>> inputs_of(
    RecurrentProblem& p, const reference::LayerGradients& d) {
  reference::Layer& l = p.layer;
  std::vector<std::tuple<std::string, Values*, const Values*>> all{
      {"x", &l.x, &d.d_x},
      {"weight_ih", &l.weight_ih, &d.d_weight_ih},
      {"weight_hh", &l.weight_hh, &d.d_weight_hh},
      {"weight_hr", &l.weight_hr, &d.d_weight_hr},
      {"bias_ih", &l.bias_ih, &d.d_bias_ih},
      {"bias_hh", &l.bias_hh, &d.d_bias_hh},
      {"gain", &l.gain, &d.d_gain},
      {"parameter", &l.parameter, &d.d_parameter}};
  const std::size_t states = l.cell->name == "slstm" ? 3 : l.cell->states;  // without m
  for (std::size_t k = 0; k < states; ++k) {
    all.emplace_back("initial" + std::to_string(k), &l.initial[k], &d.d_initial[k]);
    all.emplace_back("start" + std::to_string(k), &l.start[k], &d.d_start[k]);
  }
  return all;
}

/// Central differences of the loss, of fourth order, along random directions of every input.
template <class Forward>
void expect_gradients(RecurrentProblem p, const reference::LayerGradients& d,
                      const Forward& forward) {
  std::mt19937 random(17);
  std::normal_distribution<double> normal;
  for (const auto& [name, values, gradient] : inputs_of(p, d)) {
    ASSERT_EQ(values->size(), gradient->size()) << name;
    const Values at = *values;
    for (int repeat = 0; repeat < 2 && !at.empty(); ++repeat) {
      Values direction(at.size());
      double length = 0, slope = 0;
      for (double& v : direction) v = normal(random), length += v * v;
      length = std::sqrt(length);
      for (std::size_t i = 0; i < at.size(); ++i) slope += direction[i] / length * (*gradient)[i];
      const auto along = [&](double step) {
        for (std::size_t i = 0; i < at.size(); ++i) {
          (*values)[i] = at[i] + step * direction[i] / length;
        }
        return loss(p, forward(p));
      };
      constexpr double kStep = 2e-5;
      const double near = along(kStep) - along(-kStep), far = along(2 * kStep) - along(-2 * kStep);
      const double difference = (8 * near - far) / (12 * kStep);
      EXPECT_NEAR(slope, difference, 2e-8 * std::max(1.0, std::abs(slope))) << name;
    }
    *values = at;
  }
}

/// Calls check(problem) for every option of a cell whose gradients are derivatives.
template <class Check>
void for_differentiable(CellKind cell, const Check& check) {
  for (const OptionSet& set : single_options(cell)) {
    if (has(set, "gradient_clip")) continue;
    SCOPED_TRACE(option_names(set));
    RecurrentProblem p = random_problem<double>(cell, {4, 3, 2, 6}, parts_of(set), 11);
    // The gradients of sLSTM are those of a constant stabilizer: of h alone they are derivatives.
    if (cell->name == "slstm") p.out.d_last[1] = p.out.d_last[2] = p.out.d_last[3] = {};
    check(p);
  }
}

TEST_P(RecurrentOptions, TheOracleIsItsForwardPassDifferentiated) {
  for_differentiable(GetParam(), [](const RecurrentProblem& p) {
    expect_gradients(p, expected(p).d,
                     [](const RecurrentProblem& q) { return reference::forward(q.layer); });
  });
}

TEST_P(RecurrentOptions, TheBackwardPassIsTheForwardPassDifferentiated) {
  for_differentiable(GetParam(), [](const RecurrentProblem& p) {
    expect_gradients(p, solve<double>(Cpu{}, p).d, [](const RecurrentProblem& q) {
      return RecurrentRun<double>(Cpu{}, q).states_after();
    });
  });
}

template <class T>
const Tolerance& of(const Tolerances& t) {
  return std::is_same_v<T, bf16> ? t.bf16 : t.f32;
}
void expect_close(const Named& got, const Named& want, const Tolerance& tolerance) {
  for (std::size_t i = 0; i < want.size(); ++i) {
    EXPECT_TRUE(close(*got[i].second, *want[i].second, tolerance)) << want[i].first;
  }
}

template <class T>
void expect_parity(const RecurrentProblem& p, const std::string& options) {
  const RecurrentSolution want = expected(p);
  for (const Device& device : devices()) {
    SCOPED_TRACE(device_name(device) + (std::is_same_v<T, bf16> ? ", bf16, " : ", f32, ") +
                 options + ", T " + std::to_string(p.layer.T) + ", H " + std::to_string(p.layer.H));
    const RecurrentSolution got = solve<T>(device, p);
    expect_close(named(got.s), named(want.s), of<T>(p.forward_tolerance()));
    expect_close(named(got.d), named(want.d), of<T>(p.backward_tolerance()));
  }
}

template <class T>
void expect_parity(CellKind cell, const OptionSet& set, const RecurrentSize& size, unsigned seed) {
  expect_parity<T>(random_problem<T>(cell, size, parts_of(set), seed), option_names(set));
}

TEST_P(RecurrentOptions, EveryDeviceMatchesTheOracle) {
  for (const OptionSet& set : single_options(GetParam())) {
    for (const RecurrentSize& size : {RecurrentSize{5, 3, 4, 5}, RecurrentSize{5, 3, 4, 8}}) {
      expect_parity<float>(GetParam(), set, size, 51);
      expect_parity<bf16>(GetParam(), set, size, 51);
    }
    expect_parity<float>(GetParam(), set, {3, 9, 20, 34}, 52);
    // Of this many cell states some always lie where rounding to bf16 decides on the gradient.
    if (!has(set, "cell_clip")) expect_parity<bf16>(GetParam(), set, {3, 9, 20, 34}, 52);
  }
}

TEST_P(RecurrentOptions, EveryPairMatchesTheOracle) {
  unsigned seed = 60;
  for (const OptionSet& set : covering_options(GetParam())) {
    expect_parity<float>(GetParam(), set, {5, 3, 4, 8}, ++seed);
    expect_parity<bf16>(GetParam(), set, {5, 3, 4, 8}, seed);
  }
}

/// A probability, and which of an element's random words it is held against.
struct Drawing {
  const char* name;
  std::size_t word;
  float carousel::RecurrentOptions::*probability;
};
constexpr Drawing kDrawings[] = {
    {"zoneout_h", 0, &carousel::RecurrentOptions::zoneout_h},
    {"zoneout_c", 1, &carousel::RecurrentOptions::zoneout_c},
    {"recurrent_dropout", 2, &carousel::RecurrentOptions::recurrent_dropout},
    {"variational", 3, &carousel::RecurrentOptions::variational},
};

// A unit is drawn where its number is below the probability: probability 0 draws none.
TEST_P(RecurrentOptions, ANumberThatIsTheProbabilityDrawsNothing) {
  for (const Drawing& each : kDrawings) {
    const OptionSet set = options_of({each.name});
    if (!legal(GetParam(), set)) continue;
    RecurrentProblem p = random_problem<float>(GetParam(), {5, 3, 4, 8}, parts_of(set), 61);
    float number = 0;
    for (std::uint64_t n = 0; number < 0.25F || number > 0.75F; ++n) {
      number = uniform(p.options.source.words(n, p.step)[each.word]);
    }
    p.options.*each.probability = number;
    apply_options(p);
    expect_parity<float>(p, each.name);
  }
}

TEST(RecurrentSequence, PairsOfOptionsAreCoveredByFewCases) {
  std::size_t cases = 0;
  for (const CellKind cell : tested_cells()) cases += covering_options(cell).size();
  EXPECT_GE(cases, 50U);
  EXPECT_LE(cases, 200U);
}

// In double nothing is rounded: the two are the same formulas, clipping of gradients included.
TEST_P(RecurrentOptions, DoublesAreTheOraclesNumbers) {
  for (const OptionSet& set : single_options(GetParam())) {
    SCOPED_TRACE(option_names(set));
    const RecurrentProblem p = random_problem<double>(GetParam(), {5, 3, 4, 8}, parts_of(set), 53);
    const RecurrentSolution want = expected(p), got = solve<double>(Cpu{}, p);
    const Tolerance tolerance{.absolute = 1e-6, .relative = 1e-6};  // start, scales … are floats
    expect_close(named(got.s), named(want.s), tolerance);
    expect_close(named(got.d), named(want.d), tolerance);
  }
}

}  // namespace
}  // namespace carousel::test
