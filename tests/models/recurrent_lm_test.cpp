#include "models/recurrent/recurrent_lm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "kernels/common/check.h"
#include "tests/models/stepped_training.h"
#include "tests/support/close.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using test::kVocabulary;
using test::values;
using test::window;
using Training = test::SteppedTraining<RecurrentLm, RecurrentLmConfig>;

RecurrentLmConfig small() {
  return {.vocabulary = kVocabulary, .embed = 6, .encoder = {.hidden = 11, .layers = 2}};
}

class RecurrentLmOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, RecurrentLmOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

TEST_P(RecurrentLmOn, BeginsKnowingNothing) {
  Training training(small(), GetParam());
  const float loss = training.gradients(window(GetParam(), 0, 9, 3));
  EXPECT_NEAR(loss, std::log(17.0), 0.05 * std::log(17.0));
}

TEST_P(RecurrentLmOn, LearnsOneBatchByHeart) {
  Training training({.vocabulary = kVocabulary, .embed = 8, .encoder = {.hidden = 24, .layers = 2}},
                    GetParam());
  const Batch batch = window(GetParam(), 0, 9, 3);
  float loss = 0;
  for (int i = 0; i < 150; ++i) {
    training.state.reset();
    loss = training.train(batch, 0.02F);
  }
  EXPECT_LT(loss, 0.1F);
}

TEST_P(RecurrentLmOn, TwoWindowsWithCarriedStateAreOneLongWindow) {
  Training whole(small(), GetParam()), halves(small(), GetParam());
  const float one = whole.gradients(window(GetParam(), 0, 10, 3));
  const float first = halves.gradients(window(GetParam(), 0, 4, 3));
  const float second = halves.gradients(window(GetParam(), 4, 6, 3));
  EXPECT_NEAR(one, (4 * first + 6 * second) / 10, 1e-6);
  for (std::size_t i = 0; i < whole.state.tensors.size(); ++i) {
    EXPECT_EQ(values(whole.state.tensors[i].value), values(halves.state.tensors[i].value))
        << whole.state.tensors[i].name;
  }
}

TEST_P(RecurrentLmOn, TheSecondStepAllocatesNothing) {
  Training training(small(), GetParam());
  const Batch first = window(GetParam(), 0, 9, 3), second = window(GetParam(), 9, 9, 3);
  training.train(first, 0.01F);
  const MemoryUse before = memory_use(GetParam());
  training.train(second, 0.01F);
  const MemoryUse after = memory_use(GetParam());
  EXPECT_EQ(after.allocations, before.allocations);
  EXPECT_EQ(after.peak, before.peak);
}

TEST_P(RecurrentLmOn, NextLogitsContinueTheTrainedState) {
  Training training(small(), GetParam());
  const Batch batch = window(GetParam(), 0, 5, 3);
  const float loss = training.gradients(batch);

  Arena arena(GetParam());
  Tape tape(arena, false);
  const State state = training.model.initial_state(3);
  std::vector<std::int32_t> target(15);
  copy_to_host(batch["target"], target.data());
  double sum = 0;
  for (std::int64_t t = 0; t < 5; ++t) {
    Pass pass(tape);
    const auto logits =
        values(training.model.logits(pass, {"token", batch["token"].slice(t, 1)}, state));
    pass.finish();
    for (std::size_t b = 0; b < 3; ++b) {
      const float* row = logits.data() + b * kVocabulary;
      double total = 0;
      for (int v = 0; v < kVocabulary; ++v) total += std::exp(static_cast<double>(row[v]));
      sum +=
          std::log(total) - static_cast<double>(row[target[static_cast<std::size_t>(t) * 3 + b]]);
    }
  }
  EXPECT_NEAR(loss, sum / 15, 1e-5);
}

