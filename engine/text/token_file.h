#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "engine/files/atomic.h"
#include "engine/text/tokens.h"

namespace carousel {

/// The token ids of a text on disk. Little-endian: the eight letters "CARTOKEN", a 32-bit version,
/// the 32-bit width of an id in bytes (1, 2 or 4, by the size of the vocabulary); the ids, filled
/// up with zeros to a multiple of eight bytes; then 64 bits each of: count of ids, count of unknown
/// tokens, characters of the text, fingerprint of the vocabulary, checksum of the ids, checksum of
/// everything else.
///
/// A TokenFile is such a file mapped into memory, so that texts larger than memory can be read.
/// Opening it reads it once, for the checksum.
class TokenFile final : public TokenStore {
 public:
  /// FormatError, which says what to do, for a file that is no token file, is damaged or cut short,
  /// or was made with another vocabulary. IoError if it cannot be mapped.
  TokenFile(std::string path, const Vocabulary& vocabulary);
  ~TokenFile() override;
  TokenFile(const TokenFile&) = delete;
  TokenFile& operator=(const TokenFile&) = delete;

  const std::string& path() const { return path_; }
  void read(std::int64_t offset, std::int64_t n, std::int32_t* to) const override;

 private:
  void check(const Vocabulary& vocabulary);
  const std::byte* bytes() const { return static_cast<const std::byte*>(data_); }
  std::string path_;
  void* data_ = nullptr;  ///< the mapping
  std::size_t size_ = 0;
  std::int64_t width_ = 0;
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
