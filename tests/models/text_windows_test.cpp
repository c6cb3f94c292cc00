#include "models/text_windows.h"

#include <gtest/gtest.h>

namespace carousel {
namespace {

using Ids = std::vector<std::int32_t>;

/// [T, B] of what each place of a batch reads: that of its hidden units, and the places before it in its
/// window.
std::vector<Ids> read_by(const TextWindows& windows) {
  std::vector<Ids> result;
  for (const std::int32_t to : windows.to) {
    std::int64_t place = to;
    auto group = windows.groups.begin();
    for (; place >= group->places(); ++group) place -= group->places();
    Ids& seen = result.emplace_back();
    for (std::int64_t at = place % group->count; at <= place; at += group->count) {
      seen.push_back(group->from[static_cast<std::size_t>(at)]);
    }
  }
  return result;
}

TEST(TextWindows, ARowThatFitsIsOneWindow) {
  const TextWindows windows = text_windows({.steps = 3, .rows = 2}, 4, 4);
  ASSERT_EQ(windows.groups.size(), 1U);
  EXPECT_EQ(windows.groups[0].steps, 4);
  EXPECT_EQ(read_by(windows), (std::vector<Ids>{{0}, {1}, {0, 2}, {1, 3}, {0, 2, 4}, {1, 3, 5}}));
}

TEST(TextWindows, LongRowsAreCutAndATokenIsInTheFirstWindowThatHasIt) {
  // One row of 7 in windows of at most 4, which begin at 0, 2 and 4: [0 1 2 3], [2 3 4 5], [4 5 6].
  EXPECT_EQ(
      read_by(text_windows({.steps = 7, .rows = 1}, 4, 2)),
      (std::vector<Ids>{{0}, {0, 1}, {0, 1, 2}, {0, 1, 2, 3}, {2, 3, 4}, {2, 3, 4, 5}, {4, 5, 6}}));
  // Of at most 5, at 0 and 4, of which the last is in a group of shorter ones.
  const TextWindows windows = text_windows({.steps = 7, .rows = 1}, 5, 4);
  ASSERT_EQ(windows.groups.size(), 2U);
  EXPECT_EQ(windows.groups[0].steps, 4);
  EXPECT_EQ(windows.groups[1].steps, 5);
  EXPECT_EQ(
      read_by(windows),
      (std::vector<Ids>{{0}, {0, 1}, {0, 1, 2}, {0, 1, 2, 3}, {0, 1, 2, 3, 4}, {4, 5}, {4, 5, 6}}));
}

TEST(TextWindows, ARestartBeginsAWindow) {
  // Steps of two rows; the first restarts at its first and third step, the second at its second.
  const Ids reset{1, 0, 0, 1, 1, 0};
  EXPECT_EQ(read_by(text_windows({.steps = 3, .rows = 2, .reset = reset}, 9, 9)),
            (std::vector<Ids>{{0}, {1}, {0, 2}, {3}, {4}, {3, 5}}));
}

TEST(TextWindows, WhereThereIsNoTextNothingIsRead) {
  // A row of 60 tokens and many places without any, each of which restarts.
  constexpr std::int64_t kSteps = 512, kRows = 8, kTokens = 60;
  Ids reset(kSteps * kRows, 1);
  std::vector<std::int64_t> place(kSteps * kRows, -1);
  for (std::int64_t t = 0; t < kTokens; ++t) {
    reset[static_cast<std::size_t>(t * kRows)] = t == 0 ? 1 : 0;
    place[static_cast<std::size_t>(t * kRows)] = t;
  }
  const TextWindows windows =
      text_windows({.steps = kSteps, .rows = kRows, .reset = reset, .place = place}, 64, 64);
  EXPECT_EQ(windows.places, 512);
  EXPECT_EQ(read_by(windows)[(kTokens - 1) * kRows].size(), 60U);
}

TEST(TextWindows, GroupsHaveTheShapeOfALengthWhateverTheirNumber) {
  const std::vector<std::int64_t> place(900, 0);
  const auto groups_of = [&](std::int64_t rows) {
    return text_windows({.steps = 100, .rows = rows, .place = place}, 128, 128).groups;
  };
  ASSERT_EQ(groups_of(1).size(), 1U);
  ASSERT_EQ(groups_of(9).size(), 3U);
  for (const TextWindows::Group& group : groups_of(9)) {
    EXPECT_EQ(group.steps, 128);
    EXPECT_EQ(group.count, groups_of(1)[0].count);
  }
}

TEST(TextWindows, AStreamHasNoMorePlacesThanItsWindows) {
  EXPECT_EQ(text_windows({.steps = 768, .rows = 1}, 64, 64).places, 768);
}

}  // namespace
}  // namespace carousel
