#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace carousel {

/// Row i of rows of `width` numbers.
inline std::span<double> row_of(std::vector<double>& rows, std::size_t i, std::size_t width) {
  return std::span(rows).subspan(i * width, width);
}
inline std::span<const double> row_of(const std::vector<double>& rows, std::size_t i,
                                      std::size_t width) {
  return std::span(rows).subspan(i * width, width);
}

/// The probabilities of a hidden Markov model of S states that emit V tokens. Rows have W numbers, S
/// rounded up to kLanes; those from S on are 0.
struct HmmTables {
  static constexpr std::int64_t kLanes = 8;

  HmmTables() = default;
  HmmTables(std::int64_t state_count, std::int64_t token_count);

  std::int64_t states = 0, vocabulary = 0, width = 0;  ///< S, V, W
  std::vector<double> start;       ///< [W] of the state of a sequence's first token
  std::vector<double> transition;  ///< [W, W] row i: of the state after state i
  std::vector<double> emission;    ///< [V, W] row x: of the token x in each state

  std::span<double> transition_from(std::int64_t i) { return row_of(transition, at(i), at(width)); }
  std::span<const double> transition_from(std::int64_t i) const {
    return row_of(transition, at(i), at(width));
  }
  std::span<double> emission_of(std::int64_t x) { return row_of(emission, at(x), at(width)); }
  std::span<const double> emission_of(std::int64_t x) const {
    return row_of(emission, at(x), at(width));
  }

 private:
  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }
};

/// y[j] = Σ_i x[i] · matrix[i][j], over i in ascending order, for x [W], matrix [W, W] and y [W].
void row_times_matrix(std::span<const double> x, std::span<const double> matrix,
                      std::span<double> y);

/// The sum of W numbers, in an order that is the same on every machine.
double lane_sum(std::span<const double> values);

/// The transpose of [W, W].
std::vector<double> transposed(std::span<const double> matrix, std::int64_t width);

}  // namespace carousel
