#include "engine/text/line_encoder.h"

#include <utility>

namespace carousel {

LineEncoder::LineEncoder(const Vocabulary& vocabulary, std::string name, End end)
    : writer_(vocabulary), tokenizer_(vocabulary.rules(), std::move(name), writer_), end_(end) {}

std::vector<std::int32_t> LineEncoder::next(std::string_view line) {
  if (end_ == End::closed) {
    tokenizer_.feed(line);
    tokenizer_.finish();
    return writer_.encoded().ids;
  }
  const bool terminated = line.ends_with('\n');
  tokenizer_.feed(line.substr(0, line.size() - (terminated ? 1 : 0)));
  tokenizer_.pause();
  std::vector<std::int32_t> ids = writer_.encoded().ids;
  if (terminated) {
    tokenizer_.feed("\n");
  } else {
    tokenizer_.finish();
  }
  writer_.encoded();  // the end of the line
  return ids;
}

}  // namespace carousel
