#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace carousel::reference {

/// The bfloat16 number nearest to x, ties to the even one, found by arithmetic on x alone.
inline double nearest_bf16(double x) {
  if (std::isnan(x) || std::isinf(x) || x == 0) return x;
  int exponent = 0;
  std::frexp(x, &exponent);  // |x| in [2^(exponent − 1), 2^exponent)
  const double unit = std::ldexp(1.0, std::max(exponent - 8, -133));  // 8 bits, or subnormal
  const double rounded = std::nearbyint(x / unit) * unit;
  return std::abs(rounded) >= std::ldexp(1.0, 128) ? std::copysign(INFINITY, x) : rounded;
}

/// from [O, B, I] at the given rows; NaN where there is no such row.
inline std::vector<double> gather_rows(const std::vector<double>& from,
                                       const std::array<std::size_t, 3>& extents,
                                       const std::vector<std::int32_t>& row) {
  std::vector<double> to;
  for (std::size_t o = 0; o < extents[0]; ++o) {
    for (const std::int32_t r : row) {
      const bool exists = r >= 0 && static_cast<std::size_t>(r) < extents[1];
      for (std::size_t i = 0; i < extents[2]; ++i) {
        const std::size_t at = (o * extents[1] + static_cast<std::size_t>(r)) * extents[2] + i;
        to.push_back(exists ? from[at] : NAN);
      }
    }
  }
  return to;
}

struct Windows {
  std::vector<std::int32_t> token, target, reset;  // [T, B]
};

/// What a reader sees who walks each window and asks, token by token, whether it exists.
inline Windows gather_windows(const std::vector<std::int32_t>& stream,
                              const std::vector<std::int64_t>& position, std::size_t steps,
                              std::int32_t document_end, const std::vector<std::int32_t>& restart) {
  const auto exists = [&](double n) { return n >= 0 && n < static_cast<double>(stream.size()); };
  const auto at = [&](double n) { return stream[static_cast<std::size_t>(n)]; };
  Windows w;
  for (std::size_t t = 0; t < steps; ++t) {
    for (std::size_t b = 0; b < position.size(); ++b) {
      const double n = static_cast<double>(position[b]) + static_cast<double>(t);
      w.token.push_back(exists(n) ? at(n) : 0);
      w.target.push_back(exists(n) && exists(n + 1) ? at(n + 1) : -1);
      const bool after_end = exists(n - 1) && document_end >= 0 && at(n - 1) == document_end;
      const bool anew = t == 0 && !restart.empty() && restart[b] != 0;
      w.reset.push_back(exists(n) && (n == 0 || after_end || anew) ? 1 : 0);
    }
  }
  return w;
}

}  // namespace carousel::reference
