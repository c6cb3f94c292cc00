#pragma once

#include <array>
#include <span>
#include <string>
#include <vector>

namespace carousel {

/// Points in a plane.
struct WordMap {
  std::vector<std::array<double, 2>> points;
  std::array<double, 2> share{};  ///< of the variance, along each axis
};

/// The first two principal components of vectors of equal width, at least one: the plane through their
/// mean in which they vary most. On each axis the point farthest from the mean is on the positive side
/// (the first of several), so that a map does not depend on how it was computed. In double, by Jacobi's
/// rotations of the vectors' products with one another: the time grows with the third power of their
/// number.
/// Source: Pearson 1901, Philosophical Magazine 2(11):559; Golub & Van Loan, Matrix Computations,
/// section 8.5 (cyclic Jacobi).
WordMap principal_components(std::span<const std::span<const float>> vectors);

/// The map as an SVG image: a dot and the word beside it for each.
std::string svg(const WordMap& map, std::span<const std::string> words);

}  // namespace carousel
