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

void LinePlace::fail(const std::string& what) const {
  throw FormatError(fmt::format("{}: line {}, byte {}: {}", name, line, byte, what));
}

LinePlace read_lines(const Text& text,
                     const std::function<void(std::string_view, const LinePlace&)>& take) {
  LinePlace place{.name = text.name()};
  std::int64_t next = 0;  // byte
  std::string rest;       // of the pieces, from the line on that is read next
  bool first = true;
  const auto pass_on = [&](std::string_view line) {
    place.byte = next;
    ++place.line;
    take(line, place);
    next += std::ssize(line) + 1;
  };
  text.read([&](std::string_view piece, std::int64_t at) {
    if (std::exchange(first, false)) next = at;
    rest += piece;
    std::size_t from = 0;
    for (std::size_t end = 0; (end = rest.find('\n', from)) != std::string::npos; from = end + 1) {
      pass_on(std::string_view(rest).substr(from, end - from));
    }
    rest.erase(0, from);
    if (rest.size() > kLineBytes) {
      place.byte = next;
      ++place.line;
      place.fail(fmt::format("a line of more than {} bytes; is this text?", kLineBytes));
    }
  });
  if (!rest.empty()) pass_on(rest);
  if (place.line == 0) place.byte = next;
  return place;
}

std::int64_t LineCutter::cut(std::string_view text, std::int64_t byte, TokenSink& sink) {
  relay_.to = &sink;
  relay_.empty = true;
  const std::int64_t before = tokenizer_.characters();
  tokenizer_.skip_to(byte);
  tokenizer_.feed(text);
  tokenizer_.feed("\n");  // ends it, in a last line without one too
  return relay_.empty ? 0 : tokenizer_.characters() - before;
}

void ExampleReader::read(const std::vector<LabelledText>& texts) {
  for (const LabelledText& text : texts) read(text);
}

void ExampleReader::read(const LabelledText& text) {
  LineCutter cutter(rules_, text.text.name());
  const LinePlace last = read_lines(text.text, [&](std::string_view line, const LinePlace& place) {
    place_ = place;
    read_example(line, text.label, cutter);
  });
  if (last.line == 0) last.fail("no examples");  // a byte order mark alone
}

void ExampleReader::read_example(std::string_view line, const std::optional<std::string>& label,
                                 LineCutter& cutter) {
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
  TokenSink& sink = begin(label ? *label : line.substr(0, start - 1));
  const std::int64_t characters =
      cutter.cut(line.substr(start), place_.byte + static_cast<std::int64_t>(start), sink);
  if (characters == 0) {
    fail(std::string("the text is empty") +
         (label ? ", expected an example on each line" : kExpected));
  }
  end(characters);
}

}  // namespace carousel
