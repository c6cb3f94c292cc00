#include "engine/generation/text_writer.h"

#include <algorithm>
#include <utility>

#include "engine/text/prompt.h"

namespace carousel {
namespace {

SamplingConfig without_unknown(SamplingConfig config, const Vocabulary& vocabulary) {
  config.suppressed_token = vocabulary.unknown();
  return config;
}

bool writes_lines(const Vocabulary& vocabulary) { return vocabulary.begin() >= 0; }

}  // namespace

std::string StopSearch::next(std::string_view piece) {
  if (found_) return {};
  held_ += piece;
  std::size_t first = std::string::npos, kept = 0;
  for (const std::string& stop : stops_) {
    first = std::min(first, held_.find(stop));
    for (std::size_t n = std::min(stop.size() - 1, held_.size()); n > kept; --n) {
      if (held_.ends_with(std::string_view(stop).substr(0, n))) kept = n;
    }
  }
  found_ = first != std::string::npos;
  std::string shown = held_.substr(0, found_ ? first : held_.size() - kept);
  held_.erase(0, found_ ? std::string::npos : shown.size());
  return shown;
}

std::string StopSearch::finish() {
  found_ = false;
  return std::exchange(held_, {});
}

TextWriter::TextWriter(Model& model, const Vocabulary& vocabulary, const WritingOptions& options,
                       std::int64_t rows)
    : vocabulary_(vocabulary),
      options_(options),
      generator_(model, without_unknown(options.sampling, vocabulary), rows, options.graph) {
  for (std::int64_t row = 0; row < rows; ++row) texts_.emplace_back(vocabulary, options_.stop);
}

void TextWriter::read(std::vector<std::int32_t> prompt, bool anew) {
  const bool between_lines =
      writes_lines(vocabulary_) && (prompt.empty() || prompt.back() == vocabulary_.end());
  if (between_lines || (anew && prompt.empty())) prompt.push_back(first_token(vocabulary_));
  if (prompt.empty()) return;  // the model goes on from where it is
  last_ = prompt.back();
  const std::vector<std::vector<std::int32_t>> prompts(texts_.size(), prompt);
  anew ? generator_.begin(prompts) : generator_.go_on(prompts);
}

void TextWriter::begin(const std::vector<std::int32_t>& prompt) {
  read(prompt, /*anew=*/true);
  for (Row& text : texts_) {
    text.decoder.finish();
    text.tidy = {};
    put_behind(prompt, text);
  }
}

void TextWriter::go_on(const std::vector<std::int32_t>& prompt) {
  std::vector<std::int32_t> all;
  const std::int32_t line_end = line_end_token(vocabulary_);
  if (!writes_lines(vocabulary_) && line_end >= 0 && last_ != line_end) all.push_back(line_end);
  all.insert(all.end(), prompt.begin(), prompt.end());
  read(all, /*anew=*/false);
  for (Row& text : texts_) put_behind(prompt, text);
}

void TextWriter::put_behind(const std::vector<std::int32_t>& prompt, Row& text) const {
  // The decoder knows then where in a line the text goes on.
  std::string shown;
  for (const std::int32_t id : prompt) shown += text.decoder.next(id);
  text.tidy.read(shown);
}

void TextWriter::take(std::size_t row, std::int32_t id, const Show& show) {
  Row& text = texts_[row];
  const bool line_is_over = writes_lines(vocabulary_) && id == vocabulary_.end();
  if (!line_is_over) {
    const std::string shown = text.stops.next(tidied(text.decoder.next(id), text));
    if (!shown.empty()) show(row, shown);
  }
  if (!line_is_over && !text.stops.found()) return;
  text.ended = true;
  text.end = line_is_over ? TextEnd::line : TextEnd::stop;
}

void TextWriter::write(const Show& show, const Proceed& proceed) {
  for (Row& text : texts_) text.ended = false;
  bool proceeding = true;
  const auto all_ended = [&] {
    return std::all_of(texts_.begin(), texts_.end(), [](const Row& text) { return text.ended; });
  };
  for (std::int64_t i = 0; i < options_.tokens && proceeding && !all_ended(); ++i) {
    const std::vector<std::int32_t>& ids = generator_.next();
    last_ = ids.front();
    for (std::size_t row = 0; row < texts_.size(); ++row) {
      if (!texts_[row].ended) take(row, ids[row], show);
    }
    proceeding = proceed();
  }
  for (std::size_t row = 0; row < texts_.size(); ++row) {
    Row& text = texts_[row];
    if (!text.ended) text.end = proceeding ? TextEnd::length : TextEnd::interrupted;
    const bool stopped = text.ended && text.end == TextEnd::stop;
    std::string last = tidied(text.decoder.finish(), text);
    if (options_.tidy) last += text.tidy.finish();
    std::string rest = text.stops.next(last);
    rest += text.stops.finish();
    if (!stopped && !rest.empty()) show(row, rest);
  }
}

}  // namespace carousel
