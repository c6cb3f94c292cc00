// Windows of a stream whose length is drawn for each batch.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <vector>

#include "engine/batches/batches.h"
#include "engine/batches/stream_plan.h"
#include "kernels/common/check.h"
#include "tests/support/batches.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using test::counting_tokens;
using test::next_batches;
using test::SeenBatch;
using test::TemporaryFolder;

// As AWD-LSTM's.
constexpr StreamOptions kDrawn{
    .batch = 2, .window = 70, .window_deviation = 5, .window_halving = 0.05, .seed = 3};

/// The lengths of the first epochs of a stream of rows of a million tokens; no last windows.
std::vector<std::int64_t> lengths(const StreamOptions& options, std::int64_t epochs) {
  const StreamWindows windows({.window = options.window, .targets = 1'000'000}, options);
  std::vector<std::int64_t> result;
  for (std::int64_t epoch = 0; epoch < epochs; ++epoch) {
    for (std::int64_t i = 0; i + 1 < windows.in(epoch); ++i) {
      result.push_back(windows.at({epoch, i}).steps);
    }
  }
  return result;
}

double mean_of(const std::vector<std::int64_t>& values) {
  double sum = 0;
  for (const std::int64_t value : values) sum += static_cast<double>(value);
  return sum / static_cast<double>(values.size());
}

