// Two sides that train the LSTM language model: alike, they agree; a fault planted in the second is
// the first thing the report names.
#include <gtest/gtest.h>

#include <functional>
#include <optional>

#include "engine/comparison/comparison_report.h"
#include "models/recurrent/recurrent_lm.h"
#include "tests/support/device.h"
#include "tests/support/products.h"
#include "tests/support/windows.h"

namespace carousel {
namespace {

constexpr std::int64_t kBatch = 3, kWindow = 7, kHidden = 11;

RecurrentLmConfig config(std::int64_t embed = 6, std::int64_t hidden = kHidden) {
  return {.vocabulary = test::Windows::kVocabulary,
          .embed = embed,
          .encoder = {.hidden = hidden, .layers = 2, .dropout = 0.2}};
}

enum class Fault {
  none,
  sign_of_a_gates_gradient,
  mask_of_next_step,
  transposed_weight,
  stale_state
};

/// Changes what a tensor holds, on whatever device and in whatever type.
void change(const Tensor& tensor, const std::function<void(std::vector<float>&)>& edit) {
  std::vector<float> values = host_floats(tensor);
  edit(values);
  visit_float(tensor.dtype(), [&]<class T>(std::type_identity<T>) {
    std::vector<T> stored;
    for (const float v : values) stored.push_back(static_cast<T>(v));
    copy_from_host(tensor, stored.data());
  });
}

/// The LSTM language model with a fault.
class Planted final : public Model {
 public:
  Planted(const RecurrentLmConfig& config, const Device& device, DType compute, Fault fault)
      : model_(config, device, compute, /*seed=*/7),
        fault_(fault),
        step_(device, {1}, DType::i64),
        nothing_(device, {1}, DType::f32),
        before_(model_.initial_state(kBatch)) {}

  Parameters& parameters() override { return model_.parameters(); }
  State initial_state(std::int64_t batch) const override { return model_.initial_state(batch); }
  Objective objective(Pass& pass, const Batch& batch, const State& state) override {
    switch (fault_) {
      case Fault::none:
        break;
      case Fault::sign_of_a_gates_gradient:
        return with_wrong_sign(pass, batch, state);
      case Fault::mask_of_next_step:
        return with_wrong_mask(pass, batch, state);
      case Fault::transposed_weight:
        transpose_output_gate();
        break;
      case Fault::stale_state:
        give_stale_state(state);
        break;
    }
    return model_.objective(pass, batch, state);
  }

 private:
  /// A rule of this tape that is always run.
  void on_backward(Tape& tape, std::function<void()> rule) {
    const Var always = tape.parameter(nothing_, nothing_);
    always.gradient();
    tape.on_backward({always}, std::move(rule));
  }

  /// g enters the backward pass in δa_i = δc ∘ g ∘ i(1−i) and as 1 − g²: with −g for g, the input
  /// gate's gradient has the wrong sign and the others are right. Rules run last to first, so this
  /// one comes before the layer's.
  Objective with_wrong_sign(Pass& pass, const Batch& batch, const State& state) {
    Objective objective = model_.objective(pass, batch, state);
    for (const LabelledValue& entry : pass.tape().labelled()) {
      if (entry.label.text() != "lstm layer 1, gate") continue;
      on_backward(pass.tape(), [gates = entry.value] {
        change(gates, [](std::vector<float>& values) {
          for (std::size_t n = 0; n < values.size(); ++n) {
            if (n / kHidden % 4 == 2) values[n] = -values[n];
          }
        });
      });
    }
    return objective;
  }

  Objective with_wrong_mask(Pass& pass, const Batch& batch, const State& state) {
    RandomSource random = pass.random(0);
    std::int64_t step = 0;
    const Device& device = step_.device();
    copy_to_host(device, &step, random.step.data, sizeof(step));
    ++step;
    copy_from_host(step_, &step);
    random.step = step_.view<std::int64_t, 1>();
    pass_.emplace(pass.tape(), Pass::Options{.random = random, .denominator = pass.denominator()});
    on_backward(pass.tape(), [this] { pass_->finish(); });  // recorded first, run last
    return model_.objective(*pass_, batch, state);
  }

  void transpose_output_gate() {
    Parameters& p = model_.parameters();
    for (std::size_t i = 0; i < p.count(); ++i) {
      if (p.name(i) != "lstm.weight_hh_l1") continue;
      change(p.weight(i), [](std::vector<float>& values) {
        float* const block = values.data() + 3 * kHidden * kHidden;
        for (std::int64_t r = 0; r < kHidden; ++r) {
          for (std::int64_t c = 0; c < r; ++c)
            std::swap(block[r * kHidden + c], block[c * kHidden + r]);
        }
      });
    }
    p.refresh_working();
  }

  /// The state a window begins with becomes that of the window before.
  void give_stale_state(const State& state) {
    for (std::size_t i = 0; i < state.tensors.size(); ++i) {
      const std::vector<float> now = host_floats(state.tensors[i].value);
      const std::vector<float> before = host_floats(before_.tensors[i].value);
      change(state.tensors[i].value, [&](std::vector<float>& values) { values = before; });
      change(before_.tensors[i].value, [&](std::vector<float>& values) { values = now; });
    }
  }

  RecurrentLm model_;
  Fault fault_;
  Tensor step_, nothing_;
  State before_;
  std::optional<Pass> pass_;
};

/// A side of a comparison.
struct Side {
  Side(const Device& device, DType compute, Fault fault = Fault::none, bool tf32 = false,
       const RecurrentLmConfig& of = config())
      : model(of, device, compute, fault),
        optimizer({.kind = "adamw", .weight_decay = 0.01, .clip_norm = 1}, model.parameters()),
        data(device, kBatch, {kWindow}),
        run{.model = model,
            .optimizer = optimizer,
            .data = data,
            .state = model.initial_state(kBatch)},
        training(run, {.schedule = schedule, .seed = 3, .tf32 = tf32}) {}

