#include "engine/data/example_reader.h"

#include <fmt/format.h>

#include <utility>

#include "engine/text/utf8.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

constexpr std::size_t kLineBytes = std::size_t{1} << 24;
constexpr const char* kExpected = ", expected label<TAB>text";

}  // namespace

std::string shown(std::string_view text) {
  constexpr std::size_t kMost = 40;
  return fmt::format("'{}{}'", escaped(text.substr(0, kMost)), text.size() > kMost ? "…" : "");
}

const char* fault_of(std::string_view label) {
  if (label.empty()) return "the label is empty";
  return is_utf8(label) ? nullptr : "the label is not UTF-8";
}

void ExampleReader::fail(const std::string& what) const {
  throw FormatError(fmt::format("{}: line {}, byte {}: {}", name_, line_, byte_, what));
}

void ExampleReader::read(const std::vector<LabelledText>& texts) {
  for (const LabelledText& text : texts) {
    read(text);
    if (line_ == 0) fail("no examples");  // a byte order mark alone
  }
}

void ExampleReader::read(const LabelledText& text) {
  name_ = text.text.name();
  line_ = 0;
  Tokenizer tokenizer(rules_, name_, relay_);
  std::string rest;  // of the pieces, from the line on that is read next
  bool first = true;
  const auto read_line = [&](std::string_view line) {
    ++line_;
    read_example(line, text.label, tokenizer);
    byte_ += std::ssize(line) + 1;
  };
  text.text.read([&](std::string_view piece, std::int64_t at) {
    if (std::exchange(first, false)) byte_ = at;
    rest += piece;
    std::size_t from = 0;
    for (std::size_t end = 0; (end = rest.find('\n', from)) != std::string::npos; from = end + 1) {
      read_line(std::string_view(rest).substr(from, end - from));
    }
    rest.erase(0, from);
    if (rest.size() > kLineBytes) {
      ++line_;
      fail(fmt::format("a line of more than {} bytes; is this text?", kLineBytes));
    }
  });
  if (!rest.empty()) read_line(rest);
}

void ExampleReader::read_example(std::string_view line, const std::optional<std::string>& label,
                                 Tokenizer& tokenizer) {
  std::size_t start = 0;
  if (!label) {
    if (line.empty()) fail(std::string("the line is empty") + kExpected);
    const std::size_t tab = line.find('\t');
    if (tab == std::string_view::npos) fail(shown(line) + " has no tab" + kExpected);
    start = tab + 1;
    const char* const fault = fault_of(line.substr(0, tab));
    if (fault != nullptr) fail(std::string(fault) + kExpected);
    if (line.find('\t', start) != std::string_view::npos) {
      fail(shown(line) + " has more than one tab" + kExpected);
    }
  }
  relay_.to = &begin(label ? *label : line.substr(0, start - 1));
  relay_.empty = true;
  const std::int64_t before = tokenizer.characters();
  tokenizer.skip_to(byte_ + static_cast<std::int64_t>(start));
  tokenizer.feed(line.substr(start));
  tokenizer.feed("\n");  // ends the example, in a last line without one too
  if (relay_.empty) {
    fail(std::string("the text is empty") +
         (label ? ", expected an example on each line" : kExpected));
  }
  end(tokenizer.characters() - before);
}

}  // namespace carousel
