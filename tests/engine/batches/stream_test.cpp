#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>
#include <vector>

#include "engine/batches/batches.h"
#include "engine/batches/stream_plan.h"
#include "kernels/common/check.h"
#include "tests/support/batches.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using test::counting_tokens;
using test::error_text;
using test::next_batches;
using test::seen;
using test::SeenBatch;
using test::TemporaryFolder;
using Ids = std::vector<std::int32_t>;

// On the device, or read ahead by the thread.
StreamOptions in_place(StreamOptions options, bool resident) {
  options.device_bytes = resident ? std::size_t{1} << 30 : 0;
  return options;
}

class DataStream : public testing::TestWithParam<bool> {
 protected:
  std::unique_ptr<BatchSource> source(const Device& device, const TokenRange& tokens,
                                      const StreamOptions& options) const {
    return stream_batches(device, tokens, in_place(options, GetParam()));
  }
  TemporaryFolder folder_;
};

INSTANTIATE_TEST_SUITE_P(Places, DataStream, testing::Bool(),
                         [](const auto& place) { return place.param ? "Resident" : "Prefetched"; });

TEST_P(DataStream, WindowsWorkedByHand) {
  // Eleven tokens in two rows of five: 0 1 2 3 4 | 5 6 7 8 9 | and 10 as the last target.
  const TokenRange tokens = counting_tokens(folder_, 11);
  for (const Device& device : test::devices()) {
    const auto data = source(device, tokens, {.batch = 2, .window = 2});
    EXPECT_EQ(data->batches_per_epoch(), 3);
    EXPECT_EQ(data->counted_per_epoch(), 10);
    const auto b = next_batches(*data, 4);
    EXPECT_EQ(b[0].token, (Ids{0, 5, 1, 6}));
    EXPECT_EQ(b[0].target, (Ids{1, 6, 2, 7}));
    EXPECT_EQ(b[1].token, (Ids{2, 7, 3, 8}));
    EXPECT_EQ(b[1].target, (Ids{3, 8, 4, 9}));
    EXPECT_EQ(b[2].token, (Ids{4, 9}));  // a window of one step
    EXPECT_EQ(b[2].target, (Ids{5, 10}));
    EXPECT_EQ(b[2].steps, 1);
    EXPECT_EQ(b[2].tokens, 2);
    EXPECT_TRUE(b[0].first && !b[1].first && !b[2].first && b[3].first);
    EXPECT_EQ(b[3], b[0]);
    EXPECT_EQ(data->position(), (DataPosition{1, 1}));
    EXPECT_TRUE(b[0].reset.empty() && b[0].lengths.empty());
  }
}

TEST_P(DataStream, RowsThatUseUpTheStreamHaveOneTargetLess) {
  const auto data = source(Cpu{}, counting_tokens(folder_, 10), {.batch = 2, .window = 2});
  EXPECT_EQ(data->batches_per_epoch(), 2);
  const auto b = next_batches(*data, 2);
  EXPECT_EQ(b[1].token, (Ids{2, 7, 3, 8}));
  EXPECT_EQ(b[1].target, (Ids{3, 8, 4, 9}));
}

TEST_P(DataStream, AnEpochHasEveryTargetOnceButFewerThanARowOfThem) {
  for (const std::int64_t count : {2, 7, 40, 41, 97}) {
    const TokenRange tokens = counting_tokens(folder_, count);
    for (const std::int64_t batch : {1, 2, 3, 6}) {
      for (const std::int64_t window : {1, 2, 5, 16}) {
        if (count - 1 < batch * window) continue;
        const auto data = source(Cpu{}, tokens, {.batch = batch, .window = window});
        std::multiset<std::int32_t> targets;
        std::int64_t counted = 0;
        Ids expected(static_cast<std::size_t>(batch));
        for (std::int64_t row = 0; row < batch; ++row) {
          expected[static_cast<std::size_t>(row)] =
              static_cast<std::int32_t>(row * (count / batch));
        }
        for (const SeenBatch& b : next_batches(*data, data->batches_per_epoch())) {
          counted += b.tokens;
          targets.insert(b.target.begin(), b.target.end());
          for (std::int64_t row = 0; row < batch; ++row) {  // goes on where the last one ended
            for (const std::int32_t token : b.row(b.token, row)) {
              ASSERT_EQ(token, expected[static_cast<std::size_t>(row)]++);
            }
            ASSERT_EQ(b.row(b.target, row).back(), expected[static_cast<std::size_t>(row)]);
          }
        }
        EXPECT_EQ(counted, data->counted_per_epoch());
        EXPECT_EQ(static_cast<std::int64_t>(targets.size()), counted);
        EXPECT_EQ(std::set(targets.begin(), targets.end()).size(), targets.size());
        EXPECT_GT(counted, count - 1 - batch);
      }
    }
  }
}

