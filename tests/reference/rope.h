#pragma once

#include <cmath>
#include <complex>
#include <cstddef>
#include <vector>

namespace carousel::reference {

/// A head's numbers at a position: each pair is a complex number that is turned.
inline std::vector<double> rope(const std::vector<double>& head, double position, double base,
                                bool neighbours) {
  const std::size_t width = head.size();
  std::vector<double> result(width);
  for (std::size_t i = 0; 2 * i < width; ++i) {
    const std::size_t a = neighbours ? 2 * i : i, b = neighbours ? 2 * i + 1 : width / 2 + i;
    const double exponent = -2 * static_cast<double>(i) / static_cast<double>(width);
    const std::complex<double> turned = std::complex<double>(head[a], head[b]) *
                                        std::polar(1.0, position * std::pow(base, exponent));
    result[a] = turned.real();
    result[b] = turned.imag();
  }
  return result;
}

}  // namespace carousel::reference
