#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "engine/batches/batches.h"
#include "kernels/common/check.h"
#include "tests/support/batches.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using test::error_text;
using test::next_batches;
using test::seen;
using test::SeenBatch;
using test::TemporaryFolder;
using Ids = std::vector<std::int32_t>;

constexpr TokenRules kLines{TokenKind::byte, Newline::line, false};
constexpr std::int32_t kBegin = 256, kEnd = 257;

// Lines of 1 … `longest` letters, each different from all others; their lengths are mixed.
std::string many_lines(int count, int longest) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    std::string line = std::to_string(i);
    line.resize(std::max(line.size(), static_cast<std::size_t>(1 + i * 7 % longest)), '.');
    text += line + "\n";
  }
  return text;
}

TEST(DataLines, BatchesWorkedByHand) {
  const TemporaryFolder folder;
  const TokenRange tokens = test::tokens_of(folder, "ab\n\nc\nlong enough\nd", kLines);
  const LineOptions options{.batch = 2, .begin = kBegin, .shuffle = false};
  for (const Device& device : test::devices()) {
    const auto data = line_batches(device, tokens, options);
    EXPECT_EQ(data->batches_per_epoch(), 3);
    EXPECT_EQ(data->counted_per_epoch(), 3 + 2 + 12 + 2);
    const auto b = next_batches(*data, 4);
    EXPECT_EQ(b[0].steps, 8);
    EXPECT_EQ(b[0].row(b[0].token, 0), (Ids{kBegin, 'a', 'b', 0, 0, 0, 0, 0}));
    EXPECT_EQ(b[0].row(b[0].target, 0), (Ids{'a', 'b', kEnd, -1, -1, -1, -1, -1}));
    EXPECT_EQ(b[0].row(b[0].token, 1), (Ids{kBegin, 'c', 0, 0, 0, 0, 0, 0}));
    EXPECT_EQ(b[0].lengths, (Ids{3, 2}));
    EXPECT_EQ(b[0].tokens, 5);
    EXPECT_EQ(b[1].lengths, (Ids{2, 0}));  // the bound's last batch: a row of nothing
    EXPECT_EQ(b[1].row(b[1].token, 1), Ids(8, 0));
    EXPECT_EQ(b[1].row(b[1].target, 1), Ids(8, -1));
    EXPECT_EQ(b[2].steps, 12);  // the longest line is the last bound
    EXPECT_EQ(b[2].lengths, (Ids{12, 0}));
    EXPECT_EQ(b[3], b[0]);
    EXPECT_TRUE(b[0].first && b[1].first && b[2].first);
  }
}

TEST(DataLines, OnlyWhatFollowsTheFirstAnswerTokenIsATarget) {
  const TemporaryFolder folder;
  const TokenRange tokens = test::tokens_of(folder, "a=b=c\n=\nab=", kLines);
  const LineOptions options{.batch = 3, .begin = kBegin, .answer_after = '=', .shuffle = false};
  for (const Device& device : test::devices()) {
    const auto data = line_batches(device, tokens, options);
    EXPECT_EQ(data->counted_per_epoch(), 4 + 1 + 1);
    const SeenBatch b = next_batches(*data, 1).front();
    EXPECT_EQ(b.row(b.token, 0), (Ids{kBegin, 'a', '=', 'b', '=', 'c'}));
    EXPECT_EQ(b.row(b.target, 0), (Ids{-1, -1, 'b', '=', 'c', kEnd}));
    EXPECT_EQ(b.row(b.target, 1), (Ids{-1, kEnd, -1, -1, -1, -1}));
    EXPECT_EQ(b.row(b.target, 2), (Ids{-1, -1, -1, kEnd, -1, -1}));
    EXPECT_EQ(b.lengths, (Ids{6, 2, 4}));  // the question is read
    EXPECT_EQ(b.tokens, 4 + 1 + 1);
  }
  const TokenRange without = test::tokens_of(folder, "a=b\nab", kLines);
  EXPECT_EQ(
      error_text<FormatError>([&] { line_batches(Cpu{}, without, options); }),
      without.name + ": line 2 lacks the token of data.answer_after, expected it in each line");
}

