#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/vocabulary.h"

namespace carousel {

/// The token ids of a text, in order. It may be read by several threads.
class TokenStore {
 public:
  virtual ~TokenStore() = default;
  std::int64_t count() const { return count_; }
  std::int64_t unknown() const { return unknown_; }        ///< tokens that became <unk>
  std::int64_t characters() const { return characters_; }  ///< code points of the text, with blanks
  /// Ids offset … offset + n − 1. ShapeError unless there are so many.
  virtual void read(std::int64_t offset, std::int64_t n, std::int32_t* to) const = 0;

 protected:
  std::int64_t count_ = 0, unknown_ = 0, characters_ = 0;
};

/// A contiguous part of a store: what training or validation reads.
struct TokenRange {
  std::shared_ptr<const TokenStore> store;
  std::int64_t first = 0, count = 0;
  std::string name;  ///< of the text, for errors

  /// Ids offset … offset + n − 1 of the range. ShapeError unless it has them.
  void read(std::int64_t offset, std::int64_t n, std::int32_t* to) const;
  std::int32_t operator[](std::int64_t offset) const;
  /// Passes on all ids in pieces, each with the offset it begins at.
  void read_pieces(
      const std::function<void(std::span<const std::int32_t>, std::int64_t offset)>& take) const;
  std::int64_t count_of(std::int32_t id) const;  ///< how often it occurs; reads the whole range
};

/// All of a store.
TokenRange whole(std::shared_ptr<const TokenStore> store, std::string name);

/// Ids that are in memory.
TokenRange tokens_in_memory(std::vector<std::int32_t> ids, std::string name = "tokens");

/// Numbers tokens in the order of the text: <unk>, or an error, for those without an id.
class TokenWriter : public TokenSink {
 public:
  explicit TokenWriter(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {}

  bool token(std::string_view text) final;
  void begin_line() final { push(vocabulary_.begin()); }
  void end_line() final { push(vocabulary_.end()); }
  std::int64_t count() const { return count_ + static_cast<std::int64_t>(waiting_.size()); }
  /// What was written. `characters` is that of the store.
  virtual std::shared_ptr<const TokenStore> finish(std::int64_t characters) = 0;

 protected:
  static constexpr std::size_t kWaiting = std::size_t{1} << 14;  ///< a multiple of eight
  void push(std::int32_t id) {
    waiting_.push_back(id);
    if (waiting_.size() == kWaiting) flush();
  }
  /// Takes the ids that wait, counts and clears them.
  virtual void flush() = 0;
  /// Writes the ids of what a model of subwords cuts; false if a part has none.
  bool cut(std::string_view text);

  const Vocabulary& vocabulary_;
  std::vector<std::int32_t> waiting_;
  std::int64_t count_ = 0, unknown_ = 0;
  TokenMap<std::vector<std::int32_t>> words_;  ///< ids of words that occurred: most occur again
};

/// Keeps the ids in memory.
class MemoryTokenWriter final : public TokenWriter {
 public:
  using TokenWriter::TokenWriter;
  std::shared_ptr<const TokenStore> finish(std::int64_t characters) override;
  Encoded encoded();  ///< what was written since the last call, instead of finish()

 private:
  void flush() override;
  std::vector<std::int32_t> ids_;
};

/// ShapeError unless offset … offset + n − 1 are among `count` ids.
void expect_inside(const std::string& name, std::int64_t offset, std::int64_t n,
                   std::int64_t count);

}  // namespace carousel
