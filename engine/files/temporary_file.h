#pragma once

#include <cstddef>
#include <filesystem>

namespace carousel {

/// A file without a name, for what does not fit into memory. It is gone with the process, however
/// that ends.
class TemporaryFile {
 public:
  /// IoError if the folder takes no file.
  explicit TemporaryFile(const std::filesystem::path& folder);
  ~TemporaryFile();
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  std::size_t size() const { return size_; }
  /// Writes at the end. IoError, for example of a full disk.
  void append(const void* data, std::size_t bytes);
  /// IoError unless all of it was written.
  void read(std::size_t offset, void* to, std::size_t bytes) const;

 private:
  std::filesystem::path path_;  ///< it had, for errors
  int file_;
  std::size_t size_ = 0;
};

}  // namespace carousel
