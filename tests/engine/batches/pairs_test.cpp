#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "engine/batches/pair_plan.h"
#include "kernels/common/check.h"
#include "kernels/copy/copy.h"
#include "tests/support/batches.h"
#include "tests/support/device.h"
#include "tests/support/property.h"

namespace carousel {
namespace {

using test::error_text;
using Ids = std::vector<std::int32_t>;
using Lengths = std::vector<std::pair<int, int>>;  // of source and target, without <bos> and <eos>

constexpr std::int32_t kBegin = 1, kEnd = 2;

// The row of a field, and whether what does not belong to it is padding.
struct SeenRow {
  Ids ids;
  bool padded = true;
  bool operator==(const SeenRow&) const = default;
};

struct SeenPairs {
  std::int64_t steps = 0, target_steps = 0, counted = 0;
  std::vector<SeenRow> source, token, target;
  Ids number;
  bool operator==(const SeenPairs&) const = default;
};

std::vector<SeenRow> rows_of(const Field* field, std::int32_t padding) {
  if (field == nullptr) return {};
  const Ids values = test::numbers(field->values), lengths = test::numbers(field->lengths);
  const std::size_t steps = static_cast<std::size_t>(field->values.shape()[0]);
  std::vector<SeenRow> rows(lengths.size());
  for (std::size_t row = 0; row < rows.size(); ++row) {
    for (std::size_t t = 0; t < steps; ++t) {
      const std::int32_t id = values[t * rows.size() + row];
      if (t < static_cast<std::size_t>(lengths[row])) {
        rows[row].ids.push_back(id);
      } else if (id != padding) {
        rows[row].padded = false;
      }
    }
  }
  return rows;
}

SeenPairs seen_pairs(const Batch& batch) {
  EXPECT_TRUE(batch.first);
  const Field* const token = batch.find("token");
  const Field* const number = batch.find("number");
  return {.steps = batch["source"].shape()[0],
          .target_steps = token == nullptr ? 0 : token->values.shape()[0],
          .counted = batch.counted,
          .source = rows_of(&batch.at("source"), 0),
          .token = rows_of(token, 0),
          .target = rows_of(batch.find("target"), -1),
          .number = number == nullptr ? Ids{} : test::numbers(number->values)};
}

std::vector<SeenPairs> next_pairs(BatchSource& source, std::int64_t count) {
  std::vector<SeenPairs> batches;
  for (std::int64_t i = 0; i < count; ++i) batches.push_back(seen_pairs(source.next()));
  return batches;
}

// The tokens of line `number` of a side: they tell where they are from.
Ids line_of(int number, int length, int side) {
  Ids ids;
  for (int t = 0; t < length; ++t) ids.push_back(3 + side + 2 * (number * 7 + t));
  return ids;
}

PairedLines lines_of(const Lengths& lengths) {
  Ids sides[2];
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    for (const int side : {0, 1}) {
      const int length = side == 0 ? lengths[i].first : lengths[i].second;
      const Ids line = line_of(static_cast<int>(i), length, side);
      sides[side].push_back(kBegin);
      sides[side].insert(sides[side].end(), line.begin(), line.end());
      sides[side].push_back(kEnd);
    }
  }
  return {.sources = tokens_in_memory(sides[0], "sources"),
          .targets = tokens_in_memory(sides[1], "targets")};
}

// Lengths of a parallel text: the target's follow the source's, more or less.
Lengths many_lengths(int count, int longest) {
  Lengths lengths;
  for (int i = 0; i < count; ++i) {
    const int source = 1 + i * i % longest;
    lengths.emplace_back(source, 1 + (source * (3 + i % 3) / 4));
  }
  return lengths;
}

TEST(PairBatches, WorkedByHand) {
  const PairedLines lines{
      .sources = tokens_in_memory({1, 5, 6, 2, 1, 7, 7, 2, 1, 5, 5, 5, 2}, "sources"),
      .targets = tokens_in_memory({1, 9, 9, 2, 1, 8, 8, 2, 1, 9, 8, 9, 8, 2}, "targets")};
  for (const Device& device : test::devices()) {
    const auto data =
        paired_batches(device, lines, {.batch = 2, .begin = kBegin, .shuffle = false});
    EXPECT_EQ(data->batches_per_epoch(), 2);
    EXPECT_EQ(data->counted_per_epoch(), 3 + 3 + 5);
    const auto b = next_pairs(*data, 3);
    EXPECT_EQ(b[0].steps, 4);  // the bound of 3 tokens: with <eos>
    EXPECT_EQ(b[0].target_steps, 4);
    EXPECT_EQ(b[1].steps, 4);
    EXPECT_EQ(b[1].target_steps, 5);  // the longest target is the last bound
    EXPECT_EQ(b[0].source, (std::vector<SeenRow>{{{5, 6, 2}}, {{7, 7, 2}}}));
    EXPECT_EQ(b[0].token, (std::vector<SeenRow>{{{1, 9, 9}}, {{1, 8, 8}}}));
    EXPECT_EQ(b[0].target, (std::vector<SeenRow>{{{9, 9, 2}}, {{8, 8, 2}}}));
    EXPECT_EQ(b[0].number, (Ids{0, 1}));
    EXPECT_EQ(b[0].counted, 6);
    EXPECT_EQ(b[1].source, (std::vector<SeenRow>{{{5, 5, 5, 2}}, {}}));
    EXPECT_EQ(b[1].token, (std::vector<SeenRow>{{{1, 9, 8, 9, 8}}, {}}));
    EXPECT_EQ(b[1].target, (std::vector<SeenRow>{{{9, 8, 9, 8, 2}}, {}}));
    EXPECT_EQ(b[1].number, (Ids{2, -1}));  // a row of nothing
    EXPECT_EQ(b[1].counted, 5);
    EXPECT_EQ(b[2], b[0]);

    // To predict from: the sources alone.
    const auto inputs =
        paired_batches(device, {.sources = lines.sources}, {.batch = 2, .begin = kBegin});
    EXPECT_EQ(inputs->counted_per_epoch(), 3);
    const Batch batch = inputs->next();
    EXPECT_EQ(batch.fields.size(), 2U);
    EXPECT_EQ(batch.counted, 2);
  }
}

// What must hold of any pairs, whatever their lengths.
void expect_every_pair_once(const Lengths& lengths, const LineOptions& options) {
  const auto data = paired_batches(Cpu{}, lines_of(lengths), options);
  std::int64_t targets = 0;
  for (const auto& [source, target] : lengths) targets += target + 1;
  ASSERT_EQ(data->counted_per_epoch(), targets);
  for (int epoch = 0; epoch < 2; ++epoch) {
    std::multiset<std::pair<Ids, Ids>> want, found;
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      want.emplace(line_of(static_cast<int>(i), lengths[i].first, 0),
                   line_of(static_cast<int>(i), lengths[i].second, 1));
    }
    std::int64_t counted = 0, last = -1;
    for (const SeenPairs& b : next_pairs(*data, data->batches_per_epoch())) {
      counted += b.counted;
      for (std::size_t row = 0; row < b.source.size(); ++row) {
        ASSERT_TRUE(b.source[row].padded && b.token[row].padded && b.target[row].padded);
        Ids source = b.source[row].ids, token = b.token[row].ids, target = b.target[row].ids;
        ASSERT_EQ(token.size(), target.size());
        ASSERT_TRUE(b.number.empty() || (b.number[row] < 0) == source.empty());
        if (source.empty()) {
          ASSERT_TRUE(token.empty());
          continue;
        }
        ASSERT_EQ(source.back(), kEnd);
        ASSERT_EQ(token.front(), kBegin);
        ASSERT_EQ(target.back(), kEnd);
        source.pop_back();
        target.pop_back();
        token.erase(token.begin());
        ASSERT_EQ(token, target);
        if (!b.number.empty()) {
          const auto i = static_cast<std::size_t>(b.number[row]);
          ASSERT_EQ(source, line_of(b.number[row], lengths[i].first, 0));
          ASSERT_EQ(target, line_of(b.number[row], lengths[i].second, 1));
        }
        found.emplace(source, target);
      }
      last = b.counted;
    }
    ASSERT_GT(last, 0);  // no batch is of nothing
    ASSERT_EQ(counted, targets);
    ASSERT_EQ(found, want);
  }
}

