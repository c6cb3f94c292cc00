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
      const bool begins = n == 0 || (op.document_end >= 0 && op.stream(n - 1) == op.document_end);
      const bool restarts = t == 0 && op.restart.present() && op.restart(b) != 0;
      op.reset(t, b) = inside && (begins || restarts) ? 1 : 0;
    }
  }
}

}  // namespace

template <class From, class To>
void Cast<From, To>::check() const {
  expect_extent("cast: elements to write", to.extent[0], from.extent[0]);
}

template <class T>
void GatherRows<T>::check() const {
  expect_extent("gather_rows: outer extent of to", to.extent[0], from.extent[0]);
  expect_extent("gather_rows: rows of to", to.extent[1], row.extent[0]);
  expect_extent("gather_rows: inner extent of to", to.extent[2], from.extent[2]);
}

void GatherWindows::check() const {
  const auto [steps, rows] = token.extent;
  expect_extent("gather_windows: token columns", rows, position.extent[0]);
  if (restart.present()) {
    expect_extent("gather_windows: rows to restart", restart.extent[0], rows);
  }
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
void Fill<T>::run(const Cpu&) const {
  in_chunks(to.extent[0], [out = to.data, x = value](std::int64_t first, std::int64_t count) {
    if constexpr (std::is_same_v<T, bf16>) {  // a loop that stores a class stays scalar
      const std::uint16_t bits = x.bits;
      for (std::int64_t i = first; i < first + count; ++i) out[i].bits = bits;
    } else {
      std::fill_n(out + first, count, x);
    }
  });
}

template <class From, class To>
void Cast<From, To>::run(const Cpu&) const {
  in_chunks(to.extent[0], [in = from.data, out = to.data](std::int64_t first, std::int64_t count) {
    if constexpr (std::is_same_v<From, To>) {
      std::memcpy(out + first, in + first, static_cast<std::size_t>(count) * sizeof(To));
    } else {
      // Not omp simd: it makes arrays of class temporaries, and bf16 then stays scalar.
#pragma GCC ivdep
      for (std::int64_t i = first; i < first + count; ++i) out[i] = static_cast<To>(in[i]);
    }
  });
}

void GatherWindows::run(const Cpu&) const {
  const std::int64_t rows = token.extent[1];
#pragma omp parallel for schedule(static) if (token.size() > kChunk)
  for (std::int64_t b = 0; b < rows; ++b) gather_row(*this, b);
}

template <class T>
void GatherRows<T>::run(const Cpu&) const {
  const auto [outer, rows, inner] = to.extent;
  const std::int64_t given = from.extent[1];
#pragma omp parallel for schedule(static) collapse(2) if (to.size() > kChunk)
  for (std::int64_t o = 0; o < outer; ++o) {
    for (std::int64_t r = 0; r < rows; ++r) {
      T* const out = to.data + (o * rows + r) * inner;
      const std::int64_t b = row(r);
      if (b >= 0 && b < given) {
        std::copy_n(from.data + (o * given + b) * inner, inner, out);
      } else {
        std::fill_n(out, inner, kImpossible);
      }
    }
  }
}

template struct Fill<float>;
template struct Fill<bf16>;
template struct Fill<double>;
template struct Fill<std::int32_t>;
template struct Fill<std::int64_t>;
template struct Cast<float, bf16>;
template struct Cast<bf16, float>;
template struct Cast<float, float>;
template struct Cast<bf16, bf16>;
template struct Cast<double, double>;
template struct Cast<std::int32_t, std::int32_t>;
template struct Cast<std::int64_t, std::int64_t>;
template struct GatherRows<float>;
template struct GatherRows<bf16>;
template struct GatherRows<double>;
template struct GatherRows<std::int32_t>;
template struct GatherRows<std::int64_t>;

}  // namespace carousel
