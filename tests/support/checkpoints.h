#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <numeric>
#include <vector>

#include "engine/training/checkpoint.h"

namespace carousel::test {

/// A small checkpoint. All of its numbers follow from its step, so that a mixture of two is seen.
inline CheckpointData checkpoint_of(const Device& device, std::int64_t step) {
  const auto filled = [&](Shape shape) {
    Tensor tensor(device, shape, DType::f32);
    std::vector<float> values(static_cast<std::size_t>(shape.size()));
    std::iota(values.begin(), values.end(), static_cast<float>(step));
    copy_from_host(tensor, values.data());
    return tensor;
  };
  Tensor counter(device, {1}, DType::i64);
  copy_from_host(counter, &step);
  CheckpointData data;
  data.weights = {{"lstm.weight_hh_l0", filled({8, 2})}, {"lstm.weight_ih_l0", filled({8, 3})}};
  data.state = {{"adam.m.lstm.weight_hh_l0", filled({8, 2})},
                {"carried.hidden", filled({2, 4, 2})},
                {"random.step", counter}};
  data.metadata = {{"gate_order", "i, f, g, o"}};
  data.scalars.set("epoch", step);
  data.scalars.set("best_loss", 1.0 / static_cast<double>(step));
  return data;
}

/// Whether the checkpoint in `folder` is complete and equal to checkpoint_of(device, step).
inline testing::AssertionResult is_checkpoint(const Device& device,
                                              const std::filesystem::path& folder,
                                              std::int64_t step) {
  const SavedCheckpoint saved(folder);
  const CheckpointData want = checkpoint_of(device, step), got = checkpoint_of(device, -1);
  saved.restore_weights(got.weights);
  saved.restore_state(got.state);
  if (saved.step() != step) return testing::AssertionFailure() << "step is " << saved.step();
  if (saved.scalars() != want.scalars) return testing::AssertionFailure() << saved.scalars().json();
  const auto equal = [](const Tensor& a, const Tensor& b) {
    std::vector<std::byte> left(a.bytes()), right(b.bytes());
    copy_to_host(a, left.data());
    copy_to_host(b, right.data());
    return left == right;
  };
  for (std::size_t i = 0; i < want.weights.size(); ++i) {
    if (!equal(got.weights[i].tensor, want.weights[i].tensor)) {
      return testing::AssertionFailure() << want.weights[i].name << " differs";
    }
  }
  for (std::size_t i = 0; i < want.state.size(); ++i) {
    if (!equal(got.state[i].tensor, want.state[i].tensor)) {
      return testing::AssertionFailure() << want.state[i].name << " differs";
    }
  }
  return testing::AssertionSuccess();
}

inline void expect_checkpoint(const Device& device, const std::filesystem::path& folder,
                              std::int64_t step) {
  EXPECT_TRUE(is_checkpoint(device, folder, step)) << folder;
}

}  // namespace carousel::test
