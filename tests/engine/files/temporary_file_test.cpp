#include "engine/files/temporary_file.h"

#include <gtest/gtest.h>

#include <array>
#include <filesystem>

#include "kernels/common/check.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

TEST(TemporaryFiles, KeepWhatIsWrittenAndHaveNoName) {
  const test::TemporaryFolder here;
  TemporaryFile one(here.path()), other(here.path());
  one.append("abcdef", 6);
  other.append("xyz", 3);
  one.append("gh", 2);
  EXPECT_EQ(one.size(), 8U);
  EXPECT_TRUE(std::filesystem::is_empty(here.path()));
  std::array<char, 5> read{};
  one.read(3, read.data(), read.size());
  EXPECT_EQ(std::string(read.data(), read.size()), "defgh");
  other.read(0, read.data(), 3);
  EXPECT_EQ(std::string(read.data(), 3), "xyz");
}

TEST(TemporaryFiles, Mistakes) {
  const test::TemporaryFolder here;
  EXPECT_THROW(TemporaryFile(here / "none"), IoError);
  const TemporaryFile empty(here.path());
  char byte = 0;
  EXPECT_THROW(empty.read(0, &byte, 1), IoError);
}

}  // namespace
}  // namespace carousel
