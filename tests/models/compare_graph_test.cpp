// Eager steps of every kind of model against the same as CUDA graphs: to the last bit. Of the LSTM
// language model, a fault that only a graph has is the first thing the report names.
#include <gtest/gtest.h>

#include <optional>
#include <set>

#include "engine/comparison/comparison_report.h"
#include "models/recurrent/recurrent_lm.h"
#include "tests/models/compared_side.h"
#include "tests/support/device.h"
#include "tests/support/windows.h"

namespace carousel {
namespace {

constexpr std::int64_t kBatch = 3, kSteps = 24;
const std::vector<std::int64_t> kLengths{7, 4};

enum class Fault { none, baked_step_number, baked_learning_rate };

/// The LSTM language model, whose dropout may count the steps by itself and, inside a graph, forget
/// to.
class CountingModel final : public RecurrentLm {
 public:
  CountingModel(const Device& device, DType compute, bool forgets)
      : RecurrentLm({.vocabulary = test::Windows::kVocabulary,
                     .embed = 6,
                     .encoder = {.hidden = 11, .layers = 2, .dropout = 0.3}},
                    device, compute, /*seed=*/7),
        forgets_(forgets),
        number_(device, {1}, DType::i64),
        nothing_(device, {1}, DType::f32) {}

  Objective objective(Pass& pass, const Batch& batch, const State& state) override {
    if (!forgets_) return RecurrentLm::objective(pass, batch, state);
    RandomSource random = pass.random(0);
    // A length's first step is queued as it is, its second into a graph.
    if (seen_.insert(batch["token"].shape()[0]).second) {
      std::int64_t step = 0;
      copy_to_host(number_.device(), &step, random.step.data, sizeof(step));
      copy_from_host(number_, &step);
    }
    random.step = number_.view<std::int64_t, 1>();
    Pass& own = pass_.emplace(pass.tape(),
                              Pass::Options{.random = random, .denominator = pass.denominator()});
    const Var always = pass.tape().parameter(nothing_, nothing_);
    always.gradient();
    pass.tape().on_backward({always}, [&own] { own.finish(); });  // recorded first, run last
    return RecurrentLm::objective(own, batch, state);
  }

 private:
  bool forgets_;
  std::set<std::int64_t> seen_;
  Tensor number_, nothing_;
  std::optional<Pass> pass_;
};

struct Side {
  Side(const Device& device, DType compute, bool graph, Fault fault = Fault::none)
      : model(device, compute, fault == Fault::baked_step_number),
        optimizer({.kind = "adamw", .weight_decay = 0.01, .clip_norm = 1}, model.parameters()),
        data(device, kBatch, kLengths),
        run{.model = model,
            .optimizer = optimizer,
            .data = data,
            .state = model.initial_state(kBatch)},
        schedule{.kind = "cosine", .learning_rate = 0.01, .steps = kSteps, .final_fraction = 0.1},
        training(run, {.schedule = schedule,
                       .seed = 3,
                       .graph = graph,
                       .refused = [](const std::string& why) { ADD_FAILURE() << why; }}) {}