TEST_P(DataStream, DocumentsResetTheStateWhereTheyBegin) {
  // Bytes; '.' ends a document.  Rows: "ab.c" and ".de.".
  const TokenRange tokens =
      test::tokens_of(folder_, "ab.c.de.f", {TokenKind::byte, Newline::text, false});
  for (const Device& device : test::devices()) {
    const auto data = source(device, tokens, {.batch = 2, .window = 3, .document_end = '.'});
    const auto b = next_batches(*data, 2);
    EXPECT_EQ(b[0].row(b[0].reset, 0), (Ids{1, 0, 0}));
    EXPECT_EQ(b[0].row(b[0].reset, 1), (Ids{0, 1, 0}));
    EXPECT_EQ(b[1].row(b[1].reset, 0), (Ids{1}));  // c, whose '.' was in the window before
    EXPECT_EQ(b[1].row(b[1].reset, 1), (Ids{0}));
  }
}

TEST_P(DataStream, ResumingAnywhereGivesTheSameBatches) {
  const TokenRange tokens = counting_tokens(folder_, 83);
  const StreamOptions options{.batch = 3,
                              .window = 4,
                              .document_end = 7,
                              .random_start = true,
                              .reset_probability = 0.3,
                              .seed = 5};
  for (const Device& device : test::devices()) {
    const auto whole = source(device, tokens, options);
    std::vector<DataPosition> positions;
    std::vector<SeenBatch> batches;
    for (int i = 0; i < 20; ++i) {
      positions.push_back(whole->position());
      batches.push_back(seen(whole->next()));
    }
    const auto moved = source(device, tokens, options);  // goes back and forth
    for (std::size_t i = 0; i < positions.size(); i += 3) {
      const auto resumed = source(device, tokens, options);
      for (BatchSource* const data : {resumed.get(), moved.get()}) {
        data->seek(positions[i]);
        EXPECT_EQ(data->position(), positions[i]);
        const auto rest = next_batches(*data, static_cast<std::int64_t>(batches.size() - i));
        EXPECT_TRUE(std::equal(rest.begin(), rest.end(), batches.begin() + static_cast<long>(i)));
      }
    }
  }
}

TEST_P(DataStream, BatchesLieAtFixedAddresses) {
  const auto data =
      source(Cpu{}, counting_tokens(folder_, 90), {.batch = 4, .window = 5, .document_end = 0});
  const Batch first = data->next();
  for (std::int64_t i = 0; i < 2 * data->batches_per_epoch(); ++i) {
    const Batch batch = data->next();
    EXPECT_EQ(batch["token"].data(), first["token"].data());
    EXPECT_EQ(batch["target"].data(), first["target"].data());
    EXPECT_EQ(batch.reset.data(), first.reset.data());
  }
}

TEST_P(DataStream, RandomStartsDifferByEpochAndSeedWithinAWindow) {
  const TokenRange tokens = counting_tokens(folder_, 300);
  std::set<std::vector<std::int32_t>> histories;
  for (const std::uint64_t seed : {1U, 2U, 3U}) {
    const auto data =
        source(Cpu{}, tokens, {.batch = 3, .window = 8, .random_start = true, .seed = seed});
    std::vector<std::int32_t> starts;
    for (int epoch = 0; epoch < 40; ++epoch) {
      data->seek({epoch, 0});
      starts.push_back(seen(data->next()).token.front());
      data->seek({epoch, data->batches_per_epoch() - 1});
      EXPECT_LE(seen(data->next()).target.back(), 299);
    }
    const auto [least, most] = std::minmax_element(starts.begin(), starts.end());
    EXPECT_EQ(*least, 0);
    EXPECT_EQ(*most, 7);
    histories.insert(starts);
  }
  EXPECT_EQ(histories.size(), 3U);
}