TEST(DataLines, EveryEpochHasEveryLineOnceInAnOrderOfItsOwn) {
  const TemporaryFolder folder;
  const std::string text = many_lines(211, 90);
  const TokenRange tokens = test::tokens_of(folder, text, kLines);
  std::multiset<std::string> want;
  std::string line;
  for (std::istringstream in(text); std::getline(in, line);) want.insert(line + "\n");
  const auto data = line_batches(Cpu{}, tokens, {.batch = 4, .begin = kBegin, .seed = 11});
  std::set<std::vector<std::string>> orders;
  for (int epoch = 0; epoch < 3; ++epoch) {
    std::vector<std::string> lines;
    std::set<std::int64_t> shapes;
    std::int64_t counted = 0;
    for (const SeenBatch& b : next_batches(*data, data->batches_per_epoch())) {
      shapes.insert(b.steps);
      counted += b.tokens;
      for (std::int64_t row = 0; row < b.rows; ++row) {
        const auto length = static_cast<std::size_t>(b.lengths[static_cast<std::size_t>(row)]);
        const Ids target = b.row(b.target, row);
        EXPECT_TRUE(std::all_of(target.begin() + static_cast<long>(length), target.end(),
                                [](std::int32_t t) { return t == -1; }));
        if (length == 0) continue;
        EXPECT_TRUE(b.steps <= 8 || length * 4 > static_cast<std::size_t>(b.steps) * 2);
        std::string read;
        for (std::size_t t = 0; t < length; ++t) {
          read += target[t] == kEnd ? '\n' : static_cast<char>(target[t]);
        }
        lines.push_back(read);
      }
    }
    EXPECT_EQ(std::multiset(lines.begin(), lines.end()), want);
    EXPECT_EQ(counted, data->counted_per_epoch());
    EXPECT_LE(shapes.size(), 9U);
    orders.insert(lines);
  }
  EXPECT_EQ(orders.size(), 3U);
}

TEST(DataLines, SeedsShuffleDifferentlyAndDevicesAlike) {
  const TemporaryFolder folder;
  const TokenRange tokens = test::tokens_of(folder, many_lines(60, 20), kLines);
  std::map<std::uint64_t, std::vector<SeenBatch>> by_seed;
  for (const Device& device : test::devices()) {
    for (const std::uint64_t seed : {1U, 2U}) {
      const auto data = line_batches(device, tokens, {.batch = 5, .begin = kBegin, .seed = seed});
      const auto batches = next_batches(*data, data->batches_per_epoch() + 2);
      const auto [known, is_new] = by_seed.emplace(seed, batches);
      EXPECT_TRUE(is_new || known->second == batches);
    }
  }
  EXPECT_FALSE(by_seed[1] == by_seed[2]);
}

// Lines that fill one bucket, one line a batch: all orders of three lines are equally likely.
TEST(DataLines, EveryOrderComesUp) {
  const TemporaryFolder folder;
  const TokenRange tokens = test::tokens_of(folder, "a\nb\nc\n", kLines);
  const auto data = line_batches(Cpu{}, tokens, {.batch = 3, .begin = kBegin, .seed = 4});
  std::map<Ids, int> orders;
  for (int epoch = 0; epoch < 600; ++epoch) {
    const SeenBatch b = seen(data->next());
    ++orders[Ids(b.target.begin(), b.target.begin() + 3)];
  }
  ASSERT_EQ(orders.size(), 6U);
  // 100 each are expected, with a standard deviation of 9.
  for (const auto& [order, count] : orders) EXPECT_NEAR(count, 100, 40);
}

TEST(DataLines, ResumingAnywhereGivesTheSameBatches) {
  const TemporaryFolder folder;
  const TokenRange tokens = test::tokens_of(folder, many_lines(40, 30), kLines);
  const LineOptions options{.batch = 3, .begin = kBegin, .seed = 9};
  for (const Device& device : test::devices()) {
    const auto whole = line_batches(device, tokens, options);
    const std::int64_t count = 2 * whole->batches_per_epoch() + 3;
    const auto batches = next_batches(*whole, count);
    const auto resumed = line_batches(device, tokens, options);
    for (std::int64_t i = count - 1; i >= 0; i -= 4) {
      resumed->seek({i / whole->batches_per_epoch(), i % whole->batches_per_epoch()});
      const auto rest = next_batches(*resumed, count - i);
      EXPECT_TRUE(std::equal(rest.begin(), rest.end(), batches.begin() + i));
    }
  }
}

TEST(DataLines, TokensThatAreNoLinesAreRefused) {
  const TemporaryFolder folder;
  const TokenRange stream =
      test::tokens_of(folder, "no lines", {TokenKind::byte, Newline::text, false});
  EXPECT_EQ(error_text<FormatError>([&] { line_batches(Cpu{}, stream, {.begin = kBegin}); }),
            stream.name + ": the tokens do not begin with <bos>, as those of lines do");
  EXPECT_THROW(line_batches(Cpu{}, TokenRange{}, {}), FormatError);
  EXPECT_THROW(line_batches(Cpu{}, stream, {.batch = 0}), ConfigError);
}

}  // namespace
}  // namespace carousel
