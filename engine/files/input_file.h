#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

namespace carousel {

/// A regular file to read from any place, by several threads at once. It is read and not mapped, so
/// that one which another process cuts short while it is in use is an error and no SIGBUS.
class InputFile {
 public:
  /// IoError if it cannot be opened, FormatError if it is not a regular file: a pipe has no size, and
  /// opening it would wait for a writer.
  explicit InputFile(std::filesystem::path path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::size_t size() const { return size_; }  ///< when it was opened
  /// FormatError if the file has become shorter than that.
  void read(std::size_t offset, void* to, std::size_t bytes) const;

 private:
  std::filesystem::path path_;
  int file_;
  std::size_t size_ = 0;
};

}  // namespace carousel