TEST(DrawnWindows, AreNormalAroundTheWindowOrItsHalf) {
  std::vector<std::int64_t> whole, half;
  const auto all = lengths(kDrawn, 4);
  ASSERT_GT(all.size(), 55'000U);
  for (const std::int64_t steps : all) (steps > 52 ? whole : half).push_back(steps);
  const auto n = static_cast<double>(all.size());
  EXPECT_NEAR(static_cast<double>(half.size()) / n, 0.05, 5 * std::sqrt(0.05 * 0.95 / n));
  // Rounding down takes half a step off the mean and adds a twelfth to the variance.
  for (const auto& [part, mean] : {std::pair{whole, 69.5}, {half, 34.5}}) {
    const auto count = static_cast<double>(part.size());
    double squares = 0;
    for (const std::int64_t steps : part) squares += std::pow(static_cast<double>(steps) - mean, 2);
    EXPECT_NEAR(mean_of(part), mean, 5 * 5 / std::sqrt(count));
    EXPECT_NEAR(squares / count, 25 + 1.0 / 12, 5 * 25 * std::sqrt(2 / count));
  }
}

TEST(DrawnWindows, StayBetweenTheirBounds) {
  for (const std::int64_t steps : lengths(kDrawn, 4)) EXPECT_TRUE(steps >= 5 && steps <= 90);
  std::map<std::int64_t, int> wide, small;
  for (const std::int64_t steps :
       lengths({.window = 20, .window_deviation = 20, .window_halving = 0.5}, 1)) {
    ++wide[steps];
  }
  EXPECT_EQ(wide.begin()->first, 5) << "no window is shorter";
  EXPECT_LE(wide.rbegin()->first, 100);
  for (const std::int64_t steps : lengths({.window = 3, .window_halving = 1}, 1)) ++small[steps];
  EXPECT_EQ(small, (std::map<std::int64_t, int>{{3, 333'333}})) << "unless the window is";
  for (const std::int64_t steps : lengths({.window = 70, .window_halving = 1}, 1)) {
    ASSERT_EQ(steps, 35) << "without a deviation, all halves are equal";
  }
}

TEST(DrawnWindows, DependOnSeedAndEpoch) {
  StreamOptions other = kDrawn;
  ++other.seed;
  EXPECT_NE(lengths(kDrawn, 1), lengths(other, 1));
  const StreamWindows windows({.window = 70, .targets = 7000}, kDrawn);
  std::vector<std::vector<std::int64_t>> epochs(2);
  for (std::int64_t epoch : {1, 0, 2, 1, 0}) {  // in any order
    std::vector<std::int64_t> steps;
    for (std::int64_t i = 0; i < windows.in(epoch); ++i)
      steps.push_back(windows.at({epoch, i}).steps);
    if (epoch == 2) continue;
    auto& before = epochs[static_cast<std::size_t>(epoch)];
    if (!before.empty()) {
      EXPECT_EQ(steps, before);
    }
    before = steps;
  }
  EXPECT_NE(epochs[0], epochs[1]);
}

class DrawnWindowsOn : public testing::TestWithParam<Device> {
 protected:
  /// On the device, and read ahead by the thread.
  static std::unique_ptr<BatchSource> source(const TokenRange& tokens, bool resident,
                                             StreamOptions options = kDrawn) {
    options.device_bytes = resident ? std::size_t{1} << 30 : 0;
    return stream_batches(GetParam(), tokens, options);
  }
  TemporaryFolder folder_;
};
INSTANTIATE_TEST_SUITE_P(Devices, DrawnWindowsOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

TEST_P(DrawnWindowsOn, AnEpochHasEveryTokenOfARowOnceAndInOrder) {
  const TokenRange tokens = counting_tokens(folder_, 1201);  // two rows of 600
  for (const bool resident : {true, false}) {
    const auto data = source(tokens, resident);
    for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
      const std::int64_t count = data->batches_per_epoch();
      std::int64_t done = 0;
      for (std::int64_t i = 0; i < count; ++i) {
        EXPECT_EQ(data->position(), (DataPosition{epoch, i}));
        const Batch batch = data->next();
        const SeenBatch b = test::seen(batch);
        EXPECT_EQ(b.first, i == 0);
        EXPECT_EQ(b.tokens, 2 * b.steps);
        EXPECT_EQ(batch.learning_rate_factor, static_cast<double>(b.steps) / 70);
        for (std::int64_t t = 0; t < b.steps; ++t, ++done) {
          const auto at = static_cast<std::size_t>(2 * t);
          ASSERT_EQ(b.token[at], done);
          ASSERT_EQ(b.token[at + 1], 600 + done);
          ASSERT_EQ(b.target[at], done + 1);
          ASSERT_EQ(b.target[at + 1], 601 + done);
        }
      }
      EXPECT_EQ(done, 600);
      EXPECT_EQ(2 * done, data->counted_per_epoch());
    }
  }
}

TEST_P(DrawnWindowsOn, ResumingAnywhereGivesTheSameBatches) {
  const TokenRange tokens = counting_tokens(folder_, 1201);
  const auto whole = source(tokens, true);
  std::vector<DataPosition> positions;
  std::vector<SeenBatch> want;
  for (int i = 0; i < 30; ++i) {  // some three epochs
    positions.push_back(whole->position());
    want.push_back(next_batches(*whole, 1).front());
  }
  EXPECT_GE(positions.back().epoch, 2);
  for (const bool resident : {true, false}) {
    for (std::size_t i = 0; i < want.size(); i += 3) {
      const auto resumed = source(tokens, resident);
      resumed->seek(positions[i]);
      for (std::size_t j = i; j < want.size(); ++j) {
        ASSERT_EQ(next_batches(*resumed, 1).front(), want[j]) << "from " << i << " to " << j;
      }
    }
    const auto data = source(tokens, resident);
    EXPECT_THROW(data->seek({1, 50}), FormatError);
  }
}

TEST_P(DrawnWindowsOn, LieAtFixedAddresses) {
  const TokenRange tokens = counting_tokens(folder_, 1201);
  for (const bool resident : {true, false}) {
    const auto data = source(tokens, resident);
    const void* const address = data->next()["token"].data();
    for (int i = 0; i < 20; ++i) EXPECT_EQ(data->next()["token"].data(), address);
  }
}

TEST_P(DrawnWindowsOn, ImpossibleOptionsAreNamed) {
  const TokenRange tokens = counting_tokens(folder_, 200);
  const auto refused = [&](const StreamOptions& options) {
    return test::error_text<ConfigError>([&] { source(tokens, true, options); });
  };
  for (const double bad : {-1.0, std::nan("")}) {
    EXPECT_NE(refused({.batch = 2, .window = 9, .window_deviation = bad}).find("window_deviation"),
              std::string::npos);
  }
  for (const double bad : {-0.1, 1.1, std::nan("")}) {
    EXPECT_NE(refused({.batch = 2, .window = 9, .window_halving = bad}).find("window_halving"),
              std::string::npos);
  }
}

}  // namespace
}  // namespace carousel
