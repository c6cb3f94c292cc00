#include "engine/text/vocabulary.h"

#include <fmt/format.h>

#include "engine/text/tokens.h"
#include "engine/text/utf8.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace

Vocabulary::Vocabulary(const TokenRules& rules) : rules_(rules) {
  of_byte_.fill(-1);
  rules_.unknown = rules_.unknown && may_be_unknown(rules_.kind);
  if (rules_.kind == TokenKind::byte) {
    for (int byte = 0; byte < 256; ++byte) add(std::string(1, static_cast<char>(byte)), 0);
  }
  if (rules_.unknown) add_special(kUnknownText, unknown_);
  if (rules_.kind != TokenKind::byte_bpe) add_line_ends();
  if (rules_.kind == TokenKind::sentencepiece && rules_.newline == Newline::text) add("\n", 0);
}

void Vocabulary::add_line_ends() {
  if (rules_.newline == Newline::line) add_special(kBeginText, begin_);
  if (rules_.newline != Newline::text) add_special(kEndText, end_);
}

bool Vocabulary::add(std::string_view token, std::int64_t count) {
  const auto id = static_cast<std::int32_t>(tokens_.size());
  if (!ids_.emplace(token, id).second) return false;
  tokens_.emplace_back(token);
  counts_.push_back(count);
  if (token.size() == 1) of_byte_[static_cast<unsigned char>(token[0])] = id;
  return true;
}

void Vocabulary::take(Subwords model) {
  subwords_ = std::make_shared<const Subwords>(std::move(model));
  for (std::int32_t number = 0; number < subwords_->size(); ++number) {
    const Subwords::Piece kind = subwords_->kind(number);
    std::int32_t id = kind == Subwords::Piece::unknown ? unknown_ : -1;
    if (kind == Subwords::Piece::text || kind == Subwords::Piece::byte) {
      const std::string piece = subwords_->piece(number);
      add(piece, 0);
      id = this->id(piece);
      is_byte_.resize(static_cast<std::size_t>(size()));
      is_byte_[static_cast<std::size_t>(id)] = kind == Subwords::Piece::byte;
    }
    of_piece_.push_back(id);
  }
}

void Vocabulary::take(const BytePairModel& model) {
  for (const std::string& token : model.tokens) {
    const bool reserved = (token == kBeginText && rules_.newline == Newline::line) ||
                          (token == kEndText && rules_.newline != Newline::text);
    if (!reserved && add(token, 0)) continue;
    throw FormatError(
        fmt::format("the token '{}' of byte-level BPE {}", escaped(token),
                    reserved ? "is reserved for the ends of lines" : "is there twice"));
  }
  byte_pairs_ = std::make_shared<const BytePairs>(tokens_, model.merges);
  add_line_ends();
}

std::vector<std::int32_t> Vocabulary::pieces(std::string_view text) const {
  if (byte_pairs_ != nullptr) return byte_pairs_->cut(text);
  std::vector<std::int32_t> ids = subwords_->cut(text);
  for (std::int32_t& id : ids) id = of_piece_[static_cast<std::size_t>(id)];
  return ids;
}

void Vocabulary::add_special(std::string_view token, std::int32_t& id) {
  id = static_cast<std::int32_t>(tokens_.size());
  add(token, 0);
}

std::int32_t Vocabulary::id(std::string_view token) const {
  if (token.size() == 1) return of_byte_[static_cast<unsigned char>(token[0])];
  const auto found = ids_.find(token);
  return found == ids_.end() ? -1 : found->second;
}

const std::string& Vocabulary::token(std::int32_t id) const {
  if (id < 0 || id >= size()) {
    throw FormatError(fmt::format("vocabulary: id {} is outside the {} tokens", id, size()));
  }
  return tokens_[static_cast<std::size_t>(id)];
}

Encoded Vocabulary::encode(std::string_view text, const std::string& name) const {
  MemoryTokenWriter writer(*this);
  Tokenizer tokenizer(rules_, name, writer);
  tokenizer.feed(text);
  tokenizer.pause();
  return writer.encoded();
}

void Vocabulary::append_piece(std::int32_t id, bool line_begins, std::string& text) const {
  constexpr std::string_view kBlank = "\xE2\x96\x81";  // U+2581
  const std::string& piece = token(id);
  if (is_byte_[static_cast<std::size_t>(id)]) {  // "<0xE9>"
    text += static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16));
    return;
  }
  for (std::size_t i = 0; i < piece.size();) {
    const bool blank = std::string_view(piece).substr(i).starts_with(kBlank);
    if (!blank) {
      text += piece[i];
    } else if (i > 0 || !line_begins) {
      text += ' ';
    }
    i += blank ? kBlank.size() : 1;
  }
}

void Vocabulary::append_text(std::int32_t id, bool line_begins, std::string& text) const {
  const std::string& piece = token(id);  // checks the id
  if (id == begin_) return;
  if (id == end_) {
    text += '\n';
    return;
  }
  if (subwords_ != nullptr) {
    append_piece(id, line_begins, text);
    return;
  }
  if (!line_begins && rules_.kind == TokenKind::word) text += ' ';
  if (!line_begins && rules_.kind == TokenKind::line) text += '\n';
  text += piece;
}

std::string Vocabulary::decode(std::span<const std::int32_t> ids) const {
  std::string text;
  for (const std::int32_t id : ids) append_text(id, text.empty() || text.back() == '\n', text);
  return text;
}

std::string TextDecoder::next(std::int32_t id) {
  std::string piece;
  vocabulary_.append_text(id, line_begins_, piece);
  if (!piece.empty()) line_begins_ = piece.back() == '\n';
  if (!holds_bytes()) return piece;
  pending_ += piece;
  return take_whole(false);
}

std::string TextDecoder::finish() {
  line_begins_ = true;
  return take_whole(true);
}

std::string TextDecoder::take_whole(bool last) {
  std::string whole;
  while (!pending_.empty()) {
    const Utf8Sequence s = utf8_sequence(pending_);
    if (s.status == Utf8Sequence::Status::cut && !last) break;
    whole += s.status == Utf8Sequence::Status::whole ? std::string_view(pending_).substr(0, s.bytes)
                                                     : kReplacement;
    pending_.erase(0, s.bytes);
  }
  return whole;
}

}  // namespace carousel
