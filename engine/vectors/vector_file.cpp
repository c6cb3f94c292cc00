#include "engine/vectors/vector_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <tuple>
#include <unordered_set>
#include <utility>

#include "engine/text/hash.h"
#include "engine/text/utf8.h"
#include "engine/vectors/vector_formats.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{1} << 20;
constexpr std::int64_t kMostWidth = std::int64_t{1} << 20;
constexpr std::size_t kLongestHeader = 64;

/// What is wrong with a word of a file, or nothing.
const char* fault_of(std::string_view word) {
  if (word.empty()) return "the word is empty";
  if (word.size() > kLongestWord) return "the word is longer than 64 KiB";
  return is_utf8(word) ? nullptr : "the word is not UTF-8";
}

/// Two numbers above 0.
std::optional<std::pair<std::int64_t, std::int64_t>> parse_header(std::string_view line) {
  std::int64_t words = 0, width = 0;
  const char* at = line.data();
  const char* const end = at + line.size();
  for (std::int64_t* const number : {&words, &width}) {
    const auto [stop, error] = std::from_chars(at, end, *number);
    if (error != std::errc() || *number < 1) return std::nullopt;
    at = std::find_if(stop, end, [](char c) { return c != ' ' && c != '\t' && c != '\r'; });
    if (at == stop && at != end) return std::nullopt;
  }
  return at == end ? std::optional(std::pair(words, width)) : std::nullopt;
}

}  // namespace

std::string_view Pieces::peek(std::size_t bytes) {
  bytes = std::min(bytes, left());
  if (at_ - begin_ + bytes > buffer_.size()) {
    const std::size_t more = std::min(std::max(bytes, kPieceBytes), left());
    buffer_.resize(more);
    begin_ = at_;
    file_.read(begin_, buffer_.data(), more);
  }
  return std::string_view(buffer_).substr(at_ - begin_, bytes);
}

std::optional<std::string_view> Pieces::until(char end, std::size_t most) {
  std::size_t looked_at = 0;
  for (std::size_t bytes = std::min<std::size_t>(most, 256);; bytes = std::min(most, 4 * bytes)) {
    const std::string_view text = peek(bytes);
    const std::size_t found = text.find(end, looked_at);
    if (found != std::string_view::npos) {
      skip(found + 1);
      return text.substr(0, found);
    }
    if (text.size() < bytes) {  // the file ends here
      skip(text.size());
      return text;
    }
    if (bytes == most) return std::nullopt;
    looked_at = text.size();
  }
}

StreamedVectors::StreamedVectors(const std::filesystem::path& path, const char* where,
                                 std::size_t least)
    : VectorFile(path), file_(path) {
  Pieces pieces(file_);
  const auto whole = pieces.until('\n', kLongestHeader);
  const std::string line(whole ? *whole : pieces.peek(kLongestHeader));
  const auto header = whole ? parse_header(line) : std::nullopt;
  if (!header) {
    throw FormatError(
        fmt::format("{}: {}: '{}', expected how many words there are, and of how many "
                    "numbers each, as in '71291 100'",
                    path.string(), where, escaped(line)));
  }
  std::tie(words_, width_) = *header;
  begin_ = pieces.at();
  // By division: the product of what a bad file claims may overflow.
  const auto bytes_each = [&] { return 2 + least * static_cast<std::size_t>(width_); };
  if (width_ <= kMostWidth &&
      static_cast<std::size_t>(words_) <= (pieces.left() + 1) / bytes_each()) {
    return;
  }
  throw FormatError(fmt::format("{}: {}: it promises {} words of {} numbers, and {} bytes follow",
                                path.string(), where, words_, width_, pieces.left()));
}

Pieces StreamedVectors::pieces() const {
  Pieces pieces(file_);
  pieces.skip(begin_);
  return pieces;
}

std::unique_ptr<VectorFile> VectorFile::open(const std::filesystem::path& path) {
  const std::filesystem::path ending = path.extension();
  if (ending == ".vec" || ending == ".txt") return open_text_vectors(path);
  if (ending == ".bin") return open_binary_vectors(path);
  return open_tensor_vectors(path);
}

void VectorFile::refuse(const std::string& what) const {
  throw FormatError(fmt::format("{}: {}: {}", path_.string(), place(), what));
}

void VectorFile::read(const Take& take) const {
  std::unordered_set<std::string, TokenHash, std::equal_to<>> seen;
  seen.reserve(static_cast<std::size_t>(words_));
  read_all([&](std::string_view word, std::span<const float> vector) {
    if (const char* const fault = any_bytes_ ? nullptr : fault_of(word)) {
      refuse(fmt::format("{}: '{}'", fault, escaped(word.substr(0, 60))));
    }
    const auto bad = std::find_if_not(vector.begin(), vector.end(),
                                      [](float number) { return std::isfinite(number); });
    if (bad != vector.end()) {
      refuse(fmt::format("number {} of '{}' is {}", bad - vector.begin() + 1, escaped(word), *bad));
    }
    if (!seen.emplace(word).second) refuse(fmt::format("'{}' is there twice", escaped(word)));
    take(word, vector);
  });
}

}  // namespace carousel
