#include "engine/files/safetensors.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "tests/support/device.h"
#include "tests/support/files.h"
#include "tests/support/tensors.h"

namespace carousel {
namespace {

using test::error_text;
using test::file_content;
using test::read;
using test::TemporaryFolder;
using test::tensor_of;
using Fit = SafetensorsFile::Fit;

/// A file with the given header and data, whatever they are.
std::string raw_file(const std::string& header, const std::string& data = "") {
  const std::uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + data;
}

// The layout as published, byte by byte. The reference implementation (safetensors 0.8.0 for Python,
// `safetensors.numpy.save`) wrote the same bytes for these tensors.
TEST(Safetensors, BytesAreThePublishedLayout) {
  const TemporaryFolder folder;
  const Device cpu = Cpu{};
  const std::vector<NamedTensor> tensors{
      {"h", tensor_of<bf16>(cpu, {1}, {bf16(-2.0F)})},
      {"b", tensor_of<std::int32_t>(cpu, {}, {-2})},
      {"w", tensor_of<float>(cpu, {1, 2}, {1.0F, -0.5F})},
      {"a", tensor_of<float>(cpu, {0, 3}, {})},
      {"d", tensor_of<double>(cpu, {1}, {0.0})},
      {"l", tensor_of<std::int64_t>(cpu, {1}, {1})},
  };
  write_safetensors(folder / "f", tensors, {{"k", "v\n"}});
  const std::string expected = std::string("\x68\x01\0\0\0\0\0\0", 8) +
                               R"({"__metadata__":{"k":"v\n"},)"
                               R"("l":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
                               R"("d":{"dtype":"F64","shape":[1],"data_offsets":[8,16]},)"
                               R"("a":{"dtype":"F32","shape":[0,3],"data_offsets":[16,16]},)"
                               R"("w":{"dtype":"F32","shape":[1,2],"data_offsets":[16,24]},)"
                               R"("b":{"dtype":"I32","shape":[],"data_offsets":[24,28]},)"
                               R"("h":{"dtype":"BF16","shape":[1],"data_offsets":[28,30]}} )" +
                               std::string("\x01\0\0\0\0\0\0\0", 8) + std::string(8, '\0') +
                               std::string("\0\0\x80\x3F\0\0\0\xBF", 8) + "\xFE\xFF\xFF\xFF" +
                               std::string("\0\xC0", 2);
  EXPECT_EQ(file_content(folder / "f"), expected);
}

TEST(Safetensors, EveryElementTypeAndShapeReadsBackBitForBitOnEveryDevice) {
  for (const Device& device : test::devices()) {
    const TemporaryFolder folder;
    std::mt19937_64 random(11);
    std::vector<NamedTensor> written;
    const std::vector<Shape> shapes{{}, {1}, {0}, {7}, {3, 0, 2}, {5, 3}, {2, 3, 5}, {2, 1, 3, 4}};
    for (const DType dtype : {DType::f32, DType::bf16, DType::f64, DType::i32, DType::i64}) {
      for (const Shape& shape : shapes) {
        Tensor tensor(device, shape, dtype);
        std::string bits(tensor.bytes(), '\0');
        for (char& byte : bits) byte = static_cast<char>(random());  // NaNs and all
        copy_from_host(tensor, bits.data());
        written.push_back({shape.text() + name(dtype), tensor});
      }
    }
    write_safetensors(folder / "f", written, {});
    const SafetensorsFile file(folder / "f");
    EXPECT_EQ(file.names().size(), written.size());
    for (const NamedTensor& t : written) {
      const Tensor back(device, t.tensor.shape(), t.tensor.dtype());
      EXPECT_EQ(file.read_into(t.name, back), Fit::exact);
      std::string got(back.bytes(), '\0'), want(back.bytes(), '\0');
      copy_to_host(back, got.data());
      copy_to_host(t.tensor, want.data());
      EXPECT_EQ(got, want) << t.name;
      EXPECT_EQ(std::string(reinterpret_cast<const char*>(file.bytes(t.name).data()), want.size()),
                want);
    }
  }
}

TEST(Safetensors, MetadataReadsBackWhateverItsCharacters) {
  const TemporaryFolder folder;
  const Metadata metadata{
      {"", ""}, {"quote\"\\", "line\nbreak\t"}, {"ключ", "値 \U0001F3A0"}, {"zero", {"a\0b", 3}}};
  write_safetensors(folder / "f", {}, metadata);
  EXPECT_EQ(SafetensorsFile(folder / "f").metadata(), metadata);
}

TEST(Safetensors, EqualContentMakesEqualBytesInWhateverOrderItIsGiven) {
  const TemporaryFolder folder;
  const Device cpu = Cpu{};
  const NamedTensor a{"a", tensor_of<float>(cpu, {2}, {1, 2})};
  const NamedTensor b{"b", tensor_of<double>(cpu, {1}, {3})};
  write_safetensors(folder / "1", std::vector{a, b}, {{"x", "1"}, {"y", "2"}});
  write_safetensors(folder / "2", std::vector{b, a}, {{"y", "2"}, {"x", "1"}});
  EXPECT_EQ(file_content(folder / "1"), file_content(folder / "2"));
}

TEST(Safetensors, FloatAndBf16ConvertAndSaySo) {
  for (const Device& device : test::devices()) {
    const TemporaryFolder folder;
    const std::vector<float> wide{1.0F, 1.00390625F, -3.0e38F, 0.1F};
    std::vector<bf16> narrow;
    for (const float x : wide) narrow.emplace_back(x);
    write_safetensors(folder / "f",
                      std::vector<NamedTensor>{{"wide", tensor_of(device, {4}, wide)},
                                               {"narrow", tensor_of(device, {4}, narrow)}},
                      {});
    const SafetensorsFile file(folder / "f");
    const Tensor as_float(device, {4}, DType::f32), as_bf16(device, {4}, DType::bf16);
    EXPECT_EQ(file.read_into("narrow", as_float), Fit::widened);
    EXPECT_EQ(file.read_into("wide", as_bf16), Fit::narrowed);
    for (std::size_t i = 0; i < 4; ++i) {
      EXPECT_EQ(read<float>(as_float)[i], static_cast<float>(narrow[i]));
      EXPECT_EQ(read<bf16>(as_bf16)[i].bits, narrow[i].bits);
    }
  }
}

TEST(Safetensors, AForeignFileWithoutPaddingAndWithOtherTypesReads) {
  const TemporaryFolder folder;
  const std::string header = R"( {"u":{"shape":[3],"data_offsets":[0,3],"dtype":"U8"},)"
                             R"("x":{"data_offsets":[3,7],"dtype":"F32","shape":[1,1,1,1,1]},)"
                             R"("y":{"data_offsets":[7,11],"dtype":"F32","shape":[1]}})";
  test::write_content(folder / "f",
                      raw_file(header.substr(1), std::string("abc\0\0\0\0\0\0\x80?", 11)));
  const SafetensorsFile file(folder / "f");
  EXPECT_EQ(static_cast<char>(file.bytes("u")[2]), 'c');
  EXPECT_EQ(file.info("x").text(), "F32 [1, 1, 1, 1, 1]");
  const Tensor y(Cpu{}, {1}, DType::f32);
  file.read_into("y", y);  // its bytes are unaligned
  EXPECT_EQ(read<float>(y)[0], 1.0F);
}

TEST(Safetensors, ATensorThatDoesNotFitIsNamedWithBothShapes) {
  const TemporaryFolder folder;
  const Device cpu = Cpu{};
  write_safetensors(folder / "f",
                    std::vector<NamedTensor>{{"w", tensor_of<float>(cpu, {2, 1}, {1, 2})}}, {});
  const SafetensorsFile file(folder / "f");
  const std::string path = (folder / "f").string();
  const auto text = [&](const std::string& name, const Tensor& tensor) {
    return error_text<FormatError>([&] { file.read_into(name, tensor); });
  };
  EXPECT_EQ(text("w", Tensor(cpu, {1, 2}, DType::f32)),
            path + ": 'w' is F32 [2, 1], expected F32 [1, 2]");
  EXPECT_EQ(text("w", Tensor(cpu, {2, 1}, DType::i32)),
            path + ": 'w' is F32 [2, 1], expected I32 [2, 1]");
  EXPECT_EQ(text("w", Tensor(cpu, {2, 1}, DType::f64)),
            path + ": 'w' is F32 [2, 1], expected F64 [2, 1]");
  EXPECT_EQ(text("v", Tensor(cpu, {2, 1}, DType::f32)), path + ": there is no tensor 'v'");
}

TEST(Safetensors, TheWriterRefusesWhatNoReaderWouldTake) {
  const TemporaryFolder folder;
  const Tensor x = tensor_of<float>(Cpu{}, {1}, {1});
  const auto refused = [&](const std::vector<NamedTensor>& tensors, const Metadata& metadata) {
    EXPECT_THROW(write_safetensors(folder / "f", tensors, metadata), FormatError);
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  };
  refused({{"x", x}, {"y", x}, {"x", x}}, {});
  refused({{"__metadata__", x}}, {});
  refused({{"x", Tensor()}}, {});
  refused({{"x\xFF", x}}, {});
  refused({}, {{"k", "\xC3"}});
}

}  // namespace
}  // namespace carousel
