#include "kernels/common/check.h"
#include "kernels/common/cpu_parallel.h"
#include "kernels/context_windows/item.h"

namespace carousel {

void ContextWindows::check() const {
  const auto [steps, rows] = token.extent;
  expect_at_least("context_windows: width", width, 1);
  if (reset.present()) {
    expect_extent("context_windows: steps of reset", reset.extent[0], steps);
    expect_extent("context_windows: rows of reset", reset.extent[1], rows);
  }
  if (lengths.present()) expect_extent("context_windows: lengths", lengths.extent[0], rows);
  if (context.present()) {
    expect_extent("context_windows: steps of context", context.extent[0], steps);
    expect_extent("context_windows: rows of context", context.extent[1], rows);
    expect_extent("context_windows: width of context", context.extent[2], width);
  }
  for (const View<const std::int32_t, 2>& state : {before, {last}, {after}}) {
    if (!state.present()) continue;
    expect_extent("context_windows: rows of before, last and after", state.extent[0], rows);
    expect_extent("context_windows: width of before, last and after", state.extent[1], width);
  }
}

void ContextWindows::run(const Cpu&) const {
  in_chunks(token.size() + token.extent[1], [this](std::int64_t first, std::int64_t count) {
    for (std::int64_t item = first; item < first + count; ++item) write_context(*this, item);
  });
}

}  // namespace carousel
