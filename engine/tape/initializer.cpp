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

double dot(std::span<const double> a, std::span<const double> b) {
  double sum = 0;
  for (std::size_t k = 0; k < a.size(); ++k) sum += a[k] * b[k];
  return sum;
}

/// Makes vector i of `vectors`, each of `length`, orthogonal to those before it, which are
/// orthonormal (modified Gram-Schmidt, twice over), and of length 1. Returns the length it had.
double orthonormalize(std::vector<double>& vectors, std::size_t i, std::size_t length) {
  const auto row = [&](std::size_t j) { return std::span(vectors).subspan(j * length, length); };
  for (int pass = 0; pass < 2; ++pass) {
    for (std::size_t j = 0; j < i; ++j) {
      const double along = dot(row(i), row(j));
      for (std::size_t k = 0; k < length; ++k) row(i)[k] -= along * row(j)[k];
    }
  }
  const double norm = std::sqrt(dot(row(i), row(i)));
  for (double& v : row(i)) v /= norm;
  return norm;
}

void fill_orthogonal(std::span<float> block, std::size_t rows, std::size_t columns, double scale,
                     Draws& draws) {
  const std::size_t count = std::min(rows, columns), length = std::max(rows, columns);
  std::vector<double> vectors(count * length);
  for (double& v : vectors) v = draws.normal();
  for (std::size_t i = 0; i < count; ++i) orthonormalize(vectors, i, length);
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < columns; ++c) {
      const double v = rows <= columns ? vectors[r * length + c] : vectors[c * length + r];
      block[r * columns + c] = static_cast<float>(scale * v);
    }
  }
}

/// The largest eigenvalue of the symmetric tridiagonal matrix with this diagonal and, beside it,
/// off[0], off[1], …: by bisection, counting signs (Sturm's sequence).
double largest_eigenvalue(const std::vector<double>& diagonal, const std::vector<double>& off) {
  double low = diagonal.front(), high = low;  // Gershgorin's circles
  for (std::size_t i = 0; i < diagonal.size(); ++i) {
    low = std::max(low, diagonal[i]);
    high = std::max(high, diagonal[i] + (i > 0 ? off[i - 1] : 0) + off[i]);
  }
  const auto all_below = [&](double x) {
    double pivot = diagonal.front() - x;
    for (std::size_t i = 1; i < diagonal.size() && pivot < 0; ++i) {
      pivot = diagonal[i] - x - off[i - 1] * off[i - 1] / pivot;
    }
    return pivot < 0;
  };
  for (int halving = 0; halving < 100; ++halving) {
    const double middle = (low + high) / 2;
    (all_below(middle) ? high : low) = middle;
  }
  return high;
}

/// The same of any symmetric matrix: Lanczos' method with full orthogonalisation. Random vectors
/// find the largest eigenvalue long before 256 steps; the error falls with the square of the steps
/// even where the next eigenvalue is close.
double largest_eigenvalue(const std::vector<double>& matrix, std::size_t n, Draws& draws) {
  const std::size_t steps = std::min<std::size_t>(n, 256);
  std::vector<double> basis((steps + 1) * n), diagonal, off;
  const auto vector = [&](std::size_t i) { return std::span(basis).subspan(i * n, n); };
  for (double& v : vector(0)) v = draws.normal();
  orthonormalize(basis, 0, n);
  for (std::size_t k = 0; k < steps; ++k) {
    for (std::size_t r = 0; r < n; ++r) {
      vector(k + 1)[r] = dot(std::span(matrix).subspan(r * n, n), vector(k));
    }
    diagonal.push_back(dot(vector(k + 1), vector(k)));
    const double before = std::sqrt(dot(vector(k + 1), vector(k + 1)));
    off.push_back(orthonormalize(basis, k + 1, n));
    if (off.back() < 1e-12 * before) break;  // the vectors span all that the matrix reaches
  }
  off.back() = 0;
  return largest_eigenvalue(diagonal, off);
}

