// What a safetensors file from anywhere may do: be refused with its problem named, or read in full.
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "engine/files/safetensors.h"
#include "kernels/common/check.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

using test::error_text;
using test::file_content;
using test::TemporaryFolder;
using Fit = SafetensorsFile::Fit;

Tensor filled(Shape shape, DType dtype) {
  const Tensor tensor(Cpu{}, shape, dtype);
  std::memset(tensor.mutable_data(), 1, tensor.bytes());
  return tensor;
}

/// A file with the given header and data, whatever they are.
std::string raw_file(const std::string& header, const std::string& data = "") {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}

struct BadFile {
  std::string bytes;
  std::string problem;  ///< what the error says
};

TEST(Safetensors, HostileFilesAreRefusedWithTheirProblemNamed) {
  const std::string one = R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]})";
  const auto two = [&](const std::string& offsets) {
    return "{" + one + R"(,"b":{"dtype":"F32","shape":[1],"data_offsets":)" + offsets + "}}";
  };
  const auto with = [](const std::string& fields) { return raw_file("{\"a\":{" + fields + "}}"); };
  const std::vector<BadFile> files{
      {"", "0 bytes, expected at least 8"},
      {"1234567", "7 bytes, expected at least 8"},
      {raw_file("{}").substr(0, 9), "header length is 2, expected at most 1"},
      {std::string(8, '\xFF') + "{}", "header length is 18446744073709551615"},
      {std::string("\x01\xE1\xF5\x05\0\0\0\0", 8) + "{}", "header length is 100000001"},
      {raw_file(""), "does not begin with '{'"},
      {raw_file(" {}"), "does not begin with '{'"},
      {raw_file("[]"), "does not begin with '{'"},
      {raw_file("{"), "not JSON at byte"},
      {raw_file("{} {}"), "not JSON at byte"},
      {raw_file("{\"\xFF\":1}"), "not JSON at byte"},
      {raw_file("{\"a\":1}"), "'a': is 1, expected an object"},
      {raw_file("{\"a\":[]}"), "'a': is an array, expected an object"},
      {raw_file("{\"__metadata__\":{\"k\":1}}"), "'k' is 1, expected a string"},
      {raw_file("{\"__metadata__\":{\"k\":\"\",\"k\":\"\"}}"), "'k' is there twice"},
      {raw_file("{\"__metadata__\":{},\"__metadata__\":{}}"), "'__metadata__' is there twice"},
      {raw_file("{" + one + "," + one + "}", "1234"), "'a' is there twice"},
      {with(R"("dtype":"F32","dtype":"F32")"), "'dtype' is there twice"},
      {with(R"("shape":[],"shape":[])"), "'shape' is there twice"},
      {with(R"("dtype":"F32","shape":[0])"), "data_offsets is missing"},
      {with(R"("dtype":"F32","colour":"red")"), "unknown field 'colour'"},
      {with(R"("dtype":4)"), "dtype is 4, expected a string"},
      {with(R"("shape":{})"), "shape is an object, expected an array"},
      {with(R"("shape":[[1]])"), "shape holds an array, expected whole numbers"},
      {with(R"("shape":[-1])"), "shape holds -1, expected whole numbers"},
      {with(R"("shape":[1.5])"), "shape holds 1.5, expected whole numbers"},
      {with(R"("shape":[18446744073709551616])"), "shape holds 18446744073709551616, expected"},
      {with(R"("dtype":"F33","shape":[0],"data_offsets":[0,0])"), "dtype is unknown: 'F33'"},
      {with(R"("dtype":"F32","shape":[0],"data_offsets":[0])"), "holds 1 numbers, expected 2"},
      {with(R"("dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0])"), "overflows"},
      {with(R"("dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[0,0])"), "overflows"},
      {with(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), "expected 8 bytes for F32 [2]"},
      {with(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"), "expected 4 bytes for F32 [1]"},
      {raw_file("{" + one + "}", "123"), "'a' ends at byte 4 of the data, which has 3"},
      {raw_file("{" + one + "}", "12345"), "5 bytes of data, expected 4"},
      {raw_file(two("[0,4]"), "1234"),
       "'b' begins at byte 0 of the data, expected 4: tensors overlap"},
      {raw_file(two("[5,9]"), "123456789"),
       "'b' begins at byte 5 of the data, expected 4: there is a gap"},
      {raw_file(two("[18446744073709551612,18446744073709551616]"), "1234"),
       "expected whole numbers"},
  };
  const TemporaryFolder folder;
  const auto path = folder / "f";
  for (const BadFile& bad : files) {
    test::write_content(path, bad.bytes);
    const std::string error = error_text<FormatError>([&] { const SafetensorsFile file(path); });
    EXPECT_TRUE(error.starts_with(path.string())) << error;
    EXPECT_NE(error.find(bad.problem), std::string::npos) << error << "\nexpected: " << bad.problem;
  }
}

TEST(Safetensors, WhatIsNoReadableFileIsAnError) {
  const TemporaryFolder folder;
  EXPECT_THROW(SafetensorsFile(folder / "nowhere"), IoError);
  EXPECT_THROW(SafetensorsFile(folder.path()), FormatError);
}

TEST(Safetensors, AMillionOpenBracketsAreRefusedAtOnce) {
  const TemporaryFolder folder;
  test::write_content(folder / "f", raw_file("{\"a\":" + std::string(1'000'000, '[')));
  EXPECT_THROW(SafetensorsFile(folder / "f"), FormatError);
}

// Bytes changed, inserted, removed and cut off at random: the file is refused, or every tensor in
// it can be read. Under the sanitizers this is also the proof that nothing is read out of bounds.
TEST(Safetensors, AMutatedFileIsRefusedOrReadsInFull) {
  const TemporaryFolder folder;
  const Device cpu = Cpu{};
  write_safetensors(folder / "f",
                    std::vector<NamedTensor>{{"w", filled({2, 3}, DType::f32)},
                                             {"i", filled({2}, DType::i64)},
                                             {"e", filled({0}, DType::bf16)}},
                    {{"step", "10"}});
  const std::string valid = file_content(folder / "f");
  std::mt19937 random(29);
  const auto below = [&](std::size_t n) {
    return std::uniform_int_distribution<std::size_t>(0, n - 1)(random);
  };
  const std::string interesting = "{}[]\",:0123456789-.e \\\xFF\x80";
  int refused = 0, read = 0;
  for (int round = 0; round < 4000; ++round) {
    std::string bytes = valid;
    const std::size_t changes = 1 + below(3);
    for (std::size_t c = 0; c < changes && !bytes.empty(); ++c) {
      const std::size_t at = below(bytes.size());
      const char value =
          below(2) == 0 ? interesting[below(interesting.size())] : static_cast<char>(below(256));
      switch (below(5)) {
        case 0:
          bytes[at] = value;
          break;
        case 1:
          bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
          break;
        case 2:
          bytes.insert(at, 1, value);
          break;
        case 3:
          bytes.erase(at, 1 + below(4));
          break;
        default:
          if (below(4) == 0) bytes.resize(at);
      }
    }
    std::filesystem::remove(folder / "m");  // ext4 waits for the disk when a file is overwritten
    test::write_content(folder / "m", bytes);
    try {
      const SafetensorsFile file(folder / "m");
      unsigned sum = 0;
      for (const std::string& name : file.names()) {
        for (const std::byte b : file.bytes(name)) sum += static_cast<unsigned>(b);
        const StoredTensor& info = file.info(name);
        if (info.dtype != "F32" || info.shape.size() != 2) continue;
        const Tensor tensor(cpu, {info.shape[0], info.shape[1]}, DType::f32);
        EXPECT_EQ(file.read_into(name, tensor), Fit::exact);
      }
      EXPECT_LT(sum, 256 * bytes.size());
      ++read;
    } catch (const FormatError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);
  EXPECT_GT(read, 100);  // a change in the data, or in a name, is not the format's to notice
}

}  // namespace
}  // namespace carousel
