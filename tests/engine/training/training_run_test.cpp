// What a checkpoint keeps of a run, and what a run restored from it is like.
#include "engine/training/training_run.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "tests/support/device.h"
#include "tests/support/failing_calls.h"
#include "tests/support/files.h"
#include "tests/support/scripted.h"

namespace carousel {
namespace {

/// A run in which every number depends on `seed`.
struct SmallRun {
  SmallRun(const Device& device, std::uint64_t seed, bool averaging = true)
      : model(drawn(device, seed, DType::bf16), test::ScriptedModel::loss_of_batch),
        optimizer({.kind = "adam", .average_after = 2}, model.parameters()),
        data([](const DataPosition&) { return Batch{}; }, /*per_epoch=*/100),
        run{.model = model, .optimizer = optimizer, .data = data, .state = state(device, seed)} {
    const auto n = static_cast<std::int64_t>(seed);
    const auto x = static_cast<double>(seed);
    run.step = n;
    run.tokens = 1000 + n;
    run.best = x + 0.5;
    run.evaluations_without_best = 2 * n;
    run.plateau = {.best = x + 0.25, .bad_evaluations = 3 * n, .factor = 1 / x};
    run.trigger = {.lowest = x, .recent = {x + 1, x + 2}, .first = averaging ? n - 1 : 0};
    if (averaging) {
      optimizer.average().begin(n - 1);
      std::vector<float> mean(15, static_cast<float>(seed));
      copy_from_host(optimizer.average().of(0), mean.data());
      copy_from_host(optimizer.average().of(1), mean.data());
    }
    data.seek({.epoch = n, .index = n + 1});
    for (const auto& [name, moment] : optimizer.state()) {
      const std::vector<float> values(static_cast<std::size_t>(moment.size()),
                                      static_cast<float>(seed));
      copy_from_host(moment, values.data());
    }
  }
  static Parameters drawn(const Device& device, std::uint64_t seed, DType compute) {
    Parameters parameters;
    const Initializer normal{.kind = Initializer::Kind::normal, .scale = 1};
    parameters.declare("matrix", {3, 5}, normal);
    parameters.declare("bias", {5}, normal);
    parameters.materialize(device, compute, seed);
    return parameters;
  }
  static State state(const Device& device, std::uint64_t seed) {
    const auto x = static_cast<float>(seed);
    const auto n = static_cast<std::int64_t>(seed);
    return {{{.name = "h_l0", .value = test::tensor_of<float>(device, {2, 2}, {x, x, 2, x})},
             {.name = "cache",
              .value = test::tensor_of<float>(device, {4, 1}, {x, 1, x, 3}),
              .batch_axis = 1,
              .growth_axis = 0,
              .position = test::tensor_of<std::int64_t>(device, {1}, {n})}}};
  }
  test::ScriptedModel model;
  Optimizer optimizer;
  test::ScriptedBatches data;
  TrainingRun run;
};

/// The bytes of everything training changes, by name.
std::vector<std::pair<std::string, std::string>> bits(const SmallRun& run) {
  std::vector<std::pair<std::string, std::string>> result;
  const CheckpointData data = checkpoint_data(run.run, {});
  for (const auto* tensors : {&data.weights, &data.state}) {
    for (const NamedTensor& named : *tensors) {
      std::string bytes(named.tensor.bytes(), '\0');
      copy_to_host(named.tensor, bytes.data());
      result.emplace_back(named.name, bytes);
    }
  }
  result.emplace_back("scalars", data.scalars.json());
  result.emplace_back("step", std::to_string(run.run.step));
  return result;
}

void save(const SmallRun& run, const std::filesystem::path& folder) {
  test::FailingCalls calls;  // none fails, and nothing waits for the disk
  CheckpointFolder(folder, 0, calls).save(run.run.step, checkpoint_data(run.run, {}), true);
}

/// A run with other numbers, restored from a checkpoint, is the saved one.
void expect_restored(const Device& device, bool averaging) {
  const test::TemporaryFolder folder;
  SmallRun saved(device, 7, averaging);
  SmallRun other(device, 9, averaging);
  for (const auto& [name, bytes] : bits(saved)) {
    for (const auto& [theirs, other_bytes] : bits(other)) {
      if (name == theirs) {
        EXPECT_NE(bytes, other_bytes) << name << " is not tested";
      }
    }
  }
  save(saved, folder.path());
  restore(other.run, SavedCheckpoint(find_checkpoint(folder.path())));
  EXPECT_EQ(bits(other), bits(saved));
  const auto position = [](const SmallRun& run) {
    return test::read<std::int64_t>(run.run.state.at("cache").position)[0];
  };
  EXPECT_EQ(position(other), 7);
}

class TrainingRunOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, TrainingRunOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

TEST_P(TrainingRunOn, ARestoredRunIsTheSavedOneToTheLastBit) {
  for (const bool averaging : {true, false}) expect_restored(GetParam(), averaging);
}

// What others load from the checkpoint, evaluation and PyTorch among them, is the mean.
TEST_P(TrainingRunOn, TheModelOfACheckpointIsTheAverageOnceItHasBegun) {
  for (const bool averaging : {true, false}) {
    const test::TemporaryFolder folder;
    SmallRun run(GetParam(), 7, averaging);
    save(run, folder.path());
    SmallRun loaded(GetParam(), 9, false);
    const auto weights = named_weights(loaded.model.parameters());
    SavedCheckpoint(find_checkpoint(folder.path())).restore_weights(weights);
    const std::vector<float> mean(15, 7), own = host_floats(run.model.parameters().weight(0));
    EXPECT_NE(own, mean);
    EXPECT_EQ(host_floats(weights[0].tensor), averaging ? mean : own);
  }
}

// The products of a bf16 model read a rounded copy of the weights, which no checkpoint holds.
TEST_P(TrainingRunOn, ProductsReadTheRestoredWeights) {
  const test::TemporaryFolder folder;
  SmallRun saved(GetParam(), 7);
  SmallRun other(GetParam(), 9);
  save(saved, folder.path());
  restore(other.run, SavedCheckpoint(find_checkpoint(folder.path())));
  const std::vector<float> weights = host_floats(saved.model.parameters().flat_weights());
  std::vector<float> rounded;
  for (const float weight : weights) rounded.push_back(static_cast<float>(bf16(weight)));
  EXPECT_EQ(host_floats(other.model.parameters().flat_working()), rounded);
}

TEST_P(TrainingRunOn, ACheckpointOfAnotherRunIsRefused) {
  const test::TemporaryFolder folder;
  save(SmallRun(GetParam(), 7), folder.path());
  const SavedCheckpoint saved(find_checkpoint(folder.path()));
  SmallRun other(GetParam(), 9);
  other.run.state.tensors.pop_back();
  EXPECT_NE(test::error_text<FormatError>([&] {
              restore(other.run, saved);
            }).find("unexpected state.cache, state.cache.position"),
            std::string::npos);
}

}  // namespace
}  // namespace carousel
