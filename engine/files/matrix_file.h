#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "engine/files/atomic.h"
#include "engine/files/safetensors.h"

namespace carousel {

/// ConfigError unless nothing is there yet, and there is a folder for it.
void expect_new_file(const std::filesystem::path& path);

/// A new file of one matrix [rows, columns] of floats, whose rows are written as they come: no more
/// of them need be in memory than one call gives. It appears complete and durable, or not at all.
///
/// The path's ending says the format: .npy (NumPy's, version 1.0) or .safetensors. Both headers come
/// first and say how many rows there are: they have a fixed size and are written last.
class MatrixFile {
 public:
  /// What a .safetensors file says besides; .npy has no place for it.
  struct Names {
    std::string matrix;  ///< the tensor's
    Metadata metadata{};
  };
  /// ConfigError for another ending and for a file that is there already, IoError if it cannot be
  /// made.
  MatrixFile(std::filesystem::path path, std::int64_t columns, Names names,
             SystemCalls& calls = kernel_calls());

  /// Whole rows.
  void append(std::span<const float> rows);
  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  /// Completes the file. A .safetensors file gets another tensor [N] i32, "steps", unless it is
  /// empty.
  void finish(std::span<const std::int32_t> steps = {});

  static bool is_numpy(const std::filesystem::path& path);

 private:
  std::string numpy_header() const;
  std::string safetensors_header(std::size_t steps) const;
  std::filesystem::path path_;
  std::int64_t columns_, rows_ = 0;
  Names names_;
  SystemCalls& calls_;
  std::size_t header_bytes_ = 0;
  std::optional<NewFile> file_;
};

}  // namespace carousel
