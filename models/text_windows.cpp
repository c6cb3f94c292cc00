#include "models/text_windows.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <map>
#include <utility>

#include "kernels/copy/copy.h"

namespace carousel {
namespace {

constexpr std::int64_t kGroupPlaces = 512;  // products of so many rows are fast

struct Window {
  std::int64_t row, first, own, end;  ///< those before `own` are in the window before this one
};
struct Text {
  std::int64_t row, first, end;
};
using WindowsBySteps = std::map<std::int64_t, std::vector<Window>>;

void add_windows(WindowsBySteps& windows, const Text& text, std::int64_t longest,
                 std::int64_t stride) {
  std::int64_t end = text.first;
  for (std::int64_t first = text.first; end < text.end; first += stride) {
    const std::int64_t own = end;
    end = std::min(first + longest, text.end);
    const auto steps = std::bit_ceil(static_cast<std::uint64_t>(end - first));
    windows[std::min(static_cast<std::int64_t>(steps), longest)].push_back(
        {text.row, first, own, end});
  }
}

WindowsBySteps windows_of(const BatchTexts& texts, std::int64_t longest, std::int64_t stride) {
  WindowsBySteps windows;
  for (std::int64_t b = 0; b < texts.rows; ++b) {
    const auto at = [&](std::int64_t t) { return static_cast<std::size_t>(t * texts.rows + b); };
    const auto is_text = [&](std::int64_t t) {
      return texts.place.empty() || texts.place[at(t)] >= 0;
    };
    std::int64_t first = 0;
    for (std::int64_t t = 1; t <= texts.steps; ++t) {
      if (t < texts.steps && (texts.reset.empty() || texts.reset[at(t)] == 0)) continue;
      if (is_text(first)) add_windows(windows, {b, first, t}, longest, stride);
      first = t;
    }
  }
  return windows;
}

}  // namespace

TextWindows text_windows(const BatchTexts& texts, std::int64_t longest, std::int64_t stride) {
  TextWindows result;
  result.to.assign(static_cast<std::size_t>(texts.steps * texts.rows), 0);
  for (const auto& [steps, windows] : windows_of(texts, longest, stride)) {
    const std::int64_t most = std::max<std::int64_t>(1, kGroupPlaces / steps);
    for (std::int64_t done = 0; done < std::ssize(windows); done += most) {
      const std::int64_t here = std::min(most, std::ssize(windows) - done),
                         count = texts.place.empty() ? here : most;
      TextWindows::Group group{.steps = steps, .count = count};
      group.from.assign(static_cast<std::size_t>(group.places()), 0);
      for (std::int64_t w = 0; w < here; ++w) {
        const auto& [row, first, own, end] = windows[static_cast<std::size_t>(done + w)];
        for (std::int64_t t = first; t < end; ++t) {
          const auto place = static_cast<std::size_t>((t - first) * count + w),
                     token = static_cast<std::size_t>(t * texts.rows + row);
          group.from[place] = static_cast<std::int32_t>(token);
          if (t < own) continue;
          result.to[token] =
              static_cast<std::int32_t>(result.places) + static_cast<std::int32_t>(place);
        }
      }
      result.places += group.places();
      result.groups.push_back(std::move(group));
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