TEST_P(RecurrentLmOn, TiedWeightsGetTheGradientsOfBothUses) {
  RecurrentLmConfig config = small();
  config.embed = config.encoder.hidden;
  Training apart(config, GetParam());
  config.tie_weights = true;
  Training tied(config, GetParam());
  // The same numbers in both: the untied output matrix is made the embedding.
  const auto copy = [](const Tensor& from, const Tensor& to) {
    copy_from_host(to, values(from).data());
  };
  Parameters &p = apart.model.parameters(), &q = tied.model.parameters();
  const auto find = [](const Parameters& parameters, const std::string& name) {
    for (std::size_t i = 0; i < parameters.count(); ++i) {
      if (parameters.name(i) == name) return i;
    }
    return parameters.count();
  };
  for (std::size_t i = 0; i < q.count(); ++i) copy(q.weight(i), p.weight(find(p, q.name(i))));
  const std::size_t embedding = find(p, "embedding.weight"), output = find(p, "output.weight");
  copy(p.weight(embedding), p.weight(output));

  const Batch batch = window(GetParam(), 0, 6, 3);
  EXPECT_EQ(apart.gradients(batch), tied.gradients(batch));
  auto both = values(p.gradient(embedding));
  const auto out = values(p.gradient(output));
  for (std::size_t i = 0; i < both.size(); ++i) both[i] += out[i];
  EXPECT_TRUE(test::close(values(q.gradient(find(q, "embedding.weight"))), both,
                          {.absolute = 1e-7, .relative = 1e-5}));
}

TEST_P(RecurrentLmOn, Bf16TrainsCloseToFloat) {
  RecurrentLmConfig config = small();
  config.encoder.dropout = 0.2;
  Training exact(config, GetParam()), rounded(config, GetParam(), DType::bf16);
  for (std::int64_t i = 0; i < 6; ++i) {
    const Batch batch = window(GetParam(), 7 * i, 7, 3);
    EXPECT_NEAR(exact.train(batch, 0.01F), rounded.train(batch, 0.01F), 0.02) << "step " << i;
  }
}

class RecurrentLmParity : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Types, RecurrentLmParity, testing::Values(DType::f32, DType::bf16),
                         [](const auto& type) { return name(type.param); });

TEST_P(RecurrentLmParity, CpuAndCudaTrainAlike) {
  CAROUSEL_SKIP_WITHOUT_CUDA();
  RecurrentLmConfig config = small();
  config.encoder.dropout = 0.3;
  Training cpu(config, Cpu{}, GetParam()), cuda(config, *test::cuda_device(), GetParam());
  const double tolerance = GetParam() == DType::f32 ? 1e-5 : 1e-2;
  for (std::int64_t i = 0; i < 6; ++i) {
    const float a = cpu.train(window(Cpu{}, 7 * i, 7, 3), 0.01F);
    const float b = cuda.train(window(*test::cuda_device(), 7 * i, 7, 3), 0.01F);
    EXPECT_NEAR(a, b, tolerance) << "step " << i;
  }
}

TEST(RecurrentLm, NamesAndShapesArePyTorchs) {
  RecurrentLm model(small(), Cpu{}, DType::f32, 1);
  std::vector<std::string> names;
  for (std::size_t i = 0; i < model.parameters().count(); ++i) {
    names.push_back(model.parameters().name(i) + " " + model.parameters().weight(i).shape().text());
  }
  EXPECT_EQ(names,
            (std::vector<std::string>{
                "embedding.weight [17, 6]", "lstm.weight_ih_l0 [44, 6]",
                "lstm.weight_hh_l0 [44, 11]", "lstm.bias_ih_l0 [44]", "lstm.bias_hh_l0 [44]",
                "lstm.weight_ih_l1 [44, 11]", "lstm.weight_hh_l1 [44, 11]", "lstm.bias_ih_l1 [44]",
                "lstm.bias_hh_l1 [44]", "output.weight [17, 11]", "output.bias [17]"}));
}

TEST(RecurrentLm, TyingNeedsEqualWidths) {
  RecurrentLmConfig config = small();
  config.tie_weights = true;
  EXPECT_THROW(RecurrentLm(config, Cpu{}, DType::f32, 1), ConfigError);
}

}  // namespace
}  // namespace carousel
