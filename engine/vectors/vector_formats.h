#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "engine/files/input_file.h"
#include "engine/vectors/vector_file.h"

namespace carousel {

/// The longest word that is read, in bytes: more is a file of another kind.
inline constexpr std::size_t kLongestWord = std::size_t{1} << 16;

/// A file read from front to back, in pieces.
class Pieces {
 public:
  explicit Pieces(const InputFile& file) : file_(file) {}

  std::size_t at() const { return at_; }  ///< the byte of the file that comes next
  std::size_t left() const { return file_.size() - at_; }
  /// The next bytes, or what is left if there are fewer; valid until the next call.
  std::string_view peek(std::size_t bytes);
  void skip(std::size_t bytes) { at_ += bytes; }
  /// What comes before the next `end` within `most` bytes, which is skipped with it; all that is left,
  /// if there is no `end` and no more than that. Nothing if neither is so.
  std::optional<std::string_view> until(char end, std::size_t most);

 private:
  const InputFile& file_;
  std::size_t at_ = 0;     ///< of the file
  std::size_t begin_ = 0;  ///< of the file, of the buffer's first byte
  std::string buffer_;
};

/// A file that begins with a line "<words> <width>", and has a word behind the other.
class StreamedVectors : public VectorFile {
 protected:
  /// Reads the first line. FormatError that begins with `where` if it is none, or if the rest of the
  /// file cannot hold so many words of so many numbers, of `least` bytes or more each.
  StreamedVectors(const std::filesystem::path& path, const char* where, std::size_t least);
  /// Where the words begin.
  Pieces pieces() const;

 private:
  InputFile file_;
  std::size_t begin_ = 0;
};

std::unique_ptr<VectorFile> open_text_vectors(const std::filesystem::path& path);
std::unique_ptr<VectorFile> open_binary_vectors(const std::filesystem::path& path);
std::unique_ptr<VectorFile> open_tensor_vectors(const std::filesystem::path& path);

}  // namespace carousel
