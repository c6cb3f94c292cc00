#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace carousel {

/// How a model of subwords is come by: read, or else learnt from the text.
struct SubwordOptions {
  enum class Kind : std::uint8_t { unigram, bpe };
  std::filesystem::path file;  ///< SentencePiece's ".model"; empty: learnt
  Kind kind = Kind::unigram;
  std::int64_t size = 8000;  ///< pieces, those for unknown text and the ends of lines included
  bool operator==(const SubwordOptions&) const = default;
};

/// A model of SentencePiece: cuts lines into pieces of words. It normalises text as it was trained
/// to, which by default is NFKC, runs of blanks as one, and none at either end: the pieces of a line
/// give the normalised line. A blank is part of the piece that follows it, as U+2581.
class Subwords {
 public:
  enum class Piece : std::uint8_t {
    text,
    byte,  ///< "<0xE9>": a byte of a character that has no piece
    unknown,
    unused  ///< never the piece of a text: the ends of lines, which are the vocabulary's own
  };

  /// FormatError, with the name, for bytes that are no model.
  static Subwords parse(std::string model, const std::string& name);
  /// IoError for a file that cannot be read.
  static Subwords read(const std::string& path);
  /// Learns a model: the same lines give the same model. ConfigError if the text does not suffice
  /// for so many pieces.
  static Subwords learn(const std::vector<std::string>& lines, const SubwordOptions& options);

  const std::string& model() const { return model_; }  ///< the bytes of the file
  std::int64_t size() const;
  std::string piece(std::int32_t number) const;
  Piece kind(std::int32_t number) const;
  std::vector<std::int32_t> cut(std::string_view line) const;  ///< into numbers of pieces

 private:
  struct Processor;
  Subwords(std::string model, std::shared_ptr<const Processor> processor);
  std::string model_;
  std::shared_ptr<const Processor> processor_;
};

/// Bytes as text (RFC 4648, section 4), and back: FormatError for what is none.
std::string base64(std::string_view bytes);
std::string from_base64(std::string_view text);

}  // namespace carousel
