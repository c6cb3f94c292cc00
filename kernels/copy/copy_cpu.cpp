#include <algorithm>
#include <cstring>
#include <type_traits>

#include "kernels/common/check.h"
#include "kernels/copy/copy.h"

namespace carousel {
namespace {

// Elements per task. Below one task's worth, waking the threads costs more than the work.
constexpr std::int64_t kChunk = 32'768;

/// Calls body(first, count) over [0, size) in chunks, on all threads.
template <class Body>
void in_chunks(std::int64_t size, const Body& body) {
#pragma omp parallel for schedule(static) if (size > kChunk)
  for (std::int64_t first = 0; first < size; first += kChunk) {
    body(first, std::min(kChunk, size - first));
  }
}

// The row's window as a plain loop over time: within [0, N) nothing but the copy is left to do.
void gather_row(const GatherWindows& op, std::int64_t b) {
  const std::int64_t length = op.stream.extent[0];
  const std::int64_t steps = op.token.extent[0];
  const std::int64_t position = op.position(b);
  for (std::int64_t t = 0; t < steps; ++t) {
    // n = position + t, which may not be formed before it is known to fit.
    const bool inside = position >= -t && position < length - t;
    const std::int64_t n = inside ? position + t : 0;
    op.token(t, b) = inside ? op.stream(n) : 0;
    if (op.target.present()) {
      op.target(t, b) = inside && n + 1 < length ? op.stream(n + 1) : GatherWindows::kNoTarget;
    }
    if (op.reset.present()) {
      const bool begins =
          inside && (n == 0 || (op.document_end >= 0 && op.stream(n - 1) == op.document_end));
      op.reset(t, b) = begins ? 1 : 0;
    }
  }
}

}  // namespace

template <class From, class To>
void Cast<From, To>::check() const {
  expect_extent("cast: elements to write", to.extent[0], from.extent[0]);
}

void GatherWindows::check() const {
  const auto [steps, rows] = token.extent;
  expect_extent("gather_windows: token columns", rows, position.extent[0]);
  if (target.present()) {
    expect_extent("gather_windows: target rows", target.extent[0], steps);
    expect_extent("gather_windows: target columns", target.extent[1], rows);
  }
  if (reset.present()) {
    expect_extent("gather_windows: reset rows", reset.extent[0], steps);
    expect_extent("gather_windows: reset columns", reset.extent[1], rows);
  }
}

template <class T>
void run(const Cpu&, const Fill<T>& op) {
  T* const to = op.to.data;
  in_chunks(op.to.extent[0], [&](std::int64_t first, std::int64_t count) {
    if constexpr (std::is_same_v<T, bf16>) {  // a loop that stores a class stays scalar
      const std::uint16_t bits = op.value.bits;
      for (std::int64_t i = first; i < first + count; ++i) to[i].bits = bits;
    } else {
      std::fill_n(to + first, count, op.value);
    }
  });
}

template <class From, class To>
void run(const Cpu&, const Cast<From, To>& op) {
  const From* const from = op.from.data;
  To* const to = op.to.data;
  in_chunks(op.to.extent[0], [&](std::int64_t first, std::int64_t count) {
    if constexpr (std::is_same_v<From, To>) {
      std::memcpy(to + first, from + first, static_cast<std::size_t>(count) * sizeof(To));
    } else {
      // Not omp simd: it makes arrays of class temporaries, and bf16 then stays scalar.
#pragma GCC ivdep
      for (std::int64_t i = first; i < first + count; ++i) to[i] = static_cast<To>(from[i]);
    }
  });
}

void run(const Cpu&, const GatherWindows& op) {
  const std::int64_t rows = op.token.extent[1];
#pragma omp parallel for schedule(static) if (op.token.size() > kChunk)
  for (std::int64_t b = 0; b < rows; ++b) gather_row(op, b);
}

template void run(const Cpu&, const Fill<float>&);
template void run(const Cpu&, const Fill<bf16>&);
template void run(const Cpu&, const Fill<double>&);
template void run(const Cpu&, const Fill<std::int32_t>&);
template void run(const Cpu&, const Fill<std::int64_t>&);

template struct Cast<float, bf16>;
template struct Cast<bf16, float>;
template struct Cast<float, float>;
template struct Cast<bf16, bf16>;
template struct Cast<double, double>;
template struct Cast<std::int32_t, std::int32_t>;
template struct Cast<std::int64_t, std::int64_t>;
template void run(const Cpu&, const Cast<float, bf16>&);
template void run(const Cpu&, const Cast<bf16, float>&);
template void run(const Cpu&, const Cast<float, float>&);
template void run(const Cpu&, const Cast<bf16, bf16>&);
template void run(const Cpu&, const Cast<double, double>&);
template void run(const Cpu&, const Cast<std::int32_t, std::int32_t>&);
template void run(const Cpu&, const Cast<std::int64_t, std::int64_t>&);

}  // namespace carousel
