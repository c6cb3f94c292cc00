// What the contract of recurrent_sequence says about its options: masks, evaluation, rows of their own
// lengths, and which cell has which option.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "kernels/common/check.h"
#include "tests/kernels/recurrent_options.h"
#include "tests/kernels/recurrent_sequence_run.h"
#include "tests/support/close.h"
#include "tests/support/device.h"

namespace carousel::test {
namespace {

constexpr RecurrentSize kSmall{5, 3, 4, 8};

class RecurrentOptionsContract : public testing::TestWithParam<CellKind> {};
INSTANTIATE_TEST_SUITE_P(Cells, RecurrentOptionsContract, testing::ValuesIn(tested_cells()),
                         [](const auto& each) { return test_name(each.param); });

RecurrentProblem problem(CellKind cell, const std::vector<std::string>& names, unsigned seed) {
  return random_problem<float>(cell, kSmall, parts_of(options_of(names)), seed);
}

void expect_equal_bits(const RecurrentSolution& a, const RecurrentSolution& b) {
  const Named states = named(a.s), other_states = named(b.s);
  for (std::size_t i = 0; i < states.size(); ++i) {
    EXPECT_EQ(*states[i].second, *other_states[i].second) << states[i].first;
  }
  const Named gradients = named(a.d), other_gradients = named(b.d);
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    EXPECT_EQ(*gradients[i].second, *other_gradients[i].second) << gradients[i].first;
  }
}

/// Row `row` of `rows`, of `count` steps.
template <class V>
V columns(const V& values, std::size_t rows, std::size_t first, std::size_t count, std::size_t row,
          std::size_t width) {
  V part;
  for (std::size_t t = first; t < first + count && !values.empty(); ++t) {
    const auto at = values.begin() + static_cast<std::ptrdiff_t>((t * rows + row) * width);
    part.insert(part.end(), at, at + static_cast<std::ptrdiff_t>(width));
  }
  return part;
}

TEST_P(RecurrentOptionsContract, MasksAreWhatTheRandomSourceSays) {
  RecurrentParts parts{.resets = false, .ranges = true};
  parts.options = {.zoneout_h = 0.3F, .training = true};
  if (GetParam()->gates_memory) parts.options.zoneout_c = 0.6F;
  if (GetParam()->candidate) parts.options.recurrent_dropout = 0.5F;
  const RecurrentProblem p = random_problem<float>(GetParam(), {6, 5, 3, 7}, parts, 71);
  const std::vector<std::uint8_t> want = mask_bits(p);
  for (const Device& device : devices()) {
    const RecurrentRun<float> run(device, p);
    run.run(run.forward());
    const std::vector<std::uint8_t> got = run.mask_values();
    for (std::size_t b = 0; b < p.layer.B; ++b) {
      for (const std::size_t t : p.layer.steps(b)) {
        for (std::size_t j = 0; j < p.layer.H; ++j) {
          const std::size_t n = (t * p.layer.B + b) * p.layer.H + j;
          EXPECT_EQ(got[n], want[n]) << device_name(device) << " " << n;
        }
      }
    }
  }
}

TEST_P(RecurrentOptionsContract, EveryStepAndSeedAndStreamDrawsAnew) {
  const RecurrentProblem p = problem(GetParam(), {"zoneout_h"}, 72);
  RecurrentProblem step = p, seed = p, stream = p;
  ++step.step, ++seed.options.source.seed, ++stream.options.source.stream;
  for (const Device& device : devices()) {
    const Values h = solve<float>(device, p).s.state[0];
    EXPECT_EQ(h, solve<float>(device, p).s.state[0]);
    for (const RecurrentProblem& other : {step, seed, stream}) {
      EXPECT_NE(h, solve<float>(device, other).s.state[0]);
    }
  }
}

/// A regularizer: how it is taken away, and what it leaves alone.
struct Regularizer {
  const char* name;
  void (*remove)(RecurrentOptions& options);
  bool of_training;        ///< without effect in evaluation
  bool of_gradients_only;  ///< without effect on the forward pass
};
constexpr Regularizer kRegularizers[] = {
    {"zoneout_h", [](RecurrentOptions& o) { o.zoneout_h = 0; }, false, false},
    {"zoneout_c", [](RecurrentOptions& o) { o.zoneout_c = 0; }, false, false},
    {"recurrent_dropout", [](RecurrentOptions& o) { o.recurrent_dropout = 0; }, true, false},
    {"variational", [](RecurrentOptions& o) { o.variational = 0; }, true, false},
    {"cell_clip", [](RecurrentOptions& o) { o.cell_clip = 0; }, false, false},
    {"gradient_clip", [](RecurrentOptions& o) { o.gradient_clip = 0; }, false, true},
};

TEST_P(RecurrentOptionsContract, RegularizersTakeEffectInBothPasses) {
  for (const Regularizer& each : kRegularizers) {
    if (!legal(GetParam(), options_of({each.name}))) continue;
    SCOPED_TRACE(each.name);
    const RecurrentProblem p = problem(GetParam(), {each.name}, 73);
    RecurrentProblem plain = p;
    each.remove(plain.options);
    for (const Device& device : devices()) {
      const RecurrentSolution with = solve<float>(device, p), without = solve<float>(device, plain);
      EXPECT_EQ(close(with.s.state[0], without.s.state[0], kRecurrentForwardTolerance.f32),
                each.of_gradients_only);
      EXPECT_NE(with.d.d_x, without.d.d_x);
      EXPECT_NE(with.d.d_weight_ih, without.d.d_weight_ih);
    }
  }
}

TEST_P(RecurrentOptionsContract, DropoutIsOffInEvaluation) {
  for (const Regularizer& each : kRegularizers) {
    if (!each.of_training || !legal(GetParam(), options_of({each.name}))) continue;
    SCOPED_TRACE(each.name);
    const RecurrentProblem p = problem(GetParam(), {each.name, "evaluation"}, 74);
    RecurrentProblem plain = p;
    each.remove(plain.options);
    for (const Device& device : devices()) {
      expect_equal_bits(solve<float>(device, p), solve<float>(device, plain));
    }
  }
}

// The probabilities at the ends: never, and always.
TEST_P(RecurrentOptionsContract, CertainMasksAreExact) {
  const std::size_t units = kSmall.B * kSmall.H;
  RecurrentParts parts{.resets = false};
  parts.options = {.zoneout_h = 1, .training = true};
  const RecurrentProblem still = random_problem<float>(GetParam(), kSmall, parts, 75);
  for (const Device& device : devices()) {
    const RecurrentSolution r = solve<float>(device, still);
    EXPECT_EQ(r.s.last[0], still.layer.initial[0]);
    for (std::size_t n = 0; n < r.s.state[0].size(); ++n) {
      EXPECT_EQ(r.s.state[0][n], still.layer.initial[0][n % units]);
    }
  }
  if (!GetParam()->candidate) return;
  parts.options = {.recurrent_dropout = 1, .training = true};
  const RecurrentProblem dropped = random_problem<float>(GetParam(), kSmall, parts, 76);
  const Values d_gates = expected(dropped).d.d_gates;
  for (const Device& device : devices()) {
    const RecurrentSolution r = solve<float>(device, dropped);
    for (const auto& [name, values] : named(r.s)) {
      EXPECT_TRUE(std::none_of(values->begin(), values->end(), [](double v) { return v != v; }))
          << name;
    }
    std::size_t without_gradient = 0;  // the candidate, and what multiplies nothing else
    for (std::size_t n = 0; n < r.d.d_gates.size(); ++n) {
      if (d_gates[n] != 0) continue;
      ++without_gradient;
      EXPECT_EQ(r.d.d_gates[n], 0) << n;
    }
    EXPECT_GE(without_gradient, kSmall.T * units);
  }
}

/// The options under which rows end and begin.
std::vector<OptionSet> sets_of_rows(CellKind cell) {
  std::vector<OptionSet> sets{options_of({"ranges"}),
                              options_of({"ranges", "reverse"}),
                              options_of({"ranges", "reverse", "start", "carried"}),
                              options_of({"ranges", "reverse", "projection"}),
                              options_of({"ranges", "gain", "heads", "variational"}),
                              options_of({"ranges", "reverse", "gain", "projection"})};
  std::erase_if(sets, [&](const OptionSet& set) { return !legal(cell, set); });
  return sets;
}

/// A problem whose padding holds numbers, resets among them, that must not matter.
RecurrentProblem with_padding(RecurrentProblem p, double number, std::int32_t reset) {
  for (std::size_t n = 0; n < p.layer.T * p.layer.B; ++n) {
    const std::size_t t = n / p.layer.B, b = n % p.layer.B;
    if (p.layer.first(b) <= t && t < p.layer.past(b)) continue;
    const auto fill = [&](Values& values, std::size_t width) {
      std::fill_n(values.begin() + static_cast<std::ptrdiff_t>(n * width), width, number);
    };
    fill(p.layer.x, p.layer.I), fill(p.out.d_h, p.layer.P());
    p.layer.reset[n] = reset;
  }
  return p;
}

template <class T>
void expect_padding_without_influence(CellKind cell) {
  for (const OptionSet& set : sets_of_rows(cell)) {
    SCOPED_TRACE(option_names(set));
    const RecurrentProblem p = random_problem<T>(cell, {5, 19, 4, 8}, parts_of(set), 77);
    const RecurrentProblem zeros = with_padding(p, 0, 0);
    const RecurrentProblem poison = with_padding(p, std::numeric_limits<double>::quiet_NaN(), 1);
    for (const Device& device : devices()) {
      expect_equal_bits(solve<T>(device, poison), solve<T>(device, zeros));
    }
  }
}
TEST_P(RecurrentOptionsContract, PaddingHasNoInfluence) {
  expect_padding_without_influence<float>(GetParam());
  expect_padding_without_influence<bf16>(GetParam());
}

/// Row b of a problem, alone and as long as it is.
RecurrentProblem alone(const RecurrentProblem& p, std::size_t b) {
  const reference::Layer& l = p.layer;
  const std::size_t first = l.first(b), count = std::max(l.past(b), first) - first;
  RecurrentProblem q = p;
  q.layer.T = count, q.layer.B = 1, q.layer.begin = {}, q.layer.end = {};
  q.layer.x = columns(l.x, l.B, first, count, b, l.I);
  q.layer.reset = columns(l.reset, l.B, first, count, b, 1);
  q.layer.carried = columns(l.carried, 1, b, 1, 0, 1);
  q.out.d_h = columns(p.out.d_h, l.B, first, count, b, l.P());
  for (std::size_t k = 0; k < l.cell->states; ++k) {
    q.layer.initial[k] = columns(l.initial[k], 1, b, 1, 0, l.width(k));
    q.out.d_last[k] = columns(p.out.d_last[k], 1, b, 1, 0, l.width(k));
  }
  return q;
}

TEST_P(RecurrentOptionsContract, RowsOfTheirOwnLengthsAreThoseRowsAlone) {
  for (OptionSet set : sets_of_rows(GetParam())) {
    set.erase(option("variational"));  // draws by the row's number
    SCOPED_TRACE(option_names(set));
    const RecurrentProblem p = random_problem<float>(GetParam(), {6, 7, 4, 8}, parts_of(set), 78);
    for (const Device& device : devices()) {
      const RecurrentSolution all = solve<float>(device, p);
      Values d_weight_ih(all.d.d_weight_ih.size(), 0.0);
      for (std::size_t b = 0; b < p.layer.B; ++b) {
        SCOPED_TRACE(fmt::format("{}, row {}", device_name(device), b));
        const RecurrentProblem q = alone(p, b);
        const RecurrentSolution one = solve<float>(device, q);
        const auto of_row = [&](const Values& values, std::size_t width) {
          return columns(values, p.layer.B, p.layer.first(b), q.layer.T, b, width);
        };
        const Tolerance &forward = p.forward_tolerance().f32, &back = p.backward_tolerance().f32;
        EXPECT_TRUE(close(of_row(all.d.d_x, p.layer.I), one.d.d_x, back));
        for (std::size_t k = 0; k < p.layer.cell->states; ++k) {
          const std::size_t width = p.layer.width(k);
          EXPECT_TRUE(close(of_row(all.s.state[k], width), one.s.state[k], forward));
          EXPECT_TRUE(close(columns(all.s.last[k], 1, b, 1, 0, width), one.s.last[k], forward));
          EXPECT_TRUE(
              close(columns(all.d.d_initial[k], 1, b, 1, 0, width), one.d.d_initial[k], back));
        }
        for (std::size_t i = 0; i < d_weight_ih.size(); ++i) {
          d_weight_ih[i] += one.d.d_weight_ih[i];
        }
      }
      EXPECT_TRUE(close(all.d.d_weight_ih, d_weight_ih, p.backward_tolerance().f32));
    }
  }
}

template <class Expected>
bool refuses(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    EXPECT_NE(dynamic_cast<const Expected*>(&error), nullptr) << error.what();
    return true;
  }
  return false;
}

