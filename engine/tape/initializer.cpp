#include "engine/tape/initializer.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <span>
#include <utility>

#include "kernels/common/check.h"
#include "kernels/common/random.h"

namespace carousel {
namespace {

/// Uniform numbers in (0, 1) with 32 bits each, in order.
class Draws {
 public:
  Draws(std::uint64_t seed, std::uint64_t stream) : source_{.seed = seed, .stream = stream} {}

  double uniform() {
    if (next_ == 4) words_ = source_.words(block_++, 0), next_ = 0;
    return (static_cast<double>(words_[next_++]) + 0.5) * 0x1p-32;
  }

  /// Box & Muller 1958.
  double normal() {
    const double radius = std::sqrt(-2 * std::log(uniform()));
    return radius * std::cos(2 * std::numbers::pi * uniform());
  }

 private:
  RandomSource source_;
  std::array<std::uint32_t, 4> words_{};
  std::uint64_t block_ = 0;
  std::size_t next_ = 4;
};

/// Modified Gram-Schmidt, twice over, on `count` vectors of `length`: normal vectors in, orthonormal
/// ones out, uniformly distributed over all such sets.
void orthonormalize(std::vector<double>& vectors, std::size_t count, std::size_t length) {
  const auto row = [&](std::size_t i) { return std::span(vectors).subspan(i * length, length); };
  for (std::size_t i = 0; i < count; ++i) {
    for (int pass = 0; pass < 2; ++pass) {
      for (std::size_t j = 0; j < i; ++j) {
        double dot = 0;
        for (std::size_t k = 0; k < length; ++k) dot += row(i)[k] * row(j)[k];
        for (std::size_t k = 0; k < length; ++k) row(i)[k] -= dot * row(j)[k];
      }
    }
    double square = 0;
    for (const double v : row(i)) square += v * v;
    for (double& v : row(i)) v /= std::sqrt(square);
  }
}

void fill_orthogonal(std::span<float> block, std::size_t rows, std::size_t columns, double scale,
                     Draws& draws) {
  const std::size_t count = std::min(rows, columns), length = std::max(rows, columns);
  std::vector<double> vectors(count * length);
  for (double& v : vectors) v = draws.normal();
  orthonormalize(vectors, count, length);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < columns; ++c) {
      const double v = rows <= columns ? vectors[r * length + c] : vectors[c * length + r];
      block[r * columns + c] = static_cast<float>(scale * v);
    }
  }
}

void fill(std::span<float> block, std::size_t rows, std::size_t columns, const Initializer& init,
          Draws& draws) {
  using Kind = Initializer::Kind;
  const double xavier = std::sqrt(6.0 / static_cast<double>(rows + columns));
  switch (init.kind) {
    case Kind::constant:
      std::fill(block.begin(), block.end(), static_cast<float>(init.scale));
      break;
    case Kind::uniform:
    case Kind::xavier: {
      const double a = init.scale * (init.kind == Kind::xavier ? xavier : 1.0);
      for (float& v : block) v = static_cast<float>(a * (2 * draws.uniform() - 1));
      break;
    }
    case Kind::normal:
      for (float& v : block) v = static_cast<float>(init.scale * draws.normal());
      break;
    case Kind::orthogonal:
      fill_orthogonal(block, rows, columns, init.scale, draws);
      break;
  }
}

}  // namespace

std::vector<float> initial_values(const Initializer& init, const Shape& shape, std::uint64_t seed,
                                  std::uint64_t stream) {
  const auto size = static_cast<std::size_t>(shape.size());
  const auto blocks = static_cast<std::size_t>(init.blocks);
  const auto rows = static_cast<std::size_t>(shape.rank() == 0 ? 1 : shape[0]);
  if (blocks == 0 || rows % blocks != 0) {
    throw ShapeError("initializer: " + std::to_string(rows) + " rows do not divide into " +
                     std::to_string(blocks) + " blocks");
  }
  std::vector<float> values(size);
  Draws draws(seed, stream);
  const std::size_t columns = rows == 0 ? 0 : size / rows;
  for (std::size_t b = 0; b < blocks && size != 0; ++b) {
    const std::size_t block_size = size / blocks;
    fill(std::span(values).subspan(b * block_size, block_size), rows / blocks, columns, init,
         draws);
  }
  for (std::int64_t r = init.offset_first; r < init.offset_first + init.offset_count; ++r) {
    for (std::size_t c = 0; c < columns; ++c) {
      values[static_cast<std::size_t>(r) * columns + c] += static_cast<float>(init.offset);
    }
  }
  return values;
}

}  // namespace carousel
