#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/byte_pairs.h"
#include "engine/text/hash.h"
#include "engine/text/subwords.h"
#include "engine/text/tokenizer.h"

namespace carousel {

/// Token ids of a text, and how many of them stand for tokens that have no id of their own.
struct Encoded {
  std::vector<std::int32_t> ids;
  std::int64_t unknown = 0;
};

/// The tokens a model knows, numbered from 0. First the special ones that its rules call for, in
/// this order: <unk> (not for bytes), <bos> (Newline::line), <eos> (Newline::line and ::eos); then
/// all others by falling count, equal counts by code point (lines by code point alone). For bytes
/// the order is another: the 256 bytes have their values as ids, and <bos> is 256.
///
/// For byte-level BPE the ids are those of its files, and the special tokens follow them.
///
/// For SentencePiece the pieces follow in the order of its model, under Newline::text after a newline;
/// those for the ends of lines and unknown text are the special tokens here.
///
/// As text: a line "carousel vocabulary 1 <kind> newline=<rule> unknown=<yes|no> size=<ids>", then
/// for each id, in order, a line "<token>\t<count>" with the token as escaped() writes it; for SentencePiece a last line
/// "model\t<the model in base64>", for byte-level BPE a line "merge\t<left>\t<right>" for each merge.
class Vocabulary {
 public:
  static constexpr std::string_view kMagic = "carousel vocabulary ";  ///< text() begins with it
  const TokenRules& rules() const { return rules_; }
  std::int64_t size() const { return static_cast<std::int64_t>(tokens_.size()); }

  std::int32_t unknown() const { return unknown_; }  ///< <unk>, or −1 where there is none
  std::int32_t begin() const { return begin_; }      ///< <bos>, or −1
  std::int32_t end() const { return end_; }          ///< <eos>, or −1
  /// The id of a token, specials by their names; −1 if it has none.
  std::int32_t id(std::string_view token) const;
  /// The token as it stands in the text; a special one by its name. `id` is in [0, size()).
  const std::string& token(std::int32_t id) const;
  /// The model that cuts lines into these tokens; null unless they are SentencePiece's.
  const Subwords* subwords() const { return subwords_.get(); }
  /// What cuts words into these tokens; null unless they are those of byte-level BPE.
  const BytePairs* byte_pairs() const { return byte_pairs_.get(); }
  /// The ids of a line or a word, by the one or the other; −1 for what has none.
  std::vector<std::int32_t> pieces(std::string_view text) const;
  /// How often it was counted. For <unk>: how many tokens had no id of their own.
  std::int64_t count(std::int32_t id) const { return counts_.at(static_cast<std::size_t>(id)); }

  /// The ids of a text, cut as a file is, except that a last line without newline stays open: no
  /// <eos> follows, for a prompt is meant to go on. FormatError (its file is `name`) for text that
  /// is not UTF-8 and for a token without an id when there is no <unk>.
  Encoded encode(std::string_view text, const std::string& name = "text") const;

  /// The text of ids: <bos> is nothing, <eos> a newline, <unk> its name, words are joined by single
  /// blanks within a line, lines by newlines. decode(encode(text)) is the text, except for <unk>,
  /// for lines left out and for white space between words. Bytes are returned as they are, UTF-8 or
  /// not. FormatError for an id outside the vocabulary.
  std::string decode(std::span<const std::int32_t> ids) const;

  std::string text() const;           ///< the human-readable form
  std::uint64_t fingerprint() const;  ///< a hash of text()
  void write(const std::string& path) const;

  /// The inverse of text(): parse(v.text()).text() == v.text(). FormatError, with `name` and line.
  static Vocabulary parse(std::string_view text, const std::string& name = "vocabulary");
  static Vocabulary read(const std::string& path);

 private:
  friend class VocabularyCounter;
  explicit Vocabulary(const TokenRules& rules);  ///< the special tokens; for bytes, everything
  bool add(std::string_view token, std::int64_t count);  ///< false if it has an id already
  void add_special(std::string_view token, std::int32_t& id);
  void take(Subwords model);  ///< its pieces, those that are here already stay
  void take(const BytePairModel& model);
  void add_line_ends();
  void append_piece(std::int32_t id, bool line_begins, std::string& text) const;
  void append_text(std::int32_t id, bool line_begins, std::string& text) const;
  friend class TextDecoder;

  TokenRules rules_;
  std::int32_t unknown_ = -1, begin_ = -1, end_ = -1;
  std::vector<std::string> tokens_;
  std::vector<std::int64_t> counts_;
  TokenMap<std::int32_t> ids_;
  std::shared_ptr<const Subwords> subwords_;
  std::shared_ptr<const BytePairs> byte_pairs_;
  std::vector<std::int32_t> of_piece_;       ///< ids by the model's numbers; −1: never cut
  std::vector<bool> is_byte_;                ///< by id: a byte of a character
  std::array<std::int32_t, 256> of_byte_{};  ///< ids of one-byte tokens: most characters
};

/// The rules as the text of a vocabulary has them: "char newline=text unknown=yes".
std::string text(const TokenRules& rules);

/// Text from ids that arrive one at a time, for a terminal. It returns whole UTF-8 sequences: bytes
/// are held back until their sequence is complete, and U+FFFD replaces bytes that are not UTF-8.
/// For all other kinds the pieces together are the text that decode() gives.
class TextDecoder {
 public:
  explicit TextDecoder(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {}
  std::string next(std::int32_t id);
  std::string finish();  ///< the bytes still held back; afterwards a new text may begin

 private:
  std::string take_whole(bool last);
  bool holds_bytes() const {
    const TokenKind kind = vocabulary_.rules().kind;
    return kind == TokenKind::byte || kind == TokenKind::sentencepiece ||
           kind == TokenKind::byte_bpe;
  }
  const Vocabulary& vocabulary_;
  bool line_begins_ = true;
  std::string pending_;
};

}  // namespace carousel