TEST_P(DataStream, RowsRestartByChanceWhereWindowsBegin) {
  const TokenRange tokens = counting_tokens(folder_, 4001);
  std::set<Ids> histories;
  for (const std::uint64_t seed : {1U, 2U}) {
    for (const Device& device : test::devices()) {
      const auto data = source(device, tokens,
                               {.batch = 4, .window = 5, .reset_probability = 0.25, .seed = seed});
      Ids restarts;
      for (const SeenBatch& b : next_batches(*data, 2 * data->batches_per_epoch())) {
        for (std::size_t i = 0; i < b.reset.size(); ++i) {
          if (i < 4) {
            restarts.push_back(b.reset[i]);
          } else {
            ASSERT_EQ(b.reset[i], 0);  // counting tokens: 0 begins the text and is not repeated
          }
        }
      }
      // 1,600 draws: 400 ± 17. Both epochs, and all rows, draw their own.
      EXPECT_NEAR(static_cast<double>(std::count(restarts.begin(), restarts.end(), 1)), 400,
                  5 * 17);
      const auto half = restarts.begin() + static_cast<std::ptrdiff_t>(restarts.size() / 2);
      EXPECT_FALSE(std::equal(half, restarts.end(), restarts.begin()));
      histories.insert(restarts);
      for (int row = 0; row < 4; ++row) {
        Ids own;
        for (std::size_t i = static_cast<std::size_t>(row); i < restarts.size(); i += 4) {
          own.push_back(restarts[i]);
        }
        histories.insert(own);
      }
    }
  }
  EXPECT_EQ(histories.size(), 10U);  // of two seeds, on every device the same
}

TEST_P(DataStream, TooShortATextAndImpossibleOptionsAreNamed) {
  const TokenRange tokens = counting_tokens(folder_, 12);
  const auto make = [&](const StreamOptions& options) { source(Cpu{}, tokens, options); };
  EXPECT_NO_THROW(make({.batch = 1, .window = 11}));
  EXPECT_EQ(error_text<FormatError>([&] { make({.batch = 3, .window = 4}); }),
            tokens.name +
                ": 12 tokens are too few for 3 rows with a window of 4, which take one "
                "more than 3 · 4");
  EXPECT_THROW(make({.batch = INT64_MAX, .window = INT64_MAX}), FormatError);
  EXPECT_THROW(make({.batch = 0, .window = 1}), ConfigError);
  EXPECT_THROW(make({.batch = 1, .window = -1}), ConfigError);
  for (const double none : {-0.1, 1.1, static_cast<double>(NAN)}) {
    EXPECT_THROW(make({.batch = 1, .window = 1, .reset_probability = none}), ConfigError);
  }
  EXPECT_THROW(source(Cpu{}, TokenRange{}, {.batch = 1, .window = 1}), FormatError);
  const auto data = source(Cpu{}, tokens, {.batch = 2, .window = 4});
  EXPECT_THROW(data->seek({0, data->batches_per_epoch()}), FormatError);
  EXPECT_THROW(data->seek({-1, 0}), FormatError);
  EXPECT_THROW(data->seek({0, -1}), FormatError);
}

TEST(DataStreams, ResidentAndPrefetchedBatchesAreTheSame) {
  const TemporaryFolder folder;
  for (const std::int64_t count : {33, 64, 301}) {
    const TokenRange tokens = counting_tokens(folder, count);
    for (const std::int64_t batch : {1, 4, 7}) {
      for (const bool random : {false, true}) {
        const StreamOptions options{.batch = batch,
                                    .window = 4,
                                    .document_end = random ? 9 : -1,
                                    .random_start = random,
                                    .reset_probability = count == 64 ? 0 : 0.2,
                                    .seed = 3};
        std::vector<SeenBatch> reference;
        for (const Device& device : test::devices()) {
          for (const bool resident : {true, false}) {
            const auto data = stream_batches(device, tokens, in_place(options, resident));
            const auto batches = next_batches(*data, 2 * data->batches_per_epoch() + 1);
            if (reference.empty()) reference = batches;
            EXPECT_TRUE(batches == reference)
                << test::device_name(device) << (resident ? " resident " : " prefetched ") << count;
          }
        }
      }
    }
  }
}