RC_GTEST_PROP(PairBatches, EveryEpochHasEveryPairOnce, ()) {
  const auto length = rc::gen::inRange(1, 60);
  const auto lengths =
      *rc::gen::nonEmpty(rc::gen::container<Lengths>(rc::gen::pair(length, length)));
  const LineOptions options{.batch = *rc::gen::inRange(1, 9),
                            .begin = kBegin,
                            .shuffle = *rc::gen::arbitrary<bool>(),
                            .seed = *rc::gen::inRange<std::uint64_t>(0, 5)};
  expect_every_pair_once(lengths, options);
  RC_ASSERT_FALSE(testing::Test::HasFatalFailure());
}

TEST(PairBatches, PairsMayBeLongOnEitherSide) {
  Lengths lengths = many_lengths(40, 30);
  lengths.emplace_back(1500, 1);
  lengths.emplace_back(1, 1500);
  lengths.emplace_back(1500, 1500);
  for (const bool shuffle : {false, true}) {
    expect_every_pair_once(lengths, {.batch = 4, .begin = kBegin, .shuffle = shuffle});
  }
}

TEST(PairBatches, FewShapesAndLittlePadding) {
  struct Case {
    int pairs, longest;
    std::int64_t batch;
    double most;  // of the tokens of a batch are padding
  };
  // Lengths are spread evenly, where real ones have fewer shapes with more pairs in each.
  for (const Case& c : {Case{20000, 60, 64, 0.15}, Case{20000, 1200, 16, 0.25},
                        Case{300, 60, 64, 0.6}, Case{3, 60, 64, 0.99}}) {
    SCOPED_TRACE(c.pairs);
    const Lengths lengths = many_lengths(c.pairs, c.longest);
    PairPlan plan(lines_of(lengths), {.batch = c.batch, .begin = kBegin});
    const auto data = paired_batches(Cpu{}, lines_of(lengths), {.batch = c.batch, .begin = kBegin});
    std::set<std::pair<std::int64_t, std::int64_t>> shapes;
    std::int64_t all = 0, filled = 0;
    for (std::int64_t i = 0; i < data->batches_per_epoch(); ++i) {
      const Batch batch = data->next();
      const std::int64_t steps = batch["source"].shape()[0], targets = batch["token"].shape()[0];
      shapes.emplace(steps, targets);
      all += (steps + targets) * c.batch;
    }
    for (const auto& [source, target] : lengths) filled += source + target + 2;
    EXPECT_LE(shapes.size(), 48U);
    EXPECT_LE(1 - static_cast<double>(filled) / static_cast<double>(all), c.most);
    const BatchLimits limits = plan.limits();
    for (const auto& [steps, targets] : shapes) {
      EXPECT_LE(steps, limits.fields[0].steps);
      EXPECT_LE(targets, limits.fields[1].steps);
    }
  }
  // Few pairs of many lengths are one batch, not one for each length.
  const auto few =
      paired_batches(Cpu{}, lines_of(many_lengths(9, 40)), {.batch = 16, .begin = kBegin});
  EXPECT_EQ(few->batches_per_epoch(), 1);
}