  CountingModel model;
  Optimizer optimizer;
  test::Windows data;
  TrainingRun run;
  Schedule schedule;
  TracedTraining training;
};

std::string report(const Comparison& comparison, const TracedTraining& graph) {
  return report_text({.a = "eager",
                      .b = "graph",
                      .steps = kSteps,
                      .comparison = comparison,
                      .graph = GraphUse{.graphs = graph.graphs().captured(),
                                        .steps = graph.graphs().launched(),
                                        .unseen = graph.overwritten()}});
}

class CompareGraph : public testing::Test {
 protected:
  void SetUp() override { CAROUSEL_SKIP_WITHOUT_CUDA(); }
  static const Device& device() { return *test::cuda_device(); }
};

TEST_F(CompareGraph, AgreesWithEagerStepsToTheLastBit) {
  for (const DType compute : {DType::f32, DType::bf16}) {
    SCOPED_TRACE(name(compute));
    Side eager(device(), compute, false), graph(device(), compute, true);
    Comparison comparison(Rounding::alike);
    for (int i = 0; i < kSteps; ++i) {
      compare_whole_step(eager.training, graph.training, comparison);
    }
    const std::string text = report(comparison, graph.training);
    EXPECT_TRUE(comparison.holds()) << text;
    EXPECT_EQ(text.find("PASS  eager and graph agree in 73 tensors over 24 steps, to the last bit\n"
                        "      22 of graph's 24 steps were launches of 2 graphs, the rest the "
                        "first of their shape\n"
                        "      not compared, for the backward pass writes over them: lstm layer "
                        "0, gate; lstm layer 1, gate\n"),
              0U)
        << text;
    std::set<std::string> compared;
    for (const TensorVerdict& tensor : comparison.tensors()) compared.insert(tensor.name);
    for (const char* const tensor : {"dropout after lstm layer 0", "lstm layer 1, cell state",
                                     "gradient of lstm layer 0, gate i", "carried c_l1",
                                     "gradient norm", "embedding.weight, new weight"}) {
      EXPECT_TRUE(compared.contains(tensor)) << tensor;
    }
    EXPECT_EQ(eager.training.graphs().launched(), 0);
  }
}

struct Kind {
  std::string name;
  std::vector<std::string> options;
};

std::vector<Kind> kinds() {
  const std::string heads = "model.heads=3";
  return {{"recurrent_lm", {"model.output=sampled", "model.samples=9", "model.label_smoothing=0"}},
          {"ngram_lm", {}},
          {"classifier", {}},
          {"transformer_lm", {heads}},
          {"transformer_lm",
           {heads, "model.positions=rotary", "model.norm=rms", "model.feed_forward=swiglu"}},
          {"seq2seq", {"model.attention=none"}},
          {"seq2seq", {"model.attention=general", "model.input_feeding=true"}},
          {"seq2seq", {"model.attention=concat", "model.scheduled_sampling=true"}},
          {"seq2seq", {"model.attention=additive", "model.bidirectional=true"}},
          {"transformer_seq2seq", {heads}}};
}

TEST_F(CompareGraph, EveryKindOfModelAgreesToTheLastBit) {
  for (const Kind& kind : kinds()) {
    SCOPED_TRACE(kind.name + ' ' + (kind.options.empty() ? "" : kind.options.back()));
    // Texts of up to three letters: few shapes, which come again.
    const auto side = [&] { return test::Side(kind.name, kind.options, device(), "f32", 3, 3); };
    test::Side one = side(), two = side();
    const auto refused = [](const std::string& why) { ADD_FAILURE() << why; };
    TracedTraining eager(one.training.run, one.training.step_parts(false, refused)),
        graph(two.training.run, two.training.step_parts(true, refused));
    Comparison comparison(Rounding::alike);
    for (int i = 0; i < 5; ++i) compare_whole_step(eager, graph, comparison);
    EXPECT_TRUE(comparison.holds()) << report(comparison, graph);
    EXPECT_GE(graph.graphs().launched(), 2);
  }
}

TEST_F(CompareGraph, TheFaultOfAGraphIsNamedFirst) {
  // The third step is the first that is a graph.
  const std::pair<Fault, const char*> faults[] = {
      {Fault::baked_step_number, "in step 3, forward: dropout after embedding, time step "},
      {Fault::baked_learning_rate, "in step 3, update: embedding.weight, new weight, row "}};
  for (const auto& [fault, named] : faults) {
    Side eager(device(), DType::f32, false), graph(device(), DType::f32, true, fault);
    Comparison comparison(Rounding::alike);
    for (int i = 0; i < 6; ++i) {
      if (i == 2 && fault == Fault::baked_learning_rate) {
        graph.schedule = {.learning_rate = learning_rate(graph.schedule, 2)};
      }
      compare_whole_step(eager.training, graph.training, comparison);
    }
    const std::string text = report(comparison, graph.training);
    EXPECT_EQ(text.find(std::string("FAIL  first wrong, ") + named), 0U) << text;
  }
}

TEST_F(CompareGraph, AWholeStepComputesWhatItsHalvesDo) {
  Side halves(device(), DType::f32, false), whole(device(), DType::f32, true);
  for (int i = 0; i < 5; ++i) {
    Trace parts = halves.training.gradients();
    for (TracedTensor& tensor : halves.training.update()) parts.push_back(std::move(tensor));
    const Trace seen = whole.training.whole_step();
    std::size_t next = 0;
    for (const TracedTensor& tensor : seen) {
      while (next < parts.size() && parts[next].name != tensor.name) ++next;
      ASSERT_LT(next, parts.size()) << tensor.name;
      EXPECT_EQ(tensor.values, parts[next].values) << tensor.name << ", step " << i + 1;
    }
    EXPECT_EQ(parts.size() - seen.size(), 2U * (4 + 2));  // gates and initial states of two layers
  }
}

}  // namespace
}  // namespace carousel
