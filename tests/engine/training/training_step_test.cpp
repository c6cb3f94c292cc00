// One step of training after the other: what each is given, in what order it happens, and which of
// them one graph may repeat.
#include "engine/training/training_step.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "tests/support/device.h"
#include "tests/support/scripted.h"

namespace carousel {
namespace {

using test::Given;
using test::ScriptedBatches;
using test::ScriptedModel;

const Schedule kSchedule{.learning_rate = 0.125};

/// A run whose steps are taken one at a time, as graphs where there are any.
struct Steps {
  Steps(ScriptedModel& model, ScriptedBatches::Make make, bool graph = true)
      : optimizer({.kind = "sgd"}, model.parameters()),
        data(std::move(make)),
        run{.model = model, .optimizer = optimizer, .data = data, .state = model.initial_state(1)},
        step(run,
             {.schedule = kSchedule, .seed = 5, .graph = graph, .refused = [](const auto& why) {
                ADD_FAILURE() << why;
              }}) {}
  void next() {
    step.begin();
    step.run();
  }
  Optimizer optimizer;
  ScriptedBatches data;
  TrainingRun run;
  TrainingStep step;
};

/// Batch n is the nth of these.
ScriptedBatches::Make batches_of(const Device& device, const std::vector<Given>& given) {
  return test::loss_batches(device, [given](const DataPosition& position) {
    return given.at(static_cast<std::size_t>(position.index));
  });
}

class TrainingStepOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, TrainingStepOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

// The gradient is the state as the backward pass finds it; a window leaves its own number behind.
TEST_P(TrainingStepOn, TheBackwardPassReadsTheStateThatTheWindowBeganWith) {
  ScriptedModel model(
      GetParam(), [](Parameters& parameters, Pass& pass, const Batch& batch, const State& state) {
        const Var weight = parameters.on(pass.tape(), 0);
        const Tensor carried = state.at("carried").value;
        pass.carry(batch["loss"], carried);
        test::sum(pass.tape().record(
            pass.tape().tensor({1}, DType::f32), {weight},
            [weight, carried](const Tensor&) { copy(carried, weight.gradient().tensor); }));
        return Objective{.terms = {test::scripted_term(pass, "loss", batch["loss"])}};
      });
  const std::vector<Given> given{{3, 1, true}, {5}, {7}, {9, 1, true}, {11}, {13}};
  Steps steps(model, batches_of(GetParam(), given));
  for (const float expected : {0.0F, 3.0F, 5.0F, 0.0F, 9.0F, 11.0F}) {
    steps.next();
    EXPECT_EQ(host_floats(model.parameters().gradient(0))[0], expected);
    EXPECT_EQ(host_floats(steps.run.state.at("carried").value), host_floats(steps.step.means()));
  }
}

// With a gradient of 1, plain SGD's weight is minus the sum of the rates that were really used.
TEST_P(TrainingStepOn, ABatchScalesTheLearningRateOfItsOwnStep) {
  const std::vector<double> factors{1, 0.5, 1.25, 1};
  for (const bool graph : {true, false}) {
    ScriptedModel model(GetParam());
    auto make = batches_of(GetParam(), std::vector<Given>(factors.size()));
    Steps steps(
        model,
        [&](const DataPosition& position) {
          Batch batch = make(position);
          batch.learning_rate_factor = factors.at(static_cast<std::size_t>(position.index));
          return batch;
        },
        graph);
    float weight = 0;
    for (const double factor : factors) {
      steps.next();
      weight -= static_cast<float>(0.125 * factor);
      EXPECT_EQ(host_floats(model.parameters().weight(0))[0], weight);
      EXPECT_EQ(steps.step.learning_rate(), 0.125) << "as the schedule has it";
    }
  }
}

TEST_P(TrainingStepOn, ALossIsDividedByWhatCountsInItsOwnBatch) {
  ScriptedModel model(
      GetParam(), [](Parameters& parameters, Pass& pass, const Batch&, const State&) {
        test::sum(parameters.on(pass.tape(), 0));
        return Objective{.terms = {test::scripted_term(pass, "loss", pass.denominator())}};
      });
  Steps steps(model, batches_of(GetParam(), {{0, 7}, {0, 1}, {0, 12}, {0, 3}}));
  std::int64_t tokens = 0;
  for (const std::int64_t counted : {7, 1, 12, 3}) {
    steps.next();
    EXPECT_EQ(host_floats(steps.step.means())[0], static_cast<float>(counted));
    EXPECT_EQ(steps.run.tokens, tokens += counted);
  }
}

TEST_P(TrainingStepOn, RandomNumbersAreOfTheSeedThePlaceAndTheStep) {
  std::vector<RandomSource> sources;
  ScriptedModel model(GetParam(),
                      [&](Parameters& parameters, Pass& pass, const Batch& batch, const State&) {
                        sources = {pass.random(0), pass.random(1), pass.random(2)};
                        return ScriptedModel::loss_of_batch(parameters, pass, batch, {});
                      });
  Steps steps(model, batches_of(GetParam(), std::vector<Given>(5)));
  for (std::int64_t number = 1; number <= 4; ++number) {
    steps.next();
    for (std::uint64_t place = 0; place < 3; ++place) {
      const RandomSource& source = sources[place];
      EXPECT_EQ(source.seed, 5U);
      EXPECT_EQ(source.stream, place);
      // The memory is read by graphs captured before.
      const Tensor step =
          Tensor::at(GetParam(), {1}, DType::i64, const_cast<std::int64_t*>(source.step.data));
      EXPECT_EQ(test::read<std::int64_t>(step)[0], number);
    }
  }
}

TEST_P(TrainingStepOn, AWeightThatAStepDoesNotReachHasNoGradientInIt) {
  Parameters two;
  for (const char* name : {"always", "sometimes"}) two.declare(name, {2}, {});
  two.materialize(GetParam(), DType::f32, /*seed=*/1);
  ScriptedModel model(
      std::move(two), [](Parameters& parameters, Pass& pass, const Batch& batch, const State&) {
        test::sum(parameters.on(pass.tape(), 0));
        if (batch.counted == 2) test::sum(parameters.on(pass.tape(), 1));
        return Objective{.terms = {test::scripted_term(pass, "loss", batch["loss"])}};
      });
  Steps steps(model, batches_of(GetParam(), {{1, 2}, {1, 1}, {1, 1}, {1, 2}}), /*graph=*/false);
  for (const float reached : {1.0F, 0.0F, 0.0F, 1.0F}) {
    steps.next();
    const auto gradient = [&](std::size_t i) {
      return host_floats(model.parameters().gradient(i));
    };
    EXPECT_EQ(gradient(0), (std::vector<float>{1, 1}));
    EXPECT_EQ(gradient(1), (std::vector<float>{reached, reached}));
    EXPECT_EQ(host_floats(steps.optimizer.gradient_norm())[0], std::sqrt(2.0F + 2.0F * reached));
  }
  EXPECT_EQ(host_floats(model.parameters().weight(1))[0], -2 * 0.125F);
}

// A loss can be infinite where its gradient is not; whichever term it is, no weight changes any more.
TEST_P(TrainingStepOn, NoWeightChangesOnceAnyTermIsNotFinite) {
  for (const bool second : {false, true}) {
    ScriptedModel model(
        GetParam(), [second](Parameters& parameters, Pass& pass, const Batch& batch, const State&) {
          test::sum(parameters.on(pass.tape(), 0));
          const LossTerm good = test::scripted_term(pass, "good", pass.denominator()),
                         bad = test::scripted_term(pass, "bad", batch["loss"]);
          return Objective{.terms = second ? std::vector{good, bad} : std::vector{bad, good}};
        });
    Steps steps(model, batches_of(GetParam(), {{1}, {1}, {INFINITY}, {1}}));
    for (const float weight : {-0.125F, -0.25F, -0.25F, -0.25F}) {
      steps.next();
      EXPECT_EQ(host_floats(model.parameters().weight(0))[0], weight);
    }
  }
}

TEST_P(TrainingStepOn, TheKeyTellsApartWhateverAGraphWouldRepeat) {
  const auto ids = [&](Shape shape) { return Tensor(GetParam(), shape, DType::i32); };
  const Tensor token = ids({4, 4}), lengths = ids({4}), label = ids({4}), reset = ids({4, 4});
  const auto state = [&] {
    return State{{{.name = "cache",
                   .value = Tensor(GetParam(), {4, 8}, DType::f32),
                   .growth_axis = 1,
                   .position = Tensor(GetParam(), {1}, DType::i64)}}};
  };
  const Batch batch{.rows = 4,
                    .fields = {{"token", token, lengths}, {"label", label}},
                    .reset = reset,
                    .counted = 1};
  const State carried = state();
  using Change = std::function<void(Batch&, State&)>;
  const std::vector<std::pair<const char*, Change>> changes{
      {"nothing", [](Batch&, State&) {}},
      {"shorter", [&](Batch& b, State&) { b.fields[0].values = token.slice(0, 3); }},
      {"other extents",
       [&](Batch& b, State&) {
         b.fields[0].values = token.reshaped({2, 8});
       }},
      {"other rank", [&](Batch& b, State&) { b.fields[0].values = token.reshaped({16}); }},
      {"token elsewhere",
       [&](Batch& b, State&) {
         b.fields[0].values = ids({4, 4});
       }},
      {"label elsewhere", [&](Batch& b, State&) { b.fields[1].values = ids({4}); }},
      {"fewer labels", [&](Batch& b, State&) { b.fields[1].values = label.slice(0, 3); }},
      {"no lengths", [](Batch& b, State&) { b.fields[0].lengths = {}; }},
      {"lengths elsewhere", [&](Batch& b, State&) { b.fields[0].lengths = ids({4}); }},
      {"lengths of the label", [&](Batch& b, State&) { b.fields[1].lengths = lengths; }},
      {"no reset", [](Batch& b, State&) { b.reset = {}; }},
      {"reset elsewhere",
       [&](Batch& b, State&) {
         b.reset = ids({4, 4});
       }},
      {"no label", [](Batch& b, State&) { b.fields.pop_back(); }},
      {"no state", [](Batch&, State& s) { s = {}; }},
      {"state elsewhere",
       [&](Batch&, State& s) {
         s.tensors[0].value = Tensor(GetParam(), {4, 8}, DType::f32);
       }},
      {"position elsewhere",
       [&](Batch&, State& s) { s.tensors[0].position = Tensor(GetParam(), {1}, DType::i64); }},
  };
  std::map<StepGraphs::Key, const char*> seen;
  std::vector<Batch> kept;  // so that no address is given out twice
  std::vector<State> states;
  for (const auto& [what, change] : changes) {
    Batch changed = batch;
    State other = carried;
    change(changed, other);
    kept.push_back(changed);
    states.push_back(other);
    ScriptedModel model(GetParam());
    Steps steps(model, [&](const DataPosition&) { return changed; });
    steps.run.state = other;
    steps.step.begin();
    const auto [at, is_new] = seen.emplace(steps.step.key(), what);
    EXPECT_TRUE(is_new) << what << " has the key of " << at->second;
    EXPECT_EQ(steps.step.key(), at->first);
    steps.step.begin();
    EXPECT_EQ(steps.step.key(), at->first) << what << ": the next step has another key";
  }
}

}  // namespace
}  // namespace carousel