TEST(DataStreams, EvaluationCountsEveryTargetOnceAndInOrder) {
  const TemporaryFolder folder;
  for (const std::int64_t count : {2, 3, 9, 24, 31}) {
    const TokenRange tokens = counting_tokens(folder, count);
    for (const std::int64_t batch : {1, 2, 5, 40}) {
      for (const auto& [window, overlap] : {std::pair{1, 0}, {3, 0}, {3, 1}, {5, 4}, {100, 9}}) {
        const auto data = evaluation_batches(Cpu{}, tokens,
                                             {.batch = batch,
                                              .window = window,
                                              .overlap = overlap,
                                              .random_start = true,
                                              .reset_probability = 1});
        std::vector<Ids> rows(static_cast<std::size_t>(batch));
        std::int64_t counted = 0;
        for (const SeenBatch& b : next_batches(*data, data->batches_per_epoch())) {
          counted += b.tokens;
          // What was a target before is read again, and the first row then goes on.
          const std::size_t again = b.first ? 0 : static_cast<std::size_t>(overlap * batch);
          EXPECT_TRUE(std::all_of(b.target.begin(),
                                  b.target.begin() + static_cast<std::int64_t>(again),
                                  [](std::int32_t target) { return target == -1; }));
          if (!rows[0].empty()) {
            EXPECT_EQ(b.target[again], rows[0].back() + 1);
          }
          for (std::size_t i = 0; i < again; i += static_cast<std::size_t>(batch)) {
            EXPECT_EQ(b.token[i] + overlap, b.token[again] + static_cast<std::int32_t>(i) / batch);
          }
          for (std::size_t i = 0; i < b.target.size(); ++i) {
            if (b.target[i] < 0) continue;
            EXPECT_TRUE(b.reset.empty());
            EXPECT_EQ(b.token[i] + 1, b.target[i]);
            rows[i % static_cast<std::size_t>(batch)].push_back(b.target[i]);
          }
        }
        Ids all;
        for (const Ids& row : rows) all.insert(all.end(), row.begin(), row.end());
        Ids want;
        for (std::int32_t i = 1; i < count; ++i) want.push_back(i);
        EXPECT_EQ(all, want) << count << " tokens, " << batch << " rows, window " << window;
        EXPECT_EQ(counted, count - 1);
        EXPECT_EQ(data->counted_per_epoch(), count - 1);
        EXPECT_TRUE(seen(data->next()).first);  // and it can be done again
      }
    }
  }
  const TokenRange one = counting_tokens(folder, 1);
  EXPECT_EQ(error_text<FormatError>([&] { evaluation_batches(Cpu{}, one, {}); }),
            one.name + ": 1 token, too few to evaluate on, which takes two");
  EXPECT_EQ(error_text<ConfigError>([&] {
              evaluation_batches(Cpu{}, counting_tokens(folder, 9), {.window = 3, .overlap = 3});
            }),
            "data: overlap is 3, expected 0 or more, and less than the window, 3");
}

TEST(DataStreams, RowsWithoutTokensArePadding) {
  const TemporaryFolder folder;
  const auto data = evaluation_batches(Cpu{}, counting_tokens(folder, 4),
                                       {.batch = 2, .window = 5, .document_end = 1});
  const SeenBatch b = seen(data->next());  // three targets: rows 0 1 | 2
  EXPECT_EQ(b.token, (Ids{0, 2, 1, 0}));
  EXPECT_EQ(b.target, (Ids{1, 3, 2, -1}));
  EXPECT_EQ(b.reset, (Ids{1, 1, 0, 0}));
  EXPECT_EQ(b.tokens, 3);
}

}  // namespace
}  // namespace carousel
