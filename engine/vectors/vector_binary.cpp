// word2vec's binary form.
#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <vector>

#include "engine/vectors/vector_formats.h"

namespace carousel {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

class BinaryVectors final : public StreamedVectors {
 public:
  explicit BinaryVectors(const std::filesystem::path& path)
      : StreamedVectors(path, "byte 0", sizeof(float)) {}

 private:
  void read_all(const Take& take) const override {
    Pieces pieces = this->pieces();
    std::vector<float> vector(static_cast<std::size_t>(width_));
    const std::size_t bytes = vector.size() * sizeof(float);
    std::string word;
    for (std::int64_t i = 0; i < words_; ++i) {
      skip_newline(pieces);
      byte_ = pieces.at();
      const auto found = pieces.until(' ', kLongestWord + 1);
      if (!found) refuse(fmt::format("no blank within {} bytes ends the word", kLongestWord));
      word = *found;
      if (pieces.left() < bytes) {
        refuse(fmt::format("the file ends within word {} of {}", i + 1, words_));
      }
      std::memcpy(vector.data(), pieces.peek(bytes).data(), bytes);
      pieces.skip(bytes);
      take(word, vector);
    }
    skip_newline(pieces);
    byte_ = pieces.at();
    if (pieces.left() > 0) {
      refuse(fmt::format("{} bytes more after the {} words that byte 0 promises", pieces.left(),
                         words_));
    }
  }
  static void skip_newline(Pieces& pieces) {
    if (pieces.peek(1) == "\n") pieces.skip(1);
  }
  std::string place() const override { return fmt::format("byte {}", byte_); }

  mutable std::size_t byte_ = 0;  ///< of the word that is being read
};

}  // namespace

std::unique_ptr<VectorFile> open_binary_vectors(const std::filesystem::path& path) {
  return std::make_unique<BinaryVectors>(path);
}

}  // namespace carousel
