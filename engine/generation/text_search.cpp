#include "engine/generation/text_search.h"

#include <fmt/format.h>

#include <utility>

#include "engine/generation/beam_search.h"
#include "engine/generation/generator.h"
#include "engine/text/prompt.h"
#include "kernels/common/check.h"

namespace carousel {

State PromptedDecoder::encode(Pass& pass, const Field& source, const Room& room) {
  const std::int64_t S = source.values.shape()[0], B = source.values.shape()[1];
  if (B != 1) {
    throw ShapeError(fmt::format("beam search: {} prompts side by side, expected 1", B));
  }
  State state = decoder_.decoding_state(room.beam);
  if (S == 1) return state;
  const State read = decoder_.decoding_state(1);
  Pass reading(pass.tape());
  decoder_.logits(reading, {.name = "token", .values = source.values.slice(0, S - 1)}, read);
  reading.finish();
  const Tensor row(device_, {room.beam}, DType::i32);
  zero(row);
  state.gather(read, row);
  return state;
}

Translator::Step PromptedDecoder::step(Pass& pass, const Tensor& token, const State& state,
                                       bool /*aligned*/) {
  return {.logits = decoder_.logits(pass, {.name = "token", .values = token}, state)};
}

TextSearch::TextSearch(Model& model, const Vocabulary& vocabulary, std::int64_t tokens,
                       BeamOptions options)
    : decoder_(decoder_of(model, "beam search")),
      device_(model.parameters().flat_weights().device()),
      vocabulary_(vocabulary),
      options_(std::move(options)) {
  options_.longest_factor = 0;
  options_.longest_constant = static_cast<double>(tokens);
  for (const std::int32_t id : {vocabulary.unknown(), vocabulary.begin()}) {
    if (id >= 0) options_.suppressed.push_back(id);
  }
  options_.check();
}

std::int32_t TextSearch::end() const {
  if (vocabulary_.begin() >= 0) return vocabulary_.end();
  return vocabulary_.byte_pairs() != nullptr ? vocabulary_.id(kEndOfText) : -1;
}

std::vector<FoundText> TextSearch::search(std::vector<std::int32_t> prompt) const {
  TextDecoder decoder(vocabulary_);
  for (const std::int32_t id : prompt) decoder.next(id);  // where in a line the text goes on
  const bool line_begins =
      vocabulary_.begin() >= 0 && (prompt.empty() || prompt.back() == vocabulary_.end());
  if (line_begins || prompt.empty()) prompt.push_back(first_token(vocabulary_));
  const std::int64_t tokens = options_.longest(0), read = std::ssize(prompt) + tokens - 1,
                     most = decoder_.longest();
  if (most > 0 && read > most) {
    throw ConfigError(fmt::format(
        "beam search: a prompt of {} tokens and {} that are written are more than the "
        "model's positions, {}; expected at most {} to be written",
        prompt.size(), tokens, most, std::max<std::int64_t>(0, most + 1 - std::ssize(prompt))));
  }
  PromptedDecoder prompted(decoder_, device_);
  BeamSearch search(prompted, device_, {.begin = prompt.back(), .end = end()}, options_);
  std::vector<FoundText> result;
  std::vector<std::vector<Hypothesis>> all = search.search(std::span(&prompt, 1));
  for (Hypothesis& found : all.front()) {
    TextDecoder own = decoder;
    std::string text;
    for (const std::int32_t id : found.tokens) {
      if (id != end()) text += own.next(id);
    }
    text += own.finish();
    result.push_back({std::move(text), std::move(found)});
  }
  return result;
}

}  // namespace carousel
