#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tape/tensor.h"
#include "engine/text/hash.h"
#include "engine/vectors/vector_file.h"

namespace carousel {

/// A direction: the sum of the unit vectors of some words, less that of others.
struct WordQuery {
  std::vector<std::int32_t> plus, minus{};
};

struct Neighbour {
  std::int32_t word = -1;
  float cosine = 0;
};

/// Words and where they lie, to be asked which are near one another. A word whose vector is zero has
/// no direction: its cosine with anything is 0.
class WordSpace {
 public:
  enum class Case : std::uint8_t { told_apart, ignored };
  /// Reads the file. The neighbours are found on the device.
  WordSpace(const VectorFile& file, const Device& device, Case letters = Case::told_apart);

  std::int64_t words() const { return std::ssize(words_); }
  std::int64_t width() const { return width_; }
  const std::string& word(std::int32_t id) const { return words_[static_cast<std::size_t>(id)]; }
  /// Its place in the file, from 0; −1 if it is not there. Where case is ignored, that of the first
  /// word that is the same but for case.
  std::int32_t find(std::string_view word) const;
  /// As it is in the file.
  std::span<const float> vector(std::int32_t id) const;
  double cosine(std::int32_t a, std::int32_t b) const;

  /// Of each query the `count` words of largest cosine, without those that it names, the nearest
  /// first; fewer where there are not so many. `among`: only the first words of the file; 0: all.
  std::vector<std::vector<Neighbour>> nearest(std::span<const WordQuery> queries,
                                              std::int64_t count, std::int64_t among = 0) const;

  static constexpr std::int64_t kMostNeighbours = 1024;

 private:
  std::span<const float> unit(std::int32_t id) const;
  std::vector<float> direction(const WordQuery& query) const;
  std::vector<std::vector<Neighbour>> nearest_at_once(std::span<const WordQuery> queries,
                                                      std::int64_t count, std::int64_t rows) const;

  Device device_;
  Case letters_;
  std::int64_t width_;
  std::vector<std::string> words_;
  std::vector<float> rows_, units_;
  Tensor table_;  ///< [V, E]: units_ on the device
  TokenMap<std::int32_t> ids_;
};

}  // namespace carousel
