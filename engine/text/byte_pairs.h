#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace carousel {

/// A byte-level BPE model as files have it.
struct BytePairModel {
  struct Merge {
    std::int32_t left, right;  ///< ids
    bool operator==(const Merge&) const = default;
  };
  std::vector<std::string> tokens;  ///< by id, as bytes
  std::vector<Merge> merges;        ///< in the order of learning: earlier ones go first

  /// Reads GPT-2's vocab.json and merges.txt from a folder. IoError for what cannot be read;
  /// FormatError, with file and line or token, for what is no such file: ids that are not 0 … V − 1, a
  /// token whose characters stand for no bytes, a merge whose parts or whole are no tokens.
  static BytePairModel read(const std::filesystem::path& folder);
};

/// Cuts words (Gpt2Words) into tokens: first into bytes, of which the two neighbours whose merge was
/// learnt first become one, the left ones first, until none are left to merge. Any bytes have tokens,
/// and these give the bytes back.
///
/// Source   Sennrich et al. 2016, arXiv:1508.07909, section 3.2; Radford et al. 2019, section 2.2.
class BytePairs {
 public:
  /// FormatError if a byte is no token, or if a merge has no token.
  BytePairs(std::span<const std::string> tokens, std::vector<BytePairModel::Merge> merges);

  std::vector<std::int32_t> cut(std::string_view word) const;
  const std::vector<BytePairModel::Merge>& merges() const { return merges_; }

 private:
  struct Product {
    std::int32_t rank, whole;
  };
  const Product* product(std::int32_t left, std::int32_t right) const;

  std::array<std::int32_t, 256> of_byte_{};
  std::int32_t end_of_text_ = -1;  ///< of kEndOfText, which no merge makes; −1: there is none
  std::vector<BytePairModel::Merge> merges_;
  std::unordered_map<std::uint64_t, Product> products_;  ///< by both ids
};

}  // namespace carousel
