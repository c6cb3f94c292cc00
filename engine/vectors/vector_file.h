#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "engine/files/atomic.h"

namespace carousel {

/// A file of words and their vectors. The name's ending says the format:
///
///   .vec .txt   text, of word2vec and fastText: a line "<words> <width>", then a line for each word,
///               "<word> <number> … <number>", with blanks or tabs between
///   .bin        word2vec's binary form: the same first line, then for each word its bytes, a blank
///               and its numbers, 4 bytes each, little-endian; a newline before a word is left out
///   any other   safetensors of Carousel's: tensor "embedding.weight" [words, width] f32 or bf16,
///               whose rows are the tokens of the metadata's vocabulary
///
/// Whatever is wrong with it is a FormatError that names the file and the line (of text), the byte (of
/// the binary form, from 0) or the row: a header whose numbers the file has no room for, which is
/// found before memory is asked for; another number of words, or of numbers in one; what is no number
/// or not finite; a word that is empty, not UTF-8, or there twice; an end too early or too late.
class VectorFile {
 public:
  /// Reads the header. IoError if it cannot be opened.
  static std::unique_ptr<VectorFile> open(const std::filesystem::path& path);
  virtual ~VectorFile() = default;

  const std::filesystem::path& path() const { return path_; }
  std::int64_t words() const { return words_; }
  std::int64_t width() const { return width_; }

  using Take = std::function<void(std::string_view word, std::span<const float> vector)>;
  /// Passes on all words in the order of the file, which is that of falling counts where the program
  /// that wrote it sorted them.
  void read(const Take& take) const;

 protected:
  explicit VectorFile(std::filesystem::path path) : path_(std::move(path)) {}
  /// What read() does. `take` checks what is the same in all formats and calls its caller's.
  virtual void read_all(const Take& take) const = 0;
  /// Where the word that is being read stands: "line 3".
  virtual std::string place() const = 0;
  /// FormatError with the file and the place.
  [[noreturn]] void refuse(const std::string& what) const;

  std::filesystem::path path_;
  std::int64_t words_ = 0, width_ = 0;
  bool any_bytes_ = false;  ///< words are tokens of a vocabulary, which has checked them
};

/// A new file of words and their vectors in text or word2vec's binary form, by its ending. It appears
/// complete and durable, or not at all.
class VectorWriter {
 public:
  /// ConfigError for a file that is there already, IoError if it cannot be made.
  VectorWriter(const std::filesystem::path& path, std::int64_t words, std::int64_t width);
  /// FormatError for a word that the formats cannot hold: an empty one, and one with white space or
  /// that is not UTF-8.
  void add(std::string_view word, std::span<const float> vector);
  /// All words were added.
  void finish();

  static bool writes(
      const std::filesystem::path& path);  ///< whether the ending is one of the two's

 private:
  std::filesystem::path path_;
  bool binary_;
  std::int64_t words_, width_, added_ = 0;
  std::string waiting_;
  std::optional<NewFile> file_;
};

}  // namespace carousel