void fill_unit_eigenvalue(std::span<float> block, std::size_t n, double scale, Draws& draws) {
  std::vector<double> random(n * n), matrix(n * n);
  for (double& v : random) v = draws.normal();  // row i is column i of R
  for (std::size_t r = 0; r < n; ++r) {
    for (std::size_t c = 0; c <= r; ++c) {
      const double product =
          dot(std::span(random).subspan(r * n, n), std::span(random).subspan(c * n, n));
      matrix[r * n + c] = matrix[c * n + r] = product / static_cast<double>(n) + (r == c ? 1 : 0);
    }
  }
  const double factor = scale / largest_eigenvalue(matrix, n, draws);
  for (std::size_t i = 0; i < n * n; ++i) block[i] = static_cast<float>(factor * matrix[i]);
}

void fill_chrono(std::span<float> values, const Initializer& init, Draws& draws) {
  if (!(init.scale > 2)) {
    throw ConfigError("initializer: chrono's longest delay is " + std::to_string(init.scale) +
                      ", expected more than 2 steps");
  }
  for (std::int64_t i = 0; i < init.offset_count; ++i) {
    const auto bias = static_cast<float>(std::log(1 + (init.scale - 2) * draws.uniform()));
    values[static_cast<std::size_t>(init.offset_first + i)] = bias;
    if (init.mirror_first >= 0) values[static_cast<std::size_t>(init.mirror_first + i)] = -bias;
  }
}

void fill(std::span<float> block, std::size_t rows, std::size_t columns, const Initializer& init,
          Draws& draws) {
  using Kind = Initializer::Kind;
  const auto uniform = [&](double a) {
    for (float& v : block) v = static_cast<float>(a * (2 * draws.uniform() - 1));
  };
  const auto normal = [&](double deviation) {
    for (float& v : block) v = static_cast<float>(deviation * draws.normal());
  };
  const auto fan_in = static_cast<double>(columns), fan_out = static_cast<double>(rows);
  switch (init.kind) {
    case Kind::constant:
      std::fill(block.begin(), block.end(), static_cast<float>(init.scale));
      break;
    case Kind::uniform:
      uniform(init.scale);
      break;
    case Kind::xavier:
      uniform(init.scale * std::sqrt(6.0 / (fan_in + fan_out)));
      break;
    case Kind::fan_in:
      uniform(init.scale / std::sqrt(fan_in));
      break;
    case Kind::normal:
      normal(init.scale);
      break;
    case Kind::kaiming:
      normal(init.scale * std::sqrt(2.0 / fan_in));
      break;
    case Kind::orthogonal:
      fill_orthogonal(block, rows, columns, init.scale, draws);
      break;
    case Kind::identity:
      for (std::size_t i = 0; i < std::min(rows, columns); ++i) {
        block[i * columns + i] = static_cast<float>(init.scale);
      }
      break;
    case Kind::unit_eigenvalue:
      if (rows != columns) {
        throw ShapeError("initializer: a block is " + std::to_string(rows) + " by " +
                         std::to_string(columns) + ", expected a square for its eigenvalues");
      }
      fill_unit_eigenvalue(block, rows, init.scale, draws);
      break;
    case Kind::chrono:
      break;  // of the whole bias, not of a block
  }
}

}  // namespace

Initializer pytorch_recurrent(std::int64_t hidden) {
  return {.kind = Initializer::Kind::uniform, .scale = 1 / std::sqrt(static_cast<double>(hidden))};
}

std::span<const NamedInitializer> matrix_initializers() {
  using Kind = Initializer::Kind;
  static constexpr NamedInitializer kTable[] = {
      {.name = "uniform", .kind = Kind::uniform},
      {.name = "normal", .kind = Kind::normal},
      {.name = "xavier", .kind = Kind::xavier},
      {.name = "kaiming", .kind = Kind::kaiming},
      {.name = "orthogonal", .kind = Kind::orthogonal},
      {.name = "identity", .kind = Kind::identity},
      {.name = "unit_eigenvalue", .kind = Kind::unit_eigenvalue, .square = true},
  };
  return kTable;
}

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
  if (init.kind == Initializer::Kind::chrono) fill_chrono(values, init, draws);
  for (std::int64_t r = init.offset_first; r < init.offset_first + init.offset_count; ++r) {
    for (std::size_t c = 0; c < columns; ++c) {
      values[static_cast<std::size_t>(r) * columns + c] += static_cast<float>(init.offset);
    }
  }
  return values;
}

}  // namespace carousel
