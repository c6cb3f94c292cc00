#include "engine/vectors/vector_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/files/matrix_file.h"
#include "engine/text/vocabularies.h"
#include "kernels/common/check.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using test::file_content;
using test::TemporaryFolder;

using Words = std::vector<std::pair<std::string, std::vector<float>>>;

const Words kWords{{"the", {1, -0.5F}}, {"caf\u00e9", {0.1F, 1e-38F}}, {"U.S.", {-0.0F, 3e8F}}};

Words read(const fs::path& path) {
  Words words;
  VectorFile::open(path)->read([&](std::string_view word, std::span<const float> vector) {
    words.emplace_back(word, std::vector<float>(vector.begin(), vector.end()));
  });
  return words;
}

void write(const fs::path& path, const Words& words) {
  VectorWriter file(path, std::ssize(words), std::ssize(words.front().second));
  for (const auto& [word, vector] : words) file.add(word, vector);
  file.finish();
}

std::string bytes_of(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float)};
}

/// The error of reading a file with this content, without what names the file.
std::string fault(const std::string& name, const std::string& content) {
  const TemporaryFolder folder;
  const std::string path = folder.write(name, content);
  const std::string text = error_text<FormatError>([&] { read(path); });
  EXPECT_TRUE(text.starts_with(path + ": ")) << text;
  return text.substr(std::min(text.size(), path.size() + 2));
}

TEST(VectorFile, WhatIsWrittenIsWord2vecsFormWorkedByHand) {
  const TemporaryFolder folder;
  write(folder / "a.vec", kWords);
  EXPECT_EQ(file_content(folder / "a.vec"),
            "3 2\nthe 1 -0.5\ncaf\u00e9 0.1 1e-38\nU.S. -0 300000000\n");
  write(folder / "a.bin", kWords);
  EXPECT_EQ(file_content(folder / "a.bin"), "3 2\nthe " + bytes_of({1, -0.5F}) + "\ncaf\u00e9 " +
                                                bytes_of({0.1F, 1e-38F}) + "\nU.S. " +
                                                bytes_of({-0.0F, 3e8F}) + "\n");
}

TEST(VectorFile, WhatIsWrittenIsReadToTheLastBit) {
  std::mt19937 random(17);
  Words words = kWords;
  for (auto& [word, vector] : words) vector.resize(40);
  for (int i = 0; i < 3000; ++i) {
    std::vector<float> vector;
    while (vector.size() < 40) {
      float number = 0;
      const std::uint32_t bits = static_cast<std::uint32_t>(random());
      std::memcpy(&number, &bits, sizeof number);
      if (std::isfinite(number)) vector.push_back(number);  // any there is, the smallest too
    }
    words.emplace_back("word" + std::to_string(i), vector);
  }
  const TemporaryFolder folder;
  for (const char* name : {"a.vec", "a.txt", "a.bin"}) {
    write(folder / name, words);
    EXPECT_EQ(VectorFile::open(folder / name)->words(), 3003);
    EXPECT_EQ(VectorFile::open(folder / name)->width(), 40);
    const Words got = read(folder / name);
    ASSERT_EQ(got.size(), words.size());
    for (std::size_t i = 0; i < got.size(); ++i) {
      ASSERT_EQ(got[i].first, words[i].first);
      ASSERT_EQ(bytes_of(got[i].second), bytes_of(words[i].second)) << name << ", " << i;
    }
  }
}

TEST(VectorFile, OtherProgramsTextIsRead) {
  const TemporaryFolder folder;
  const Words want{{"</s>", {0.25F, -1}}, {"a\u00a0b", {2, 1e-3F}}};
  for (const char* content :
       {"2 2\n</s> 0.25 -1\na\u00a0b 2 0.001\n", "2 2\n</s> 0.25 -1\na\u00a0b 2 0.001",
        "2 2 \r\n</s> 0.25 -1.0 \r\na\u00a0b 2 1e-3 \r\n",
        "2 2\n</s>\t0.25\t-1\na\u00a0b 2  1E-3 \n"}) {
    EXPECT_EQ(read(folder.write("a.vec", content)), want) << content;
  }
  // Too small for a float, though not for a double, and for both.
  const Words small{{"a", {0, -0.0F}}};
  EXPECT_EQ(read(folder.write("a.vec", "1 2\na 1e-60 -1e-600\n")), small);
}

TEST(VectorFile, OtherProgramsBinaryFormIsRead) {
  const TemporaryFolder folder;
  const std::vector<float> first{1, 2}, second{-3, 0.5F};
  const Words want{{"a", first}, {"b", second}};
  // gensim writes no newline behind a word, word2vec does.
  for (const std::string newline : {"", "\n"}) {
    EXPECT_EQ(read(folder.write("a.bin", "2 2\na " + bytes_of(first) + newline + "b " +
                                             bytes_of(second) + newline)),
              want);
  }
}

