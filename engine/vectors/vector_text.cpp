// Text: a line for each word. What gensim, fastText and word2vec write, with a blank before the
// newline or without.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <system_error>
#include <vector>

#include "engine/text/utf8.h"
#include "engine/vectors/vector_formats.h"

namespace carousel {
namespace {

constexpr std::size_t kLongestNumber = 64;  // in bytes, with the blank before it

/// Takes the text before the next blank, and the blanks behind it.
std::string_view take_field(std::string_view& rest) {
  const std::size_t end = std::min(rest.find_first_of(" \t"), rest.size());
  const std::string_view field = rest.substr(0, end);
  rest.remove_prefix(std::min(rest.find_first_not_of(" \t", end), rest.size()));
  return field;
}

/// Whether all of a text is a number. One too small for a float becomes zero, one too large infinite.
bool parse_number(std::string_view text, float& number) {
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (error == std::errc::result_out_of_range && stop == end) {
    double wide = HUGE_VAL;
    if (std::from_chars(text.data(), end, wide).ec == std::errc::result_out_of_range) {
      wide = text.find('-', 1) == std::string_view::npos ? HUGE_VAL : 0;
    }
    number = static_cast<float>(wide);
    return true;
  }
  return !text.empty() && error == std::errc() && stop == end;
}

class TextVectors final : public StreamedVectors {
 public:
  explicit TextVectors(const std::filesystem::path& path) : StreamedVectors(path, "line 1", 2) {}

 private:
  void read_all(const Take& take) const override {
    Pieces pieces = this->pieces();
    line_ = 1;
    const std::size_t longest = kLongestWord + kLongestNumber * static_cast<std::size_t>(width_);
    std::vector<float> vector(static_cast<std::size_t>(width_));
    for (std::int64_t i = 0; i < words_; ++i) {
      ++line_;
      if (pieces.left() == 0) {
        refuse(fmt::format("the file ends after {} of {} words", i, words_));
      }
      const auto line = pieces.until('\n', longest);
      if (!line) refuse(fmt::format("it is longer than {} bytes", longest));
      read_line(*line, vector, take);
    }
    ++line_;
    if (pieces.left() > 0) {
      refuse(fmt::format("there is more after the {} words of line 1", words_));
    }
  }
  void read_line(std::string_view line, std::vector<float>& vector, const Take& take) const {
    std::string_view rest =
        line.substr(0, std::min(line.find_last_not_of(" \t\r") + 1, line.size()));
    const std::string_view word = take_field(rest);
    for (std::size_t i = 0; i < vector.size(); ++i) {
      if (rest.empty()) {
        refuse(fmt::format("{} numbers behind the word, expected {}", i, width_));
      }
      const std::string_view field = take_field(rest);
      if (!parse_number(field, vector[i])) {
        refuse(fmt::format("'{}' is not a number", escaped(field.substr(0, 60))));
      }
    }
    if (!rest.empty()) {
      refuse(fmt::format("there is more behind the {} numbers of the word", width_));
    }
    take(word, vector);
  }
  std::string place() const override { return fmt::format("line {}", line_); }

  mutable std::int64_t line_ = 1;
};

}  // namespace

std::unique_ptr<VectorFile> open_text_vectors(const std::filesystem::path& path) {
  return std::make_unique<TextVectors>(path);
}

}  // namespace carousel
