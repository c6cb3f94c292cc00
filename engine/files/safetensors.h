#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/files/atomic.h"
#include "engine/files/input_file.h"
#include "engine/tape/tensor.h"

/// The safetensors format, as https://github.com/huggingface/safetensors publishes it: eight bytes
/// of header length (little-endian), a JSON header padded with spaces to a multiple of eight, and
/// the tensors' bytes without gaps. Equal tensors and metadata give equal files, byte for byte.
namespace carousel {

struct NamedTensor {
  std::string name;
  Tensor tensor;
};
using Metadata = std::map<std::string, std::string>;

/// A tensor as a file's header describes it.
struct StoredTensor {
  std::string dtype;                ///< as published: "F32", "BF16", "F64", "I32", "I64", "U8", …
  std::vector<std::int64_t> shape;  ///< slowest first; may have more dimensions than a Shape
  std::size_t begin = 0, end = 0;   ///< bytes within the data section
  std::string text() const;         ///< "F32 [64, 32]"
};

struct SafetensorsHeader {
  Metadata metadata;
  std::map<std::string, StoredTensor> tensors;
};

/// Parses a header and checks that its tensors tile `data_bytes` exactly. FormatError naming
/// `file`, the tensor, what was found and what was expected.
SafetensorsHeader parse_safetensors_header(std::string_view text, std::size_t data_bytes,
                                           const std::string& file);

/// The header's text, padded such that the data begins at a multiple of eight. `tensors` in the
/// order of their bytes.
std::string safetensors_header_text(
    const std::vector<std::pair<std::string, StoredTensor>>& tensors, const Metadata& metadata);

/// What a file begins with: the header behind its length, padded with spaces to `least` bytes, a
/// multiple of eight. FormatError, naming `file`, for a header that no reader takes.
std::string safetensors_beginning(const std::vector<std::pair<std::string, StoredTensor>>& tensors,
                                  const Metadata& metadata, const std::string& file,
                                  std::size_t least = 0);

/// Bytes of one element of a published dtype, 0 if there is no such dtype.
std::size_t bytes_per_element(std::string_view stored_dtype);

/// Streams tensors into an open file, one host copy at a time; on the CPU without copies. Order on
/// disk is that of the published writer: wide element types first, then by name. FormatError for a
/// name given twice, a tensor without memory, or metadata that is not UTF-8.
void write_safetensors(OutputFile& file, std::span<const NamedTensor> tensors,
                       const Metadata& metadata);
/// Writes a new file, which appears complete and durable or not at all.
void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const Metadata& metadata, SystemCalls& calls = kernel_calls());

/// The size of that file; errors as if it were written.
std::size_t safetensors_bytes(const std::filesystem::path& path,
                              std::span<const NamedTensor> tensors, const Metadata& metadata);

/// A file to read, whose header is validated when it is opened.
class SafetensorsFile {
 public:
  /// IoError if it cannot be read, FormatError if it is not a safetensors file.
  explicit SafetensorsFile(std::filesystem::path path);

  const std::filesystem::path& path() const { return file_->path(); }
  const Metadata& metadata() const { return header_.metadata; }
  std::vector<std::string> names() const;  ///< sorted
  bool contains(const std::string& name) const { return header_.tensors.contains(name); }
  const StoredTensor& info(const std::string& name) const;  ///< FormatError if there is none
  std::vector<std::byte> bytes(const std::string& name) const;
  /// FormatError unless there is a tensor of that name and shape.
  void expect_shape(const std::string& name, const Shape& shape) const;

  enum class Fit {
    exact,     ///< the same element type
    widened,   ///< bf16 read as float
    narrowed,  ///< float rounded to bf16
  };
  /// How read_into() would fill the tensor; FormatError if it could not.
  Fit fit(const std::string& name, const Tensor& tensor) const;
  /// Copies a stored tensor into one of the same shape and element type, or converts between float
  /// and bf16; returns which it was.
  Fit read_into(const std::string& name, const Tensor& tensor) const;

 private:
  std::shared_ptr<const InputFile> file_;
  std::size_t data_ = 0;  ///< where the data section begins
  SafetensorsHeader header_;
};

}  // namespace carousel
