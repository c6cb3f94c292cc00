#include "engine/files/matrix_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "tests/support/failing_calls.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using test::FailingCalls;
using test::Failure;
using test::file_content;
using test::TemporaryFolder;

const std::vector<float> kFirst{1, -2, 0.5F, 4, 5, 6}, kSecond{7, 8, 9};
const std::vector<std::int32_t> kSteps{2, 0, 1};

std::string bytes_of(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

/// Three rows of three, in two pieces.
void write_matrix(const fs::path& path, SystemCalls& calls = kernel_calls()) {
  MatrixFile file(path, 3, {.matrix = "x", .metadata = {{"key", "value"}}}, calls);
  file.append(kFirst);
  file.append({});
  file.append(kSecond);
  EXPECT_EQ(file.rows(), 3);
  file.finish(kSteps);
}

TEST(MatrixFile, NumpysFormatWorkedByHand) {
  const TemporaryFolder folder;
  write_matrix(folder / "m.npy");
  const std::string dictionary = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 3), }";
  std::string header = std::string("\x93NUMPY\x01\x00\x76\x00", 10) + dictionary;
  header.resize(127, ' ');
  EXPECT_EQ(file_content(folder / "m.npy"), header + "\n" + bytes_of(kFirst) + bytes_of(kSecond));
}

TEST(MatrixFile, SafetensorsHasTheMatrixAndTheSteps) {
  const TemporaryFolder folder;
  write_matrix(folder / "m.safetensors");
  const SafetensorsFile file(folder / "m.safetensors");
  EXPECT_EQ(file.metadata(), (Metadata{{"key", "value"}}));
  EXPECT_EQ(file.names(), (std::vector<std::string>{"steps", "x"}));
  EXPECT_EQ(file.info("x").text(), "F32 [3, 3]");
  EXPECT_EQ(file.info("steps").text(), "I32 [3]");
  const auto content = [&](const char* name) {
    const std::vector<std::byte> bytes = file.bytes(name);
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  EXPECT_EQ(content("x"), bytes_of(kFirst) + bytes_of(kSecond));
  std::vector<std::int32_t> steps(3);
  std::memcpy(steps.data(), content("steps").data(), 12);
  EXPECT_EQ(steps, kSteps);
}

TEST(MatrixFile, MayHaveNoRowsAndNoSteps) {
  const TemporaryFolder folder;
  for (const char* const name : {"m.npy", "m.safetensors"}) {
    MatrixFile file(folder / name, 7, {.matrix = "x"});
    file.finish();
  }
  EXPECT_EQ(SafetensorsFile(folder / "m.safetensors").info("x").text(), "F32 [0, 7]");
  EXPECT_EQ(SafetensorsFile(folder / "m.safetensors").names().size(), 1U);
  EXPECT_NE(file_content(folder / "m.npy").find("(0, 7)"), std::string::npos);
  EXPECT_EQ(file_content(folder / "m.npy").size(), 128U);
}

TEST(MatrixFile, AFailureOfAnySystemCallLeavesNoFileOrAWholeOne) {
  for (const char* const name : {"m.npy", "m.safetensors"}) {
    const TemporaryFolder whole;
    FailingCalls counting;
    write_matrix(whole / name, counting);
    ASSERT_GT(counting.count(), 8);
    int failed = 0;
    for (int at = 0; at < counting.count(); ++at) {
      SCOPED_TRACE(at);
      const TemporaryFolder folder;
      FailingCalls failing(Failure::bad_disk, at);
      try {
        write_matrix(folder / name, failing);
      } catch (const IoError&) {
        ++failed;
      }
      if (fs::exists(folder / name)) {
        EXPECT_EQ(file_content(folder / name), file_content(whole / name));
      } else {
        EXPECT_TRUE(fs::is_empty(folder.path()));
      }
    }
    EXPECT_GT(failed, counting.count() / 2);
  }
}

TEST(MatrixFile, WithoutFinishThereIsNoFile) {
  const TemporaryFolder folder;
  {
    MatrixFile file(folder / "m.npy", 3, {.matrix = "x"});
    file.append(kFirst);
  }
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(MatrixFile, WhatItDoesNotWriteIsRefusedAtOnce) {
  const TemporaryFolder folder;
  const auto refused = [&](const fs::path& path) {
    return error_text<ConfigError>([&] { MatrixFile(path, 3, {.matrix = "x"}); });
  };
  EXPECT_NE(refused(folder / "m.txt").find(".safetensors or .npy"), std::string::npos);
  test::write_content(folder / "m.npy", "mine");
  EXPECT_NE(refused(folder / "m.npy").find("exists already"), std::string::npos);
  EXPECT_EQ(file_content(folder / "m.npy"), "mine");
  EXPECT_NE(refused(folder / "none" / "m.npy").find("there is no folder"), std::string::npos);
  MatrixFile file(folder / "other.npy", 3, {.matrix = "x"});
  EXPECT_THROW(file.append(std::vector<float>{1, 2, 3, 4}), ShapeError);
  EXPECT_THROW(
      MatrixFile(folder / "m.safetensors", 3, {.matrix = "x", .metadata = {{"k", "\xC3"}}}),
      FormatError);
  EXPECT_FALSE(fs::exists(folder / "m.safetensors"));
}

}  // namespace
}  // namespace carousel