TEST(PairBatches, OfSoManyTokensTheirRowsFollowFromTheirLengths) {
  Lengths lengths = many_lengths(400, 40);
  lengths.emplace_back(300, 2);
  const LineOptions options{.batch = 1, .tokens = 200, .begin = kBegin, .seed = 5};
  for (const bool shuffle : {false, true}) {
    LineOptions each = options;
    each.shuffle = shuffle;
    expect_every_pair_once(lengths, each);
  }
  for (const Device& device : test::devices()) {
    const auto all = paired_batches(device, lines_of(lengths), options);
    const std::int64_t count = all->batches_per_epoch() + 3;
    std::set<std::int64_t> rows;
    std::vector<SeenPairs> batches;
    for (std::int64_t i = 0; i < count; ++i) {
      const Batch batch = all->next();
      const std::int64_t steps = std::max(batch["source"].shape()[0], batch["token"].shape()[0]);
      EXPECT_EQ(batch.rows, std::max<std::int64_t>(1, 200 / steps));
      EXPECT_EQ(batch["target"].shape(), (Shape{batch["token"].shape()[0], batch.rows}));
      EXPECT_EQ(batch.at("source").lengths.shape(), Shape{batch.rows});
      rows.insert(batch.rows);
      batches.push_back(seen_pairs(batch));
    }
    EXPECT_EQ(*rows.begin(), 1);  // of more tokens than that, alone
    EXPECT_GT(rows.size(), 4U);
    const auto resumed = paired_batches(device, lines_of(lengths), options);
    for (const std::int64_t i : {count - 2, count / 2}) {
      resumed->seek({i / all->batches_per_epoch(), i % all->batches_per_epoch()});
      const auto rest = next_pairs(*resumed, count - i);
      EXPECT_TRUE(std::equal(rest.begin(), rest.end(), batches.begin() + i));
    }
  }
  // Room is for the largest batch, and not for the most rows of the most steps.
  const BatchLimits limits = PairPlan(lines_of(lengths), options).limits();
  EXPECT_LE(limits.fields[0].places, 301);
  EXPECT_LE(limits.fields[1].places, 200);
}