/// Both passes of a problem.
template <class Expected>
void expect_refusal(const RecurrentProblem& p, bool expected = true) {
  const RecurrentRun<float> run(Cpu{}, p);
  EXPECT_EQ(refuses<Expected>([&] { run.forward().check(); }), expected);
  EXPECT_EQ(refuses<Expected>([&] { run.backward().check(); }), expected);
}

TEST_P(RecurrentOptionsContract, ACellHasTheOptionsOfItsKind) {
  const auto& table = recurrent_options();
  for (std::size_t i = 0; i < table.size(); ++i) {
    if (table[i].name == "heads" && !GetParam()->multiplies) continue;  // no W_hh to have them
    SCOPED_TRACE(table[i].name);
    const RecurrentProblem p = random_problem<float>(GetParam(), kSmall, parts_of({i}), 79);
    const bool is_shape = table[i].name == "heads";
    is_shape ? expect_refusal<ShapeError>(p, !legal(GetParam(), {i}))
             : expect_refusal<ConfigError>(p, !legal(GetParam(), {i}));
  }
}

TEST_P(RecurrentOptionsContract, RefusesImpossibleNumbers) {
  struct Case {
    const char* what;
    void (*spoil)(RecurrentOptions& o);
  };
  static constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const Case cases[] = {
      {"zoneout_h above 1", [](RecurrentOptions& o) { o.zoneout_h = 1.5F; }},
      {"zoneout_h below 0", [](RecurrentOptions& o) { o.zoneout_h = -0.1F; }},
      {"zoneout_h NaN", [](RecurrentOptions& o) { o.zoneout_h = kNan; }},
      {"zoneout_c below 0", [](RecurrentOptions& o) { o.zoneout_c = -0.1F; }},
      {"recurrent_dropout above 1", [](RecurrentOptions& o) { o.recurrent_dropout = 2; }},
      {"variational below 0", [](RecurrentOptions& o) { o.variational = -1; }},
      {"variational NaN", [](RecurrentOptions& o) { o.variational = kNan; }},
      {"cell_clip below 0", [](RecurrentOptions& o) { o.cell_clip = -1; }},
      {"cell_clip NaN", [](RecurrentOptions& o) { o.cell_clip = kNan; }},
      {"gradient_clip below 0", [](RecurrentOptions& o) { o.gradient_clip = -1; }},
      {"gradient_clip NaN", [](RecurrentOptions& o) { o.gradient_clip = kNan; }},
  };
  for (const Case& each : cases) {
    SCOPED_TRACE(each.what);
    RecurrentProblem p = problem(GetParam(), {"evaluation"}, 80);
    each.spoil(p.options);
    expect_refusal<ConfigError>(p);
  }
}

