#include "models/text_windows.h"

#include <gtest/gtest.h>

namespace carousel {
namespace {

using Ids = std::vector<std::int32_t>;

TEST(TextWindows, ARowThatFitsIsOneWindow) {
  const TextWindows windows = text_windows(3, 2, {}, 4, 4);
  EXPECT_EQ(windows.steps, 3);
  EXPECT_EQ(windows.count, 2);
  EXPECT_EQ(windows.from, (Ids{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(windows.to, (Ids{0, 1, 2, 3, 4, 5}));
}

TEST(TextWindows, LongRowsAreCutAndATokenIsInTheFirstWindowThatHasIt) {
  // One row of 7 in windows of 4, which begin at 0, 2 and 4: [0 1 2 3], [2 3 4 5], [4 5 6].
  const TextWindows windows = text_windows(7, 1, {}, 4, 2);
  EXPECT_EQ(windows.count, 3);
  EXPECT_EQ(windows.from, (Ids{0, 2, 4, 1, 3, 5, 2, 4, 6, 3, 5, 0}));
  EXPECT_EQ(windows.to, (Ids{0, 3, 6, 9, 7, 10, 8}));
}

TEST(TextWindows, ARestartBeginsAWindow) {
  // Steps of two rows; the first restarts at its first and third step, the second at its second.
  const Ids reset{1, 0, 0, 1, 1, 0};
  const TextWindows windows = text_windows(3, 2, reset, 9, 9);
  EXPECT_EQ(windows.steps, 2);
  EXPECT_EQ(windows.count, 4);
  EXPECT_EQ(windows.from, (Ids{0, 4, 1, 3, 2, 0, 0, 5}));
  EXPECT_EQ(windows.to, (Ids{0, 2, 4, 3, 1, 7}));
}

}  // namespace
}  // namespace carousel