TEST(VectorFile, BadTextIsRefusedByItsLine) {
  const auto text = [](const std::string& content) { return fault("a.vec", content); };
  for (const char* header : {"", "\n", "a b\n", "the 0.1 0.2\n", "2\n", "2 2 2\n", "-1 2\n",
                             "0 2\n", "1 0\n", "1,2\n", "99999999999999999999 1\n", "1.5 2\n"}) {
    EXPECT_TRUE(text(header).starts_with("line 1: '")) << text(header);
    EXPECT_NE(text(header).find("how many words"), std::string::npos);
  }
  EXPECT_EQ(text("2 2\na 1 2\nb 3.25\n"), "line 3: 1 numbers behind the word, expected 2");
  EXPECT_EQ(text("2 2\na 1 2 3\nb 3 4\n"),
            "line 2: there is more behind the 2 numbers of the word");
  EXPECT_EQ(text("2 2\na 1 2\nb 3 x4\n"), "line 3: 'x4' is not a number");
  EXPECT_EQ(text("2 2\na 1 2\nb 3 4,5\n"), "line 3: '4,5' is not a number");
  EXPECT_EQ(text("2 2\na 1 0x2\nb 3 4\n"), "line 2: '0x2' is not a number");
  EXPECT_EQ(text("2 2\na 1 nan\nb 3 4\n"), "line 2: number 2 of 'a' is nan");
  EXPECT_EQ(text("2 2\na -inf 1\nb 3 4\n"), "line 2: number 1 of 'a' is -inf");
  EXPECT_EQ(text("2 2\na 1 2\nb 1e39 4\n"), "line 3: number 1 of 'b' is inf");
  EXPECT_EQ(text("2 2\na 1 2\nb 1e999 4\n"), "line 3: number 1 of 'b' is inf");
  EXPECT_EQ(text("2 2\na 1 2\na 3 4\n"), "line 3: 'a' is there twice");
  EXPECT_EQ(text("2 2\n 1.5 2.5\nb 3 4\n"), "line 2: the word is empty: ''");
  EXPECT_EQ(text("2 2\n\xff\xfe 1 2\nb 3 4\n"), "line 2: the word is not UTF-8: '\\xFF\\xFE'");
  EXPECT_EQ(text("3 2\na 1 2\nbbbbbbbb 3 4\n"), "line 4: the file ends after 2 of 3 words");
  EXPECT_EQ(text("1 2\na 1 2\nb 3 4\n"), "line 3: there is more after the 1 words of line 1");
  EXPECT_EQ(text("2 2\na 1 2\n\nb 3 4\n"), "line 3: 0 numbers behind the word, expected 2");
  EXPECT_EQ(text("1 2\n" + std::string(1 << 20, 'a')), "line 2: it is longer than 65664 bytes");
  EXPECT_EQ(text("1 1\n" + std::string((1 << 16) + 1, 'a') + " 1\n").substr(0, 39),
            "line 2: the word is longer than 64 KiB:");
}

TEST(VectorFile, BadBinaryFilesAreRefusedByTheByte) {
  const auto binary = [](const std::string& content) { return fault("a.bin", content); };
  const std::string a = "a " + bytes_of({1, 2}), b = "b " + bytes_of({3, 4});
  EXPECT_TRUE(binary("").starts_with("byte 0: '")) << binary("");
  EXPECT_TRUE(binary(a + b).starts_with("byte 0: 'a\\s")) << binary(a + b);
  EXPECT_EQ(binary("2 2\n" + a + "b " + bytes_of({3}) + "123"),
            "byte 14: the file ends within word 2 of 2");
  EXPECT_EQ(binary("2 2\n" + a + std::string(10, 'b')),
            "byte 14: the file ends within word 2 of 2");
  EXPECT_EQ(binary("1 2\n" + a + "\n" + b),
            "byte 15: 10 bytes more after the 1 words that byte 0 "
            "promises");
  EXPECT_EQ(binary("2 2\n" + a + "\na " + bytes_of({3, 4})), "byte 15: 'a' is there twice");
  EXPECT_EQ(binary("2 2\n" + a + "b " + bytes_of({3, std::nanf("")})),
            "byte 14: number 2 of 'b' is nan");
  EXPECT_EQ(binary("2 2\na " + bytes_of({INFINITY, 1}) + b), "byte 4: number 1 of 'a' is inf");
  EXPECT_EQ(binary("2 2\n" + a + "\xC3 " + bytes_of({3, 4})),
            "byte 14: the word is not UTF-8: '\\xC3'");
  EXPECT_EQ(binary("2 2\n" + a + " " + bytes_of({3, 4}) + "."), "byte 14: the word is empty: ''");
  EXPECT_EQ(binary("1 2\n" + std::string(1 << 17, 'a')),
            "byte 4: no blank within 65536 bytes ends the word");
}

