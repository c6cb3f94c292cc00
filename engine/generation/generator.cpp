#include "engine/generation/generator.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/common/check.h"

namespace carousel {

Decoder& decoder_of(Model& model, const char* purpose) {
  if (Decoder* const decoder = model.decoder()) return *decoder;
  throw ConfigError(fmt::format("{}: the model writes no text", purpose));
}

Generator::Generator(Model& model, const SamplingConfig& config, std::int64_t rows, bool graph)
    : decoder_(decoder_of(model, "generate")),
      config_(config),
      rows_(rows),
      device_(model.parameters().flat_weights().device()),
      arena_(device_),
      tape_(arena_, false),
      state_(decoder_.decoding_state(rows)),
      token_(device_, {1, rows}, DType::i32),
      draw_(device_, {1}, DType::i64),
      longest_(decoder_.longest()),
      read_(static_cast<std::size_t>(rows)),
      graphs_(device_, graph, [this](const std::string& why) { refusal_ = why; }),
      chosen_(static_cast<std::size_t>(rows)) {}

Tensor Generator::read(const Field& token) {
  tape_.clear();
  arena_.reset();
  Pass pass(tape_);
  const Tensor logits = decoder_.logits(pass, token, state_);
  pass.finish();
  return logits;
}

void Generator::begin(std::span<const std::vector<std::int32_t>> prompts) {
  state_.reset();
  for (std::vector<std::int32_t>& text : read_) text.clear();
  drawn_ = 0;
  go_on(prompts);
}

void Generator::go_on(std::span<const std::vector<std::int32_t>> prompts) {
  const auto shortest = std::min_element(
      prompts.begin(), prompts.end(),
      [](const auto& one, const auto& other) { return one.size() < other.size(); });
  if (std::ssize(prompts) != rows_ || shortest->empty()) {
    throw ShapeError(
        fmt::format("generate: {} prompts, the shortest of {} tokens, expected {} of "
                    "at least one token",
                    prompts.size(), prompts.empty() ? 0 : shortest->size(), rows_));
  }
  if (remember(prompts)) {
    begin_again();
  } else {
    read(prompts);
  }
}

bool Generator::remember(std::span<const std::vector<std::int32_t>> texts) {
  if (longest_ == 0) return false;
  bool shortened = false;
  for (std::size_t row = 0; row < texts.size(); ++row) {
    std::vector<std::int32_t>& text = read_[row];
    text.insert(text.end(), texts[row].begin(), texts[row].end());
    if (std::ssize(text) <= longest_) continue;
    text.erase(text.begin(), text.end() - std::max<std::int64_t>(1, longest_ / 2));
    shortened = true;
  }
  return shortened;
}

void Generator::begin_again() {
  state_.reset();
  read(read_);
}

void Generator::read(std::span<const std::vector<std::int32_t>> texts) {
  std::size_t longest = 0;
  std::vector<std::int32_t> lengths;
  for (const auto& text : texts) {
    longest = std::max(longest, text.size());
    lengths.push_back(static_cast<std::int32_t>(text.size()));
  }
  const std::size_t rows = texts.size();
  std::vector<std::int32_t> ids(longest * rows, 0);
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t t = 0; t < texts[row].size(); ++t) ids[t * rows + row] = texts[row][t];
  }
  Field token{.name = "token",
              .values = Tensor(device_, {static_cast<std::int64_t>(longest), rows_}, DType::i32)};
  copy_from_host(token.values, ids.data());
  if (*std::min_element(lengths.begin(), lengths.end()) < lengths.front() ||
      static_cast<std::size_t>(lengths.front()) < longest) {
    token.lengths = Tensor(device_, {rows_}, DType::i32);
    copy_from_host(token.lengths, lengths.data());
  }
  logits_ = read(token);
}

std::vector<std::vector<double>> Generator::probabilities() const {
  const std::vector<float> logits = host_floats(logits_);
  const std::size_t vocabulary = logits.size() / static_cast<std::size_t>(rows_);
  std::vector<std::vector<double>> result;
  for (std::size_t first = 0; first < logits.size(); first += vocabulary) {
    result.push_back(softmax(std::span(logits).subspan(first, vocabulary)));
  }
  return result;
}

const std::vector<std::int32_t>& Generator::next() {
  copy_from_host(draw_, &drawn_);
  ++drawn_;
  const bool full = longest_ > 0 &&
                    std::any_of(read_.begin(), read_.end(),
                                [this](const auto& text) { return std::ssize(text) >= longest_; });
  if (full) {
    choose_tokens(logits_, config_, draw_, token_);
  } else {
    // Chooses and reads what it chose, so that a step is one graph.
    const StepGraphs::Key key{reinterpret_cast<std::uintptr_t>(logits_.data())};
    logits_ = graphs_.run(key, [this] {
      choose_tokens(logits_, config_, draw_, token_);
      return read({.name = "token", .values = token_});
    });
  }
  copy_to_host(token_, chosen_.data());  // waits for the device: tokens are shown as they come
  if (std::any_of(chosen_.begin(), chosen_.end(), [](std::int32_t id) { return id < 0; })) {
    throw Error("generate: the model's logits are not finite numbers");
  }
  if (longest_ > 0) {
    std::vector<std::vector<std::int32_t>> each;
    for (const std::int32_t id : chosen_) each.push_back({id});
    remember(each);
  }
  if (full) begin_again();
  return chosen_;
}

}  // namespace carousel
