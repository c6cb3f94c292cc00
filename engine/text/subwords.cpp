#include "engine/text/subwords.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <array>
#include <unordered_map>
#include <utility>

#include "engine/files/input_file.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

constexpr std::string_view kDigits =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// SentencePiece reads the lines through this.
class LineIterator final : public sentencepiece::SentenceIterator {
 public:
  explicit LineIterator(const std::vector<std::string>& lines) : lines_(lines) {}
  bool done() const override { return next_ == lines_.size(); }
  void Next() override { ++next_; }
  const std::string& value() const override { return lines_[next_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::vector<std::string>& lines_;
  std::size_t next_ = 0;
};

/// What a failed training says, without the place in SentencePiece's sources, and without the options
/// of its program that it names: "Internal: ./src/a.cc(1) [x == y] Vocabulary size too high".
std::string reason(std::string text) {
  const std::size_t end = text.find(" Increase vocab_size");
  if (end != std::string::npos) text.resize(end);
  const std::size_t place = text.rfind("] ");
  return place == std::string::npos ? text : text.substr(place + 2);
}

}  // namespace

struct Subwords::Processor {
  sentencepiece::SentencePieceProcessor processor;
};

Subwords::Subwords(std::string model, std::shared_ptr<const Processor> processor)
    : model_(std::move(model)), processor_(std::move(processor)) {}

Subwords Subwords::parse(std::string model, const std::string& name) {
  auto processor = std::make_shared<Processor>();
  const auto status = processor->processor.LoadFromSerializedProto(model);
  if (model.empty() || !status.ok()) {
    throw FormatError(fmt::format("{}: not a model of SentencePiece", name));
  }
  return {std::move(model), std::move(processor)};
}

Subwords Subwords::read(const std::string& path) {
  const InputFile file(path);
  std::string model(file.size(), '\0');
  file.read(0, model.data(), model.size());
  return parse(std::move(model), path);
}

Subwords Subwords::learn(const std::vector<std::string>& lines, const SubwordOptions& options) {
  LineIterator iterator(lines);
  std::string model;
  sentencepiece::SetRandomGeneratorSeed(1);
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      {{"model_type", options.kind == SubwordOptions::Kind::bpe ? "bpe" : "unigram"},
       {"vocab_size", std::to_string(options.size)},
       {"num_threads", "1"},  // sums of several threads have no order
       {"character_coverage", "1.0"},
       {"max_sentence_length", "65536"},
       {"minloglevel", "2"}},
      &iterator, &model);
  if (!status.ok()) {
    throw ConfigError(fmt::format("data.vocabulary_size is {}, and SentencePiece refuses: {}",
                                  options.size, reason(status.ToString())));
  }
  return parse(std::move(model), "SentencePiece");
}

std::int64_t Subwords::size() const { return processor_->processor.GetPieceSize(); }

std::string Subwords::piece(std::int32_t number) const {
  return processor_->processor.IdToPiece(number);
}

Subwords::Piece Subwords::kind(std::int32_t number) const {
  const auto& processor = processor_->processor;
  if (processor.IsUnknown(number)) return Piece::unknown;
  if (processor.IsControl(number) || processor.IsUnused(number)) return Piece::unused;
  return processor.IsByte(number) ? Piece::byte : Piece::text;
}

std::vector<std::int32_t> Subwords::cut(std::string_view line) const {
  std::vector<int> numbers;
  const auto status = processor_->processor.Encode({line.data(), line.size()}, &numbers);
  if (!status.ok()) throw FormatError("SentencePiece: " + status.ToString());
  return {numbers.begin(), numbers.end()};
}

std::string base64(std::string_view bytes) {
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t count = std::min<std::size_t>(3, bytes.size() - i);
    std::uint32_t bits = 0;
    for (std::size_t k = 0; k < 3; ++k) {
      bits = bits << 8 | (k < count ? static_cast<unsigned char>(bytes[i + k]) : 0U);
    }
    for (std::size_t k = 0; k < 4; ++k) {
      text += k <= count ? kDigits[bits >> (18 - 6 * k) & 63U] : '=';
    }
  }
  return text;
}

std::string from_base64(std::string_view text) {
  std::string bytes;
  if (text.size() % 4 != 0) throw FormatError("not base64: its length is no multiple of four");
  for (std::size_t i = 0; i < text.size(); i += 4) {
    std::uint32_t bits = 0;
    std::size_t filled = 0;
    for (std::size_t k = 0; k < 4; ++k) {
      const std::size_t digit = kDigits.find(text[i + k]);
      const bool pads = text[i + k] == '=' && i + 4 == text.size() && k >= 2;
      if (digit == std::string_view::npos ? !pads : filled < k) {
        throw FormatError(fmt::format("not base64: '{}' at byte {}", text[i + k], i + k));
      }
      if (!pads) ++filled;
      bits = bits << 6 | (pads ? 0U : static_cast<std::uint32_t>(digit));
    }
    for (std::size_t k = 0; k + 1 < filled; ++k) {
      bytes += static_cast<char>(bits >> (16 - 8 * k) & 255U);
    }
  }
  return bytes;
}

}  // namespace carousel
