#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace carousel {

/// The token of GPT-2 that ends a document, as it stands in a text.
inline constexpr std::string_view kEndOfText = "<|endoftext|>";

/// Cuts a text into the words in which GPT-2 merges bytes. From left to right, each is the first of
/// these that there is:
///   's 't 're 've 'm 'll 'd
///   letters; numbers; or other characters that are no white space; a blank before them is theirs
///   white space: all of it at the end of the text, else all but its last character, which stands
///   alone unless it is a blank that belongs to what follows
/// The words together are the text. kEndOfText is a word wherever it stands, and ends the one before.
/// Bytes that are no UTF-8 count as other characters.
///
/// Source   Radford et al. 2019, Language Models are Unsupervised Multitask Learners, section 2.2; the
///          expression 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ of the
///          published encoder.py.
class Gpt2Words {
 public:
  static constexpr char32_t kNoCharacter = 0xFFFFFFFFU;  ///< the code of a byte that is no UTF-8
  using Take = std::function<void(std::string_view)>;

  /// Reads the next character, whose bytes are `sequence`, and passes on the words that it ends.
  void next(std::string_view sequence, char32_t code, const Take& take);
  /// Passes on what is left: the text is over.
  void finish(const Take& take);
  std::size_t held() const { return word_.size(); }  ///< bytes of the word that is being read

 private:
  enum class Kind : std::uint8_t { none, letters, numbers, others, space, apostrophe };
  static Kind kind_of(char32_t code);
  void read_held_back(const Take& take);
  void read(std::string_view sequence, Kind kind, const Take& take);
  void begin(std::string_view sequence, Kind kind);
  void pass_on(const Take& take);
  void end_space(std::string_view sequence, Kind kind, const Take& take);
  void after_apostrophe(std::string_view sequence, Kind kind, const Take& take);

  Kind kind_ = Kind::none;
  std::string word_;
  std::size_t last_ = 0;    ///< of white space: where its last character begins
  std::size_t marked_ = 0;  ///< bytes of kEndOfText that were read last and are held back
};

}  // namespace carousel
