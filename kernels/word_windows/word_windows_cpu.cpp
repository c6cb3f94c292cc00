#include <fmt/format.h>

#include "kernels/common/check.h"
#include "kernels/word_windows/item.h"

namespace carousel {
namespace {

// Below this many words, waking the threads costs more than the work.
constexpr std::int64_t kWorthThreads = 512;

}  // namespace

void WordWindows::check() const {
  const auto [steps, rows] = token.extent;
  if (width < 1 || width > 4096) {
    throw ShapeError(fmt::format("word_windows: width is {}, expected 1 to 4096", width));
  }
  for (const View<const std::int32_t, 2>& each : {inside, reset, {reached}, {center}}) {
    if (!each.present()) continue;
    expect_extent("word_windows: steps of inside, reset, reached and center", each.extent[0],
                  steps);
    expect_extent("word_windows: rows of inside, reset, reached and center", each.extent[1], rows);
  }
  for (const View<std::int32_t, 3>& each : {context, near}) {
    if (!each.present()) continue;
    expect_extent("word_windows: steps of context and near", each.extent[0], steps);
    expect_extent("word_windows: rows of context and near", each.extent[1], rows);
    expect_extent("word_windows: slots of context and near", each.extent[2], 2 * width);
  }
}

void WordWindows::run(const Cpu&) const {
  const std::int64_t words = token.size();
#pragma omp parallel for schedule(static) if (words >= kWorthThreads)
  for (std::int64_t item = 0; item < words; ++item) word_windows::mark(*this, item);
#pragma omp parallel for schedule(static) if (words >= kWorthThreads)
  for (std::int64_t item = 0; item < words; ++item) word_windows::write(*this, item);
}

}  // namespace carousel
