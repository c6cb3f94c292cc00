#include "models/text_windows.h"

#include <algorithm>
#include <cstddef>

#include "kernels/copy/copy.h"

namespace carousel {
namespace {

struct Window {
  std::int64_t row, first, end;
};

void add_windows(std::vector<Window>& windows, const Window& text, std::int64_t longest,
                 std::int64_t stride) {
  for (std::int64_t first = text.first;; first += stride) {
    const std::int64_t end = std::min(first + longest, text.end);
    windows.push_back({text.row, first, end});
    if (end == text.end) return;
  }
}

}  // namespace

TextWindows text_windows(std::int64_t T, std::int64_t B, std::span<const std::int32_t> reset,
                         std::int64_t longest, std::int64_t stride) {
  std::vector<Window> windows;
  for (std::int64_t b = 0; b < B; ++b) {
    std::int64_t first = 0;
    for (std::int64_t t = 1; t <= T; ++t) {
      const bool ends =
          t == T || (!reset.empty() && reset[static_cast<std::size_t>(t * B + b)] != 0);
      if (!ends) continue;
      add_windows(windows, {b, first, t}, longest, stride);
      first = t;
    }
  }
  TextWindows result{.count = static_cast<std::int64_t>(windows.size())};
  for (const Window& window : windows) {
    result.steps = std::max(result.steps, window.end - window.first);
  }
  result.from.assign(static_cast<std::size_t>(result.steps * result.count), 0);
  result.to.assign(static_cast<std::size_t>(T * B), -1);
  for (std::int64_t w = 0; w < result.count; ++w) {
    const auto& [row, first, end] = windows[static_cast<std::size_t>(w)];
    for (std::int64_t t = first; t < end; ++t) {
      const std::int64_t place = (t - first) * result.count + w;
      result.from[static_cast<std::size_t>(place)] = static_cast<std::int32_t>(t * B + row);
      std::int32_t& to = result.to[static_cast<std::size_t>(t * B + row)];
      if (to < 0) to = static_cast<std::int32_t>(place);
    }
  }
  return result;
}

Tensor gathered_rows(Tape& tape, const Tensor& from, const std::vector<std::int32_t>& rows,
                     const Shape& shape) {
  const Tensor row = tape.tensor({std::ssize(rows)}, DType::i32),
               to = tape.tensor(shape, from.dtype());
  copy_from_host(row, rows.data());
  const std::int64_t width = shape.size() / std::ssize(rows);
  visit_any(from.dtype(), [&]<class T>(std::type_identity<T>) {
    run(tape.device(),
        GatherRows<T>{.from = from.reshaped({1, from.size() / width, width}).view<T, 3>(),
                      .row = row.view<std::int32_t, 1>(),
                      .to = to.reshaped({1, std::ssize(rows), width}).mutable_view<T, 3>()});
  });
  return to;
}

}  // namespace carousel