TEST(PairBatches, SeedsShuffleDifferentlyAndDevicesAlike) {
  const PairedLines lines = lines_of(many_lengths(70, 25));
  std::map<std::uint64_t, std::vector<SeenPairs>> by_seed;
  for (const Device& device : test::devices()) {
    for (const std::uint64_t seed : {1U, 2U}) {
      const auto data = paired_batches(device, lines, {.batch = 5, .begin = kBegin, .seed = seed});
      const auto batches = next_pairs(*data, 2 * data->batches_per_epoch());
      const auto [known, is_new] = by_seed.emplace(seed, batches);
      EXPECT_TRUE(is_new || known->second == batches);
      const auto second = static_cast<std::ptrdiff_t>(data->batches_per_epoch());
      EXPECT_FALSE(std::equal(batches.begin(), batches.begin() + second, batches.begin() + second));
    }
  }
  EXPECT_FALSE(by_seed[1] == by_seed[2]);
}

TEST(PairBatches, ResumingAnywhereGivesTheSameBatches) {
  const PairedLines lines = lines_of(many_lengths(50, 30));
  for (const Device& device : test::devices()) {
    const LineOptions options{.batch = 3, .begin = kBegin, .seed = 9};
    const auto all = paired_batches(device, lines, options);
    const std::int64_t count = 2 * all->batches_per_epoch() + 3;
    const auto batches = next_pairs(*all, count);
    const auto resumed = paired_batches(device, lines, options);
    for (std::int64_t i = count - 1; i >= 0; i -= 4) {
      resumed->seek({i / all->batches_per_epoch(), i % all->batches_per_epoch()});
      const auto rest = next_pairs(*resumed, count - i);
      EXPECT_TRUE(std::equal(rest.begin(), rest.end(), batches.begin() + i));
    }
  }
}

TEST(PairBatches, RanksTogetherReadTheBatchesOfOneProcess) {
  const PairedLines lines = lines_of(many_lengths(90, 30));
  for (const bool shuffle : {false, true}) {
    for (const std::int64_t world : {2, 3}) {
      LineOptions options{.batch = 4 * world, .begin = kBegin, .shuffle = shuffle};
      const auto one = paired_batches(Cpu{}, lines, options);
      auto want = next_pairs(*one, one->batches_per_epoch());
      options.batch = 4;
      std::vector<SeenPairs> joined(want.size());
      for (std::int64_t rank = 0; rank < world; ++rank) {
        options.share = {.rank = rank, .world = world};
        const auto share = paired_batches(Cpu{}, lines, options);
        ASSERT_EQ(share->batches_per_epoch(), one->batches_per_epoch());
        EXPECT_EQ(share->counted_per_epoch(), one->counted_per_epoch());
        const auto batches = next_pairs(*share, share->batches_per_epoch());
        for (std::size_t i = 0; i < batches.size(); ++i) {
          SeenPairs& all = joined[i];
          all.steps = batches[i].steps;
          all.target_steps = batches[i].target_steps;
          all.counted += batches[i].counted;
          for (const auto rows : {&SeenPairs::source, &SeenPairs::token, &SeenPairs::target}) {
            (all.*rows).insert((all.*rows).end(), (batches[i].*rows).begin(),
                               (batches[i].*rows).end());
          }
          all.number.insert(all.number.end(), batches[i].number.begin(), batches[i].number.end());
        }
      }
      EXPECT_TRUE(joined == want) << world << " ranks";
    }
  }
}

TEST(PairBatches, TokensThatAreNoPairsAreRefused) {
  const auto error = [](Ids sources, Ids targets) {
    return error_text<FormatError>([&] {
      paired_batches(Cpu{},
                     {.sources = tokens_in_memory(std::move(sources), "s"),
                      .targets = tokens_in_memory(std::move(targets), "t")},
                     {.begin = kBegin});
    });
  };
  EXPECT_EQ(error({1, 5, 2}, {5, 2}),
            "t: the tokens do not begin with <bos>, as those of lines do");
  EXPECT_EQ(error({}, {1, 5, 2}), "s: no lines");
  EXPECT_EQ(error({1, 5, 2, 1, 2}, {1, 5, 2}), "s: 2 sources and 1 targets, expected one for each");
  EXPECT_THROW(paired_batches(Cpu{}, lines_of({{1, 1}}), {.batch = 0, .begin = kBegin}),
               ConfigError);
}

}  // namespace
}  // namespace carousel
