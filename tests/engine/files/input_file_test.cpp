#include "engine/files/input_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <string>

#include "engine/files/safetensors.h"
#include "kernels/common/check.h"
#include "tests/support/files.h"
#include "tests/support/tensors.h"

namespace carousel {
namespace {

using test::error_text;
using test::TemporaryFolder;

TEST(InputFile, ReadsFromAnyPlace) {
  const TemporaryFolder folder;
  const InputFile file(folder.write("file", "0123456789"));
  EXPECT_EQ(file.size(), 10U);
  std::string part(3, ' ');
  for (const std::size_t at : {7U, 0U}) {
    file.read(at, part.data(), 3);
    EXPECT_EQ(part, at == 7 ? "789" : "012");
  }
}

TEST(InputFile, WhatIsNoRegularFileIsRefusedAtOnce) {
  const TemporaryFolder folder;
  ASSERT_EQ(::mkfifo(folder.path("pipe").c_str(), 0600), 0);
  for (const std::string& path :
       {folder.path("pipe"), folder.path().string(), std::string("/dev/zero")}) {
    EXPECT_EQ(error_text<FormatError>([&] { InputFile{path}; }), path + " is not a regular file");
  }
  EXPECT_THROW(InputFile{folder.path("none")}, IoError);
}

TEST(InputFile, OneThatIsCutShortWhileInUseIsAnError) {
  const TemporaryFolder folder;
  const std::string path = folder.path("model");
  const Tensor tensor = test::tensor_of<float>(Cpu{}, {4096}, std::vector<float>(4096, 1));
  write_safetensors(path, std::vector<NamedTensor>{{"x", tensor}}, {});
  const SafetensorsFile file(path);
  std::filesystem::resize_file(path, 4096);
  EXPECT_NE(error_text<FormatError>([&] {
              file.read_into("x", tensor);
            }).find("cut short while it was in use"),
            std::string::npos);
}

}  // namespace
}  // namespace carousel
