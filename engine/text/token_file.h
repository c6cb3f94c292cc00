#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "engine/files/atomic.h"
#include "engine/files/input_file.h"
#include "engine/text/tokens.h"

namespace carousel {

/// The token ids of a text on disk. Little-endian: the eight letters "CARTOKEN", a 32-bit version,
/// the 32-bit width of an id in bytes (1, 2 or 4, by the size of the vocabulary); the ids, filled
/// up with zeros to a multiple of eight bytes; then 64 bits each of: count of ids, count of unknown
/// tokens, characters of the text, fingerprint of the vocabulary, checksum of the ids, checksum of
/// everything else.
///
/// A TokenFile is such a file, read where it is asked for, so that texts may be larger than memory.
/// Opening it reads it once, for the checksum and the largest id.
class TokenFile final : public TokenStore {
 public:
  /// FormatError, which says what to do, for a file that is no token file, is damaged or cut short,
  /// or was made with another vocabulary. IoError if it cannot be read.
  TokenFile(const std::string& path, const Vocabulary& vocabulary);

  std::string path() const { return file_.path().string(); }
  void read(std::int64_t offset, std::int64_t n, std::int32_t* to) const override;

 private:
  std::uint64_t checksum_of_ids(std::size_t bytes);
  InputFile file_;
  std::int64_t width_ = 0, largest_ = -1;
};

/// Writes a token file in constant memory. The file appears under its name with finish(), complete,
/// or not at all.
class TokenFileWriter final : public TokenWriter {
 public:
  TokenFileWriter(std::string path, const Vocabulary& vocabulary);
  std::shared_ptr<const TokenStore> finish(std::int64_t characters) override;

 private:
  void flush() override;
  std::string path_;
  NewFile file_;
  std::size_t width_;
  std::uint64_t checksum_;
};

}  // namespace carousel
