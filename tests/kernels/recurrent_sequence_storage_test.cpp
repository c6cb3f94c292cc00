// What a recurrent layer rounds to the type of storage, and what it keeps in float.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string_view>

#include "tests/kernels/recurrent_sequence_run.h"
#include "tests/support/device.h"

namespace carousel::test {
namespace {

/// With the forget gate open and the input gate shut, the cell and its error go round unchanged.
template <class T>
void expect_constant_carousel(double c, std::size_t steps) {
  RecurrentProblem p{.cell = cell_kind("lstm")};
  p.layer = {.cell = &reference::cell("lstm"), .T = steps, .B = 1, .I = 1, .H = 1};
  p.layer.x.assign(p.layer.T, 1.0);
  p.layer.weight_ih = {0, 0, 1, 0}, p.layer.weight_hh = {0, 0, 1, 0};
  p.layer.bias_ih = {-100, 100, 0, -100}, p.layer.bias_hh = {0, 0, 0, 0};
  p.layer.initial[1] = {c}, p.out.d_last[1] = {0.3F};
  for (const Device& device : devices()) {
    const auto [s, d] = solve<T>(device, p);
    EXPECT_EQ(s.state[1].back(), c);
    EXPECT_EQ(d.d_initial[1][0], p.out.d_last[1][0]);
  }
}
TEST(RecurrentSequence, TheErrorCarouselIsConstant) { expect_constant_carousel<float>(0.7F, 300); }
TEST(RecurrentSequence, CellStatesAndTheirGradientsAreNeverRoundedToBf16) {
  expect_constant_carousel<bf16>(0.7F, 300);  // as little a number of bf16 as the gradient
}
// No option that is off bounds it, or multiplies it by 0.
TEST(RecurrentSequence, AnInfiniteCellStateStaysAndPassesItsGradient) {
  expect_constant_carousel<float>(std::numeric_limits<double>::infinity(), 1);
}

// With the update gate shut, δh passes each step whole: of 1 + 1/1024, bf16 would keep 1.
TEST(RecurrentSequence, GradientsOfHiddenStatesAreCarriedInFloat) {
  RecurrentProblem p{.cell = cell_kind("gru")};
  p.layer = {.cell = &reference::cell("gru"), .T = 256, .B = 1, .I = 0, .H = 1};
  p.layer.bias_ih = {0, 100, 0}, p.layer.bias_hh = {0, 0, 0}, p.layer.weight_hh = {0, 0, 0};
  p.layer.initial[0] = {0.5}, p.out.d_last[0] = {1}, p.out.d_h.assign(p.layer.T, 1.0 / 1024);
  for (const Device& device : devices()) {
    EXPECT_EQ(solve<bf16>(device, p).d.d_initial[0][0], 1.25);
  }
}

/// δa of the gate `candidate` is δh, and the layer's three steps have δh = 1, and 1 + 3/1024 twice.
struct GradientCase {
  std::string_view cell;
  std::size_t candidate;
  Values bias_ih;
};
// W_hh is 1 for that gate: had the product read δa before it is rounded to 1, the last would be
// 1 + 6/1024, which bf16 rounds up.
TEST(RecurrentSequence, ProductsReadGradientsAsStored) {
  const GradientCase cases[] = {
      {"linear", 0, {0}}, {"gru", 2, {100, -100, 0}}, {"gru_reset_before", 2, {100, -100, 0}}};
  for (const auto& [cell, candidate, bias_ih] : cases) {
    SCOPED_TRACE(cell);
    RecurrentProblem p{.cell = cell_kind(cell)};
    const std::size_t gates = bias_ih.size();
    p.layer = {.cell = &reference::cell(cell), .T = 3, .B = 1, .I = 0, .H = 1};
    p.layer.bias_ih = bias_ih, p.layer.bias_hh = p.layer.weight_hh = Values(gates, 0.0);
    p.layer.weight_hh[candidate] = 1;
    p.out.d_h = {3 / 1024.0, 3 / 1024.0, 1};
    for (const Device& device : devices()) {
      const RecurrentSolution solution = solve<bf16>(device, p);
      for (std::size_t t = 0; t < p.layer.T; ++t) {
        EXPECT_EQ(solution.d.d_gates[t * gates + candidate], 1) << device_name(device) << t;
      }
    }
  }
}

/// Steps of one unit in bf16, of which the last would differ by a place or more if it read a number
/// before it is rounded to be stored.
struct StoredCase {
  const char* what;
  std::string_view cell;
  Values x, h;
  double bias;
  void (*change)(RecurrentProblem& p);
};
// Of numbers near 1, bf16 has multiples of 1/128; below 1, of 1/256.
const StoredCase kStoredCases[] = {
    {"h", "linear", {1, 0}, {1, 1}, -0.0019F, [](RecurrentProblem&) {}},
    {"h of a row with a range",
     "linear",
     {1, 0},
     {1, 1},
     -0.0019F,
     [](RecurrentProblem& p) { p.layer.begin = {0}, p.layer.end = {2}; }},
    {"h·4/3, by variational dropout",
     "linear",
     {1, 0},
     {1, 171 / 128.0},
     -0.0019F,
     [](RecurrentProblem& p) { p.options = {.variational = 0.25F, .training = true}; }},
    {"W_hr·m",
     "linear",
     {129 / 128.0, 0},
     {172 / 128.0, 230 / 128.0},
     0.003F,
     [](RecurrentProblem& p) { p.layer.projection = 1, p.layer.weight_hr = {171 / 128.0}; }},
    {"r ∘ ĥ = 2/3 between two phases",
     "gru_reset_before",
     {0},
     {174 / 1024.0},  // tanh(4·171/256 − 5/2)
     0,
     [](RecurrentProblem& p) {
       p.layer.weight_ih = {0, 0, 0}, p.layer.weight_hh = {0, 0, 4}, p.layer.initial[0] = {1};
       p.layer.bias_ih = {std::log(2.0F), -100, -2.5}, p.layer.bias_hh = {0, 0, 0};
     }},
    {"the state that sequences start from",
     "indrnn",
     {0, 0},
     {171 / 128.0, 228 / 128.0},
     0,
     [](RecurrentProblem& p) { p.layer.start[0] = {0.9981F}, p.layer.parameter = {4.0F / 3}; }},
};
TEST(RecurrentSequence, AStepReadsWhatWasStored) {
  for (const StoredCase& each : kStoredCases) {
    SCOPED_TRACE(each.what);
    RecurrentProblem p{.cell = cell_kind(each.cell)};
    p.layer = {.cell = &reference::cell(each.cell), .T = each.x.size(), .B = 1, .I = 1, .H = 1};
    p.layer.x = each.x, p.layer.weight_ih = {1}, p.layer.bias_ih = {each.bias};
    if (p.cell->multiplies) p.layer.weight_hh = {1}, p.layer.bias_hh = {0};
    each.change(p);
    apply_options(p);
    for (const double factor : p.layer.variational) ASSERT_NE(factor, 0) << "another seed keeps it";
    for (const Device& device : devices()) {
      EXPECT_EQ(solve<bf16>(device, p).s.state[0], each.h);
    }
  }
}

}  // namespace
}  // namespace carousel::test
