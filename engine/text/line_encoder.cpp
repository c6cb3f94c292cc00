#include "engine/text/line_encoder.h"

#include <utility>

namespace carousel {

LineEncoder::LineEncoder(const Vocabulary& vocabulary, std::string name, End end)
    : writer_(vocabulary), tokenizer_(vocabulary.rules(), std::move(name), writer_), end_(end) {}

std::vector<std::int32_t> LineEncoder::next(std::string_view line) {
  const bool terminated = line.ends_with('\n');
  tokenizer_.feed(line.substr(0, line.size() - (terminated ? 1 : 0)));
  tokenizer_.pause();
  std::vector<std::int32_t> ids;
  if (end_ == End::open) ids = writer_.encoded().ids;
  if (terminated) {
    tokenizer_.feed("\n");
  } else {
    tokenizer_.finish();
  }
  std::vector<std::int32_t> closed = writer_.encoded().ids;
  return end_ == End::open ? ids : closed;
}

}  // namespace carousel
