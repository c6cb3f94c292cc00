#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "kernels/common/tolerance.h"
#include "tests/support/device.h"

namespace carousel::test {

/// |got − want| divided by what the tolerance allows: 1 is the limit. NaN if only one of the two is
/// NaN; 0 if both are NaN or the same infinity.
inline double excess(double got, double want, const Tolerance& t) {
  if (std::isnan(got) && std::isnan(want)) return 0;
  if (got == want) return 0;
  return std::abs(got - want) / (t.absolute + t.relative * std::abs(want));
}

/// Elementwise closeness; the message names the first and the worst element that fail.
template <class Got, class Want>
testing::AssertionResult close(const std::vector<Got>& got, const std::vector<Want>& want,
                               const Tolerance& tolerance) {
  if (got.size() != want.size()) {
    return testing::AssertionFailure() << got.size() << " elements, expected " << want.size();
  }
  std::size_t failures = 0, first = 0, worst = 0;
  double worst_excess = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double e = excess(static_cast<double>(got[i]), static_cast<double>(want[i]), tolerance);
    if (!(e <= 1)) {  // written so that NaN fails
      if (failures++ == 0) first = worst = i;
      if (!(e <= worst_excess)) worst = i, worst_excess = e;
    }
  }
  if (failures == 0) return testing::AssertionSuccess();
  const auto line = [&](std::size_t i) {
    return fmt::format("[{}] got {:.9g}, want {:.9g}", i, static_cast<double>(got[i]),
                       static_cast<double>(want[i]));
  };
  return testing::AssertionFailure()
         << fmt::format("{} of {} differ; first {}; worst {}, {:.3g} times the tolerance", failures,
                        got.size(), line(first), line(worst), worst_excess);
}

/// The largest excess over all elements (NaN is returned as infinity): what Tolerance::worst
/// records.
template <class Got, class Want>
double worst_excess(const std::vector<Got>& got, const std::vector<Want>& want,
                    const Tolerance& tolerance) {
  double worst = got.size() == want.size() ? 0 : INFINITY;
  for (std::size_t i = 0; i < got.size() && i < want.size(); ++i) {
    const double e = excess(static_cast<double>(got[i]), static_cast<double>(want[i]), tolerance);
    if (!(e <= worst)) worst = std::isnan(e) ? INFINITY : e;
  }
  return worst;
}

/// Judges a tolerance by the largest excess of its op's sweep over all devices of the build. A GPU,
/// whose products and functions differ in last bits, is judged by the tolerance alone.
/// tools/gpu_check takes the line that is printed into its results.
inline void expect_recorded(double worst, const Tolerance& tolerance) {
  fmt::print("worst {:.4g}, recorded {}, of absolute {:.3g} + relative {:.3g}\n", worst,
             tolerance.worst, tolerance.absolute, tolerance.relative);
  EXPECT_LE(tolerance.worst, 1);
  EXPECT_LE(worst, has_gpu() ? 1 : tolerance.worst);
  EXPECT_GE(worst, 0.1) << "the tolerance is more than ten times the worst error seen";
}

}  // namespace carousel::test
