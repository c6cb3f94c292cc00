#include "engine/vectors/word_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/text/utf8.h"

namespace carousel {
namespace {

constexpr int kSweeps = 60;  // of which fewer than ten are usual
constexpr double kWidth = 800, kHeight = 600, kMargin = 60;

/// A symmetric matrix, and the rotations that have made it diagonal.
class Jacobi {
 public:
  Jacobi(std::vector<double> matrix, std::size_t size)
      : size_(size), matrix_(std::move(matrix)), vectors_(size * size) {
    for (std::size_t i = 0; i < size_; ++i) vectors_[i * size_ + i] = 1;
    for (int sweep = 0; sweep < kSweeps && !diagonal(); ++sweep) {
      for (std::size_t p = 0; p + 1 < size_; ++p) {
        for (std::size_t q = p + 1; q < size_; ++q) rotate(p, q);
      }
    }
  }
  double value(std::size_t i) const { return matrix_[i * size_ + i]; }
  double vector(std::size_t i, std::size_t row) const { return vectors_[row * size_ + i]; }

 private:
  double& at(std::size_t row, std::size_t column) { return matrix_[row * size_ + column]; }
  bool diagonal() const {
    double off = 0, on = 0;
    for (std::size_t i = 0; i < matrix_.size(); ++i) {
      (i % (size_ + 1) == 0 ? on : off) += matrix_[i] * matrix_[i];
    }
    return off <= 1e-30 * on;
  }
  /// Turns rows and columns p and q such that their common element becomes 0.
  void rotate(std::size_t p, std::size_t q) {
    if (at(p, q) == 0) return;
    const double theta = (at(q, q) - at(p, p)) / (2 * at(p, q));
    const double tangent =
        std::copysign(1.0, theta) / (std::abs(theta) + std::sqrt(theta * theta + 1));
    const double cosine = 1 / std::sqrt(tangent * tangent + 1), sine = tangent * cosine;
    const auto turn = [&](double& a, double& b) {
      const double before = a;
      a = cosine * before - sine * b;
      b = sine * before + cosine * b;
    };
    for (std::size_t i = 0; i < size_; ++i) turn(at(i, p), at(i, q));
    for (std::size_t i = 0; i < size_; ++i) turn(at(p, i), at(q, i));
    for (std::size_t i = 0; i < size_; ++i) {
      turn(vectors_[i * size_ + p], vectors_[i * size_ + q]);
    }
  }

  std::size_t size_;
  std::vector<double> matrix_, vectors_;
};

/// The products of vectors with one another, less their mean.
std::vector<double> centred_products(std::span<const std::span<const float>> vectors) {
  const std::size_t count = vectors.size(), width = vectors.front().size();
  std::vector<std::vector<double>> rows;
  for (const auto& vector : vectors) rows.emplace_back(vector.begin(), vector.end());
  for (std::size_t e = 0; e < width; ++e) {
    double sum = 0;
    for (const auto& row : rows) sum += row[e];
    for (auto& row : rows) row[e] -= sum / static_cast<double>(count);
  }
  std::vector<double> products(count * count);
  for (std::size_t i = 0; i < count; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      products[i * count + j] = products[j * count + i] =
          std::inner_product(rows[i].begin(), rows[i].end(), rows[j].begin(), 0.0);
    }
  }
  return products;
}

}  // namespace

WordMap principal_components(std::span<const std::span<const float>> vectors) {
  const std::size_t count = vectors.size();
  const Jacobi jacobi(centred_products(vectors), count);
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t i, std::size_t j) { return jacobi.value(i) > jacobi.value(j); });
  double variance = 0;
  for (std::size_t i = 0; i < count; ++i) variance += std::max(jacobi.value(i), 0.0);

  WordMap map{.points = std::vector<std::array<double, 2>>(count)};
  for (std::size_t axis = 0; axis < std::min<std::size_t>(count, 2); ++axis) {
    const double value = std::max(jacobi.value(order[axis]), 0.0);
    map.share[axis] = variance > 0 ? value / variance : 0;
    double farthest = 0;
    for (std::size_t i = 0; i < count; ++i) {
      const double here = std::sqrt(value) * jacobi.vector(order[axis], i);
      map.points[i][axis] = here;
      // By more than rounding: of two that are equally far, the first decides.
      if (std::abs(here) > std::abs(farthest) * (1 + 1e-9)) farthest = here;
    }
    if (farthest >= 0) continue;
    for (auto& point : map.points) point[axis] = -point[axis];
  }
  return map;
}

std::string svg(const WordMap& map, std::span<const std::string> words) {
  double reach = 0;  // one scale for both axes, so that distances are those of the plane
  for (const auto& point : map.points) {
    reach = std::max({reach, std::abs(point[0]) * 0.75, std::abs(point[1])});
  }
  const double scale = reach > 0 ? (kHeight / 2 - kMargin) / reach : 0;
  std::string text = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" "
      "height=\"{1}\" font-family=\"sans-serif\" font-size=\"14\">\n"
      "<title>{2} words; {3:.1f} % of the variance across, {4:.1f} % upwards</title>\n"
      "<rect width=\"{0}\" height=\"{1}\" fill=\"white\"/>\n",
      kWidth, kHeight, words.size(), 100 * map.share[0], 100 * map.share[1]);
  for (std::size_t i = 0; i < words.size(); ++i) {
    const double x = kWidth / 2 + scale * map.points[i][0];
    const double y = kHeight / 2 - scale * map.points[i][1];  // SVG's y grows downwards
    // On the right half the word stands before its dot, so that it does not leave the image.
    const bool right = x > kWidth / 2;
    text += fmt::format(
        "<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"#c0392b\"/>"
        "<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n",
        x, y, right ? x - 6 : x + 6, y + 5, right ? "end" : "start", xml_text(escaped(words[i])));
  }
  return text + "</svg>\n";
}

}  // namespace carousel
