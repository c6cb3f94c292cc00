#include "engine/tape/step_graphs.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/copy/copy.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

class StepGraphsOnCuda : public testing::Test {
 protected:
  void SetUp() override { CAROUSEL_SKIP_WITHOUT_CUDA(); }

  /// A step of the given shape, which leaves a number of its own; that number.
  float run(std::uintptr_t shape) {
    const Tensor result = graphs_.run({shape}, [&] {
      ++queued_;
      const Tensor to = values_.slice(static_cast<std::int64_t>(shape), 1);
      carousel::run(device_, Fill<float>{.to = to.mutable_view<float, 1>(),
                                         .value = static_cast<float>(shape) + 0.5F});
      return to;
    });
    float value = 0;
    copy_to_host(result, &value);
    const float nothing = -1;
    copy_from_host(result, &nothing);
    return value;
  }

  const Device device_ = test::cuda_device() == nullptr ? Device(Cpu{}) : *test::cuda_device();
  const Tensor values_{device_, {1000}, DType::f32};
  std::vector<std::string> refusals_;
  StepGraphs graphs_{device_, true, [this](const std::string& why) { refusals_.push_back(why); }};
  int queued_ = 0;
};

TEST_F(StepGraphsOnCuda, CapturesAShapeAtSecondSightAndQueuesItNoMore) {
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(run(1), 1.5F);
    EXPECT_EQ(run(2), 2.5F);
  }
  EXPECT_EQ(queued_, 4);
  EXPECT_EQ(graphs_.captured(), 2);
  EXPECT_EQ(graphs_.launched(), 8);
}

TEST_F(StepGraphsOnCuda, TheLeastRecentlyUsedGraphGivesWayToANewKey) {
  constexpr auto kMost = static_cast<std::uintptr_t>(StepGraphs::kMostKeys);
  for (int round = 0; round < 3; ++round) {
    for (std::uintptr_t shape = 0; shape < kMost; ++shape) run(shape);
  }
  EXPECT_EQ(graphs_.captured(), kMost);
  EXPECT_EQ(graphs_.launched(), 2 * kMost);
  EXPECT_EQ(graphs_.remembered(), kMost);

  run(0);      // the oldest by insertion, not by use
  run(kMost);  // takes the place of 1
  EXPECT_EQ(graphs_.remembered(), kMost);
  queued_ = 0;
  EXPECT_EQ(run(0), 0.5F);
  EXPECT_EQ(run(2), 2.5F);
  EXPECT_EQ(queued_, 0) << "both still have their graphs";
  for (const int expected_queued : {1, 2, 2}) {  // queued, captured, launched
    EXPECT_EQ(run(1), 1.5F);
    EXPECT_EQ(queued_, expected_queued);
  }
  EXPECT_EQ(graphs_.captured(), kMost + 1);
  EXPECT_EQ(graphs_.remembered(), kMost);
}

TEST_F(StepGraphsOnCuda, KeysThatNeverComeBackAreQueuedAndForgotten) {
  for (std::uintptr_t shape = 0; shape < 300; ++shape) {
    EXPECT_EQ(run(shape), static_cast<float>(shape) + 0.5F);
  }
  EXPECT_EQ(queued_, 300);
  EXPECT_EQ(graphs_.captured(), 0);
  EXPECT_EQ(graphs_.remembered(), StepGraphs::kMostKeys);
  run(299);
  run(299);
  EXPECT_EQ(graphs_.captured(), 1);
  EXPECT_EQ(graphs_.launched(), 2);
}

TEST_F(StepGraphsOnCuda, AStepThatCannotBeCapturedIsToldOnceAndQueuedFromThenOn) {
  const auto waits = [&] {
    ++queued_;
    static_cast<void>(host_floats(values_));  // waits for the device
    return values_;
  };
  run(7), run(7);
  for (int i = 0; i < 3; ++i) graphs_.run({1}, waits);
  EXPECT_EQ(refusals_.size(), 1U);
  EXPECT_EQ(graphs_.remembered(), 0U);
  run(7), run(7);
  EXPECT_EQ(graphs_.captured(), 1);
  EXPECT_EQ(queued_, 2 + 4 + 2) << "the failed capture queues its step twice";
}

}  // namespace
}  // namespace carousel
