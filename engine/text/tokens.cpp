#include "engine/text/tokens.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "kernels/common/check.h"

namespace carousel {
namespace {

class MemoryTokens final : public TokenStore {
 public:
  MemoryTokens(Encoded text, std::int64_t characters) : ids_(std::move(text.ids)) {
    count_ = static_cast<std::int64_t>(ids_.size());
    unknown_ = text.unknown;
    characters_ = characters;
  }
  void read(std::int64_t offset, std::int64_t n, std::int32_t* to) const override {
    expect_inside("tokens in memory", offset, n, count_);
    std::copy_n(ids_.begin() + offset, n, to);
  }

 private:
  std::vector<std::int32_t> ids_;
};

}  // namespace

void expect_inside(const std::string& name, std::int64_t offset, std::int64_t n,
                   std::int64_t count) {
  if (offset < 0 || n < 0 || offset > count || n > count - offset) {
    throw ShapeError(
        fmt::format("{}: {} tokens from {} on requested, of {}", name, n, offset, count));
  }
}

void TokenRange::read(std::int64_t offset, std::int64_t n, std::int32_t* to) const {
  expect_inside(name, offset, n, count);
  if (n > 0) store->read(first + offset, n, to);
}

std::int32_t TokenRange::operator[](std::int64_t offset) const {
  std::int32_t id = 0;
  read(offset, 1, &id);
  return id;
}

void TokenRange::read_pieces(
    const std::function<void(std::span<const std::int32_t>, std::int64_t)>& take) const {
  constexpr std::int64_t kPiece = std::int64_t{1} << 16;
  std::vector<std::int32_t> piece(static_cast<std::size_t>(std::min(kPiece, count)));
  for (std::int64_t at = 0; at < count; at += kPiece) {
    const std::int64_t n = std::min(kPiece, count - at);
    read(at, n, piece.data());
    take(std::span(piece).first(static_cast<std::size_t>(n)), at);
  }
}

std::int64_t TokenRange::count_of(std::int32_t id) const {
  std::int64_t found = 0;
  read_pieces([&](std::span<const std::int32_t> piece, std::int64_t) {
    found += std::count(piece.begin(), piece.end(), id);
  });
  return found;
}

TokenRange whole(std::shared_ptr<const TokenStore> store, std::string name) {
  const std::int64_t count = store->count();
  return {std::move(store), 0, count, std::move(name)};
}

TokenRange tokens_in_memory(std::vector<std::int32_t> ids, std::string name) {
  return whole(std::make_shared<MemoryTokens>(Encoded{.ids = std::move(ids)}, 0), std::move(name));
}

bool TokenWriter::cut(std::string_view text) {
  const auto write = [this](const std::vector<std::int32_t>& ids) {
    bool known = true;
    for (const std::int32_t id : ids) {
      unknown_ += id >= 0 && id == vocabulary_.unknown() ? 1 : 0;
      known = known && id >= 0;
      if (id >= 0) push(id);
    }
    return known;
  };
  if (vocabulary_.byte_pairs() == nullptr) return write(vocabulary_.pieces(text));
  constexpr std::size_t kWords = std::size_t{1} << 16;
  const auto found = words_.find(text);
  if (found != words_.end()) return write(found->second);
  if (words_.size() == kWords) words_.clear();
  return write(words_.emplace(text, vocabulary_.pieces(text)).first->second);
}

bool TokenWriter::token(std::string_view text) {
  const bool is_cut = vocabulary_.byte_pairs() != nullptr ||
                      (vocabulary_.subwords() != nullptr && text != "\n" && text != kUnknownText);
  if (is_cut) return cut(text);
  std::int32_t id = vocabulary_.id(text);
  if (id < 0 || id == vocabulary_.unknown()) {
    id = vocabulary_.unknown();
    ++unknown_;
  }
  if (id >= 0) push(id);
  return id >= 0;
}

void MemoryTokenWriter::flush() {
  ids_.insert(ids_.end(), waiting_.begin(), waiting_.end());
  count_ += static_cast<std::int64_t>(waiting_.size());
  waiting_.clear();
}

Encoded MemoryTokenWriter::encoded() {
  flush();
  count_ = 0;
  return {.ids = std::exchange(ids_, {}), .unknown = std::exchange(unknown_, 0)};
}

std::shared_ptr<const TokenStore> MemoryTokenWriter::finish(std::int64_t characters) {
  return std::make_shared<MemoryTokens>(encoded(), characters);
}

}  // namespace carousel
