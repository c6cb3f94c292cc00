#include <fmt/format.h>

#include "engine/files/matrix_file.h"
#include "engine/text/utf8.h"
#include "engine/vectors/vector_file.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{1} << 20;

bool can_be_written(std::string_view word) {
  if (word.empty()) return false;
  while (!word.empty()) {
    const Utf8Sequence s = utf8_sequence(word);
    if (s.status != Utf8Sequence::Status::whole || is_white_space(s.code)) return false;
    word.remove_prefix(s.bytes);
  }
  return true;
}

}  // namespace

bool VectorWriter::writes(const std::filesystem::path& path) {
  const std::filesystem::path ending = path.extension();
  return ending == ".vec" || ending == ".txt" || ending == ".bin";
}

VectorWriter::VectorWriter(const std::filesystem::path& path, std::int64_t words,
                           std::int64_t width)
    : path_(path), binary_(path.extension() == ".bin"), words_(words), width_(width) {
  expect_new_file(path_);
  file_.emplace(path_);
  waiting_ = fmt::format("{} {}\n", words, width);
}

void VectorWriter::add(std::string_view word, std::span<const float> vector) {
  expect_extent("vectors: numbers of a word", std::ssize(vector), width_);
  if (!can_be_written(word)) {
    throw FormatError(
        fmt::format("{}: token {} is '{}', and words of this format are UTF-8 without white space; "
                    "a name that ends in .safetensors takes all tokens",
                    path_.string(), added_, escaped(word)));
  }
  waiting_ += word;
  if (binary_) {
    waiting_ += ' ';
    waiting_.append(reinterpret_cast<const char*>(vector.data()), vector.size_bytes());
  } else {
    // The shortest text that gives the same float.
    for (const float number : vector) fmt::format_to(std::back_inserter(waiting_), " {}", number);
  }
  waiting_ += '\n';
  ++added_;
  if (waiting_.size() < kPieceBytes) return;
  file_->file().write(waiting_);
  waiting_.clear();
}

void VectorWriter::finish() {
  expect_extent("vectors: words", added_, words_);
  file_->file().write(waiting_);
  file_->commit();
}

}  // namespace carousel
