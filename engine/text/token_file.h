#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/files/atomic.h"
#include "engine/text/vocabulary.h"

namespace carousel {

/// The token ids of a text on disk. Little-endian: the eight letters "CARTOKEN", a 32-bit version,
/// the 32-bit width of an id in bytes (1, 2 or 4, by the size of the vocabulary); the ids, filled
/// up with zeros to a multiple of eight bytes; then 64 bits each of: count of ids, count of unknown
/// tokens, characters of the text, fingerprint of the vocabulary, checksum of the ids, checksum of
/// everything else.
///
/// A TokenFile is such a file mapped into memory, so that texts larger than memory can be read.
/// Opening it reads it once, for the checksum. It may be read by several threads.
class TokenFile {
 public:
  /// FormatError, which says what to do, for a file that is something else, is damaged or cut
  /// short, or was made with another vocabulary. IoError if it cannot be mapped.
  TokenFile(std::string path, const Vocabulary& vocabulary);
  ~TokenFile();
  TokenFile(const TokenFile&) = delete;
  TokenFile& operator=(const TokenFile&) = delete;

  const std::string& path() const { return path_; }
  std::int64_t count() const { return count_; }
  std::int64_t unknown() const { return unknown_; }        ///< tokens that became <unk>
  std::int64_t characters() const { return characters_; }  ///< code points of the text, with blanks

  /// Ids offset … offset + n − 1. ShapeError unless the file has them.
  void read(std::int64_t offset, std::int64_t n, std::int32_t* to) const;

 private:
  void check(const Vocabulary& vocabulary);
  const std::byte* bytes() const { return static_cast<const std::byte*>(data_); }
  std::string path_;
  void* data_ = nullptr;  ///< the mapping
  std::size_t size_ = 0;
  std::int64_t count_ = 0, unknown_ = 0, characters_ = 0;
  std::int64_t width_ = 0;
};

/// Writes a token file from tokens in the order of the text, in constant memory. The file appears
/// under its name with finish(), complete, or not at all.
class TokenFileWriter final : public TokenSink {
 public:
  TokenFileWriter(const std::string& path, const Vocabulary& vocabulary);

  bool token(std::string_view text) override;
  void begin_line() override { push(vocabulary_.begin()); }
  void end_line() override { push(vocabulary_.end()); }
  std::int64_t count() const { return count_ + static_cast<std::int64_t>(waiting_.size()); }
  void finish(std::int64_t characters);

 private:
  static constexpr std::size_t kWaiting = std::size_t{1} << 14;  ///< a multiple of eight
  void push(std::int32_t id) {
    waiting_.push_back(id);
    if (waiting_.size() == kWaiting) flush();
  }
  void flush();
  const Vocabulary& vocabulary_;
  NewFile file_;
  std::size_t width_;
  std::vector<std::int32_t> waiting_;  ///< ids not yet in the file
  std::uint64_t checksum_;
  std::int64_t count_ = 0, unknown_ = 0;
};

/// A contiguous part of a token file: what training or validation reads.
struct TokenRange {
  std::shared_ptr<const TokenFile> file;
  std::int64_t first = 0, count = 0;
  std::string name;  ///< of the text, for errors

  /// Ids offset … offset + n − 1 of the range. ShapeError unless it has them.
  void read(std::int64_t offset, std::int64_t n, std::int32_t* to) const;
  std::int32_t operator[](std::int64_t offset) const;
};

}  // namespace carousel