TEST(RecurrentSequence, RefusesOptionsThatNeedAsManyUnitsOfHAsOfTheCell) {
  const CellKind lstm = cell_kind("lstm");
  expect_refusal<Error>(problem(lstm, {"projection", "heads"}, 81));
  expect_refusal<ConfigError>(problem(lstm, {"projection", "zoneout_h"}, 81));
}

/// A message or "accepted".
template <class Op>
std::string refusal(Op op, const std::function<void(Op&)>& spoil) {
  spoil(op);
  try {
    op.check();
  } catch (const ShapeError& e) {
    return e.what();
  }
  return "accepted";
}

TEST(RecurrentSequence, RefusesTensorsOfOptionsThatDisagree) {
  using Forward = RecurrentSequenceForward<float>;
  using Backward = RecurrentSequenceBackward<float>;
  const RecurrentProblem p = problem(
      cell_kind("lstm"), {"projection", "gain", "start", "carried", "recurrent_dropout"}, 83);
  const RecurrentRun<float> run(Cpu{}, p);
  struct Case {
    const char* what;  ///< a word of the message
    std::function<void(Forward&)> forward;
    std::function<void(Backward&)> backward;
  };
  const auto both = [](const char* what, auto spoil) { return Case{what, spoil, spoil}; };
  const Case cases[] = {
      both("weight_hr", [](auto& op) { ++op.weight_hr.extent[0]; }),
      both("extent of", [](auto& op) { ++op.weight_hr.extent[1]; }),
      both("weight_hh", [](auto& op) { --op.weight_hh.extent[1]; }),
      both("gain", [](auto& op) { ++op.gain.extent[0]; }),
      both("start", [](auto& op) { ++op.start[1].extent[0]; }),
      both("carried", [](auto& op) { ++op.carried.extent[0]; }),
      both("mask", [](auto& op) { op.mask = {}; }),
      both("mask", [](auto& op) { ++op.mask.extent[2]; }),
      both("normal", [](auto& op) { op.normal = {}; }),
      both("deviation", [](auto& op) { op.deviation = {}; }),
      both("saved", [](auto& op) { op.saved = {}; }),
      both("step", [](auto& op) { op.options.source.step = {}; }),
  };
  EXPECT_EQ(refusal<Forward>(run.forward(), [](Forward&) {}), "accepted");
  EXPECT_EQ(refusal<Backward>(run.backward(), [](Backward&) {}), "accepted");
  for (const Case& each : cases) {
    const auto says = [&](const std::string& message) {
      return message.find(each.what) != std::string::npos;
    };
    EXPECT_PRED1(says, refusal<Forward>(run.forward(), each.forward)) << each.what;
    // The mask says what was drawn; only `variational` is drawn by both passes.
    if (std::string_view(each.what) == "step") continue;
    EXPECT_PRED1(says, refusal<Backward>(run.backward(), each.backward)) << each.what;
  }
  EXPECT_NE(refusal<Backward>(run.backward(), [](Backward& op) { ++op.d_gain.view.extent[1]; }),
            "accepted");
  EXPECT_NE(refusal<Backward>(run.backward(), [](Backward& op) { ++op.d_start[0].view.extent[0]; }),
            "accepted");
  EXPECT_NE(
      refusal<Backward>(run.backward(), [](Backward& op) { ++op.d_weight_hr.view.extent[1]; }),
      "accepted");
}

}  // namespace
}  // namespace carousel::test