  Planted model;
  Optimizer optimizer;
  test::Windows data;
  TrainingRun run;
  Schedule schedule{.learning_rate = 0.01};
  TracedTraining training;
};

Comparison compare(Side& a, Side& b, int steps, Rounding rounding) {
  Comparison comparison(rounding);
  for (int i = 0; i < steps; ++i) compare_step(a.training, b.training, comparison);
  return comparison;
}

std::string text(const Comparison& comparison) {
  return report_text({.a = "one", .b = "two", .steps = 20, .comparison = comparison});
}

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

class CompareOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, CompareOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

TEST_P(CompareOn, TwentyStepsAgreeWithTheCpus) {
  for (const DType compute : {DType::f32, DType::bf16}) {
    Side a(Cpu{}, compute), b(GetParam(), compute);
    const Comparison comparison =
        compare(a, b, 20, compute == DType::f32 ? Rounding::f32 : Rounding::bf16);
    EXPECT_TRUE(comparison.holds()) << text(comparison);
    if (!test::has_gpu()) {
      EXPECT_LT(comparison.worst()->largest.excess(), 0.5) << text(comparison);
    }
  }
}

TEST_P(CompareOn, ASideAgreesWithItselfToTheLastBit) {
  Side a(GetParam(), DType::f32), b(GetParam(), DType::f32);
  EXPECT_EQ(compare(a, b, 5, Rounding::f32).worst()->largest.excess(), 0);
}

TEST_P(CompareOn, CoarserProductsAgreeWithinTheirToleranceAndNotWithinF32s) {
  {
    Side a(GetParam(), DType::f32), b(GetParam(), DType::bf16);
    const Comparison comparison = compare(a, b, 20, Rounding::bf16);
    EXPECT_TRUE(comparison.holds()) << text(comparison);
    EXPECT_GT(comparison.worst()->largest.excess(), 0.1) << "the tolerance is too loose";
  }
  Side a(GetParam(), DType::f32), b(GetParam(), DType::bf16);
  EXPECT_FALSE(compare(a, b, 1, Rounding::f32).holds());
}

// The products of the wide model are large enough for tf32 to pay, those of the other are not.
TEST_P(CompareOn, Tf32AgreesWithinItsToleranceAndWhereItDidNotRunToTheLastBit) {
  for (const RecurrentLmConfig& model : {config(), config(512, 128)}) {
    Side a(GetParam(), DType::f32, Fault::none, false, model),
        b(GetParam(), DType::f32, Fault::none, /*tf32=*/true, model);
    std::optional<Comparison> comparison;
    const bool rounds = test::ran_in_tf32([&] { comparison = compare(a, b, 2, Rounding::tf32); });
    EXPECT_TRUE(comparison->holds()) << text(*comparison);
    if (!test::has_gpu()) {
      EXPECT_EQ(rounds, !is_cpu(GetParam()) && model.embed == 512);
    }
    const double worst = comparison->worst()->largest.excess();
    if (!rounds) {
      EXPECT_EQ(worst, 0);
    }
    if (rounds) {
      EXPECT_GT(worst, 0.05) << "the tolerance is too loose";
    }
  }
}

struct Plant {
  Fault fault;
  const char *tensor, *place;  ///< in the report's first line, one after the other
};

TEST_P(CompareOn, ThePlantedFaultIsNamedFirst) {
  const Plant plants[] = {
      {Fault::sign_of_a_gates_gradient, "in step 1, backward: gradient of lstm layer 1, gate i, ",
       "time step 6, row "},
      {Fault::mask_of_next_step, "in step 1, forward: dropout after embedding, ",
       "time step 0, row "},
      {Fault::transposed_weight, "in step 1, forward: lstm layer 1, gate o, ", "time step 1, row "},
      {Fault::stale_state, "in step 2, forward: lstm layer 0, initial hidden state, ",
       "row 0, unit "},
  };
  for (const DType compute : {DType::f32, DType::bf16}) {
    for (const Plant& plant : plants) {
      Side a(Cpu{}, compute), b(GetParam(), compute, plant.fault);
      const Comparison comparison =
          compare(a, b, 3, compute == DType::f32 ? Rounding::f32 : Rounding::bf16);
      const std::string line = first_line(text(comparison));
      EXPECT_NE(line.find("FAIL  first wrong"), std::string::npos) << line;
      // In bf16 the first steps of a window, whose states are small, may hide in the tolerance.
      const std::string named =
          compute == DType::f32 ? std::string(plant.tensor) + plant.place : plant.tensor;
      EXPECT_NE(line.find(named), std::string::npos) << name(compute) << ": " << line;
      ASSERT_NE(comparison.first_wrong(), nullptr);
      EXPECT_GT(comparison.first_wrong()->largest.excess(), compute == DType::f32 ? 1000 : 2)
          << name(compute) << ": " << plant.tensor;
    }
  }
}

TEST_P(CompareOn, FreeRunsDriftAndAreNotJudged) {
  Side a(Cpu{}, DType::f32), b(GetParam(), DType::bf16);
  for (int i = 0; i < 5; ++i) a.training.step(), b.training.step();
  const Drift apart = drift(a.training, b.training);
  EXPECT_NEAR(apart.loss_a, apart.loss_b, 0.02);
  EXPECT_GT(apart.weights, 1e-6);
  EXPECT_LT(apart.weights, 0.05);
}

}  // namespace
}  // namespace carousel
