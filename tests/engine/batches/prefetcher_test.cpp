#include "engine/batches/prefetcher.h"

#include <gtest/gtest.h>

#include <chrono>
#include <stdexcept>
#include <string>

#include "tests/support/batches.h"
#include "tests/support/device.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

using test::error_text;

// Batches of 100 · epoch + index in fields of several types and shapes; one position may fail.
class CountingPlan final : public BatchPlan {
 public:
  BatchLimits limits() const override {
    return {.rows = 1,
            .fields = {{.name = "token", .steps = 1},
                       {.name = "x", .dtype = DType::f32, .width = 2},
                       {.name = "frame", .steps = 3, .dtype = DType::f64, .width = 2}}};
  }
  std::int64_t batches_in(std::int64_t) const override { return 100; }
  std::int64_t counted_per_epoch() const override { return 100; }
  bool is_first(std::int64_t index) const override { return index == 0; }
  void fill(const DataPosition& position, HostBatch& batch) override {
    if (position == failing) throw std::runtime_error("the disk is gone");
    if (slow) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const std::int64_t number = 100 * position.epoch + position.index;
    batch.counted = batch.fields[0].steps = 1;
    batch.fields[0].ids()[0] = static_cast<std::int32_t>(number);
    batch.fields[1].as<float>()[1] = static_cast<float>(number) + 0.5F;
    batch.fields[2].steps = 1 + position.index % 3;
    batch.fields[2].as<double>()[2 * batch.fields[2].steps - 1] = static_cast<double>(-number);
  }
  DataPosition failing{-1, 0};
  bool slow = false;
};

// The number of a batch, which every field must have.
std::int32_t number_of(const Batch& batch) {
  const std::int32_t number = test::numbers(batch["token"]).front();
  const Tensor &x = batch["x"], &frame = batch["frame"];
  EXPECT_EQ(x.shape(), (Shape{1, 2}));
  EXPECT_EQ(frame.shape(), (Shape{1 + number % 100 % 3, 1, 2}));
  float two[2] = {};
  double frames[6] = {};
  copy_to_host(x, two);
  copy_to_host(frame, frames);
  EXPECT_EQ(two[1], static_cast<float>(number) + 0.5F);
  EXPECT_EQ(frames[frame.size() - 1], -number);
  return number;
}

class PrefetcherTest : public testing::Test {
 protected:
  std::vector<HostBatch> slots() {
    std::vector<HostBatch> batches(4);
    for (std::size_t i = 0; i < 4; ++i) {
      for (auto& room : room_[i]) batches[i].fields.push_back({.values = room});
    }
    return batches;
  }
  CountingPlan plan_;
  double room_[4][3][6] = {};
};

TEST_F(PrefetcherTest, GivesBatchesInOrderAcrossEpochs) {
  for (const bool slow : {false, true}) {
    plan_.slow = slow;
    Prefetcher prefetcher(plan_, slots());
    DataPosition position{2, 60};
    for (std::int32_t i = 260; i < 360; ++i) {
      ASSERT_EQ(prefetcher.take(position).fields[0].ids()[0], i);
      prefetcher.give_back();
      position = after(position, 100);
    }
  }
}

TEST_F(PrefetcherTest, KeepsWhatWasTakenUntilItIsGivenBack) {
  Prefetcher prefetcher(plan_, slots());
  const HostBatch& first = prefetcher.take({0, 0});
  const HostBatch& second = prefetcher.take({0, 1});
  prefetcher.take({0, 2});
  prefetcher.take({0, 3});  // the ring is full: the thread waits
  EXPECT_EQ(first.fields[0].ids()[0], 0);
  prefetcher.give_back();
  EXPECT_EQ(prefetcher.take({0, 4}).fields[0].ids()[0], 4);
  EXPECT_EQ(second.fields[0].ids()[0], 1);
}

TEST_F(PrefetcherTest, GoesToAnyPosition) {
  Prefetcher prefetcher(plan_, slots());
  for (const std::int64_t index : {50, 3, 3, 99, 4, 5, 0}) {
    EXPECT_EQ(prefetcher.take({1, index}).fields[0].ids()[0], 100 + index);
    prefetcher.give_back();
  }
}

TEST_F(PrefetcherTest, EndsWhateverItsThreadIsDoing) {
  plan_.slow = true;
  for (int i = 0; i < 30; ++i) {
    Prefetcher prefetcher(plan_, slots());
    if (i % 3 > 0) prefetcher.take({0, i});
    if (i % 3 > 1) std::this_thread::sleep_for(std::chrono::milliseconds(i));
  }
}

TEST_F(PrefetcherTest, ThrowsWhatWentWrongAtTheBatchItBelongsTo) {
  plan_.failing = {0, 3};
  Prefetcher prefetcher(plan_, slots());
  for (std::int64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(prefetcher.take({0, i}).fields[0].ids()[0], i);
    prefetcher.give_back();
  }
  for (int again = 0; again < 2; ++again) {
    EXPECT_EQ(error_text<std::runtime_error>([&] { prefetcher.take({0, 3}); }), "the disk is gone");
  }
  EXPECT_EQ(prefetcher.take({0, 4}).fields[0].ids()[0], 4);
}

TEST(PrefetchedSource, PassesErrorsOnAndCanGoElsewhere) {
  for (const Device& device : test::devices()) {
    auto plan = std::make_unique<CountingPlan>();
    plan->failing = {0, 12};
    const auto source = prefetched(device, std::move(plan));
    for (std::int32_t i = 0; i < 12; ++i) EXPECT_EQ(number_of(source->next()), i);
    EXPECT_EQ(error_text<std::runtime_error>([&] { source->next(); }), "the disk is gone");
    EXPECT_EQ(source->position(), (DataPosition{0, 12}));
    source->seek({0, 13});
    EXPECT_EQ(number_of(source->next()), 13);
  }
}

// More batches than slots are queued before anything is looked at, so that a slot filled again too
// early would show in an earlier batch.
TEST(PrefetchedSource, DoesNotOverwriteWhatTheDeviceHasNotReadYet) {
  for (const Device& device : test::devices()) {
    const auto source = prefetched(device, std::make_unique<CountingPlan>());
    for (std::int32_t i = 0; i < 350; ++i) {
      const Batch batch = source->next();
      if (i % 37 == 36) {
        EXPECT_EQ(number_of(batch), i);
      }
    }
  }
}

}  // namespace
}  // namespace carousel