// What a header promises is held against the size of the file before memory is asked for: these would
// be terabytes, and overflow 64 bits.
TEST(VectorFile, AHeaderBeyondTheFileIsRefusedAtOnce) {
  const auto promises = [](const std::string& numbers) { return numbers + "\na 1 2\n"; };
  for (const char* numbers : {"2 2", "1000000000000 100", "1 1000000000", "9223372036854775807 2",
                              "2 9223372036854775807", "4611686018427387904 4"}) {
    for (const char* name : {"a.vec", "a.bin"}) {
      const std::string text = fault(name, promises(numbers));
      EXPECT_NE(text.find("it promises "), std::string::npos) << text;
      EXPECT_NE(text.find("and 6 bytes follow"), std::string::npos) << text;
    }
  }
}

Metadata vocabulary_of(const std::string& tokens, int count) {
  return {{"carousel.vocabulary", "carousel vocabulary 1 word newline=text unknown=yes size=" +
                                      std::to_string(count) + "\n<unk>\t1\n" + tokens}};
}

fs::path tensors(const TemporaryFolder& folder, const std::vector<float>& numbers,
                 const Metadata& metadata, const std::string& name = "embedding.weight") {
  fs::remove(folder / "a.safetensors");
  MatrixFile file(folder / "a.safetensors", 2, {.matrix = name, .metadata = metadata});
  file.append(numbers);
  file.finish();
  return folder / "a.safetensors";
}

TEST(VectorFile, TheEmbeddingsOfAModelAreReadWithTheirTokens) {
  const TemporaryFolder folder;
  const Words want{{"<unk>", {1, 2}}, {"b", {3, 4}}};
  EXPECT_EQ(read(tensors(folder, {1, 2, 3, 4}, vocabulary_of("b\t3\n", 2))), want);
}

TEST(VectorFile, SafetensorsWithoutEmbeddingsOrTokensAreRefused) {
  const TemporaryFolder folder;
  const auto said = [&](const fs::path& path) {
    return error_text<FormatError>([&] { read(path); });
  };
  const Metadata two = vocabulary_of("b\t3\n", 2);
  const std::string path = folder.path("a.safetensors");
  EXPECT_EQ(said(tensors(folder, {1, 2, 3, 4}, {})),
            path + ": no vocabulary among its metadata, by which embeddings are found");
  EXPECT_EQ(said(tensors(folder, {1, 2, 3, 4}, two, "x")),
            path +
                ": there is no tensor 'embedding.weight' [words, width]: expected a model that has "
                "embeddings of tokens");
  EXPECT_EQ(said(tensors(folder, {1, 2, 3, 4, 5, 6}, two)),
            path + ": 'embedding.weight' is F32 [3, 2], expected [2, 2]");
  EXPECT_EQ(said(tensors(folder, {1, 2, 3, std::nanf("")}, two)),
            path + ": row 1 of 'embedding.weight': number 2 of 'b' is nan");
  EXPECT_NE(said(folder.write("b.model", "3 2\na 1 2\n")).find("no safetensors file"),
            std::string::npos);
}

TEST(VectorWriter, RefusesWhatTheFormatsCannotHold) {
  const TemporaryFolder folder;
  const std::vector<float> numbers{1, 2};
  for (const char* word : {" ", "\n", "", "a b", "\xff", "a\u00a0"}) {
    VectorWriter file(folder / "a.vec", 1, 2);
    const std::string text = error_text<FormatError>([&] { file.add(word, numbers); });
    EXPECT_NE(text.find(".safetensors"), std::string::npos) << text;
  }
  VectorWriter file(folder / "a.bin", 2, 2);
  file.add("a", numbers);
  EXPECT_THROW(file.add("b", std::span(numbers).first(1)), ShapeError);
  EXPECT_THROW(file.finish(), ShapeError);
  EXPECT_FALSE(fs::exists(folder / "a.bin"));
}

TEST(VectorWriter, LeavesAFileThatIsThere) {
  const TemporaryFolder folder;
  folder.write("a.vec", "mine");
  EXPECT_EQ(error_text<ConfigError>([&] { VectorWriter(folder / "a.vec", 1, 1); }),
            folder.path("a.vec") + " exists already, expected a new file");
  EXPECT_NE(error_text<ConfigError>([&] {
              VectorWriter(folder / "no/a.vec", 1, 1);
            }).find("there is no folder"),
            std::string::npos);
  EXPECT_EQ(file_content(folder / "a.vec"), "mine");
}

}  // namespace
}  // namespace carousel
