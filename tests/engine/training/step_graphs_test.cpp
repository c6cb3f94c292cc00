#include "engine/training/step_graphs.h"

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

TEST_F(StepGraphsOnCuda, HoldsSoManyShapesAndBeyondThemNone) {
  for (int round = 0; round < 3; ++round) {
    for (std::uintptr_t shape = 0; shape < StepGraphs::kMostKeys; ++shape) run(shape);
  }
  EXPECT_TRUE(refusals_.empty());
  EXPECT_EQ(graphs_.captured(), 64);
  EXPECT_EQ(graphs_.launched(), 128);
  for (std::uintptr_t shape = 60; shape < 70; ++shape) {
    EXPECT_EQ(run(shape), static_cast<float>(shape) + 0.5F);
    EXPECT_EQ(run(shape), static_cast<float>(shape) + 0.5F);
  }
  EXPECT_EQ(refusals_, std::vector<std::string>{
                           "steps of more than 64 shapes, expected a few that come again"});
  EXPECT_EQ(graphs_.captured(), 64);
  EXPECT_EQ(graphs_.launched(), 128 + 8) << "those before the one too many";
}

}  // namespace
}  // namespace carousel
