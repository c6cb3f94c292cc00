#include <algorithm>

#include "kernels/combine/combine.h"
#include "kernels/common/check.h"
#include "kernels/common/cpu_parallel.h"

namespace carousel {
namespace {

/// y[i] = a[i] + b[i]; y may be b. (ivdep and not omp simd, which makes arrays of class temporaries
/// and leaves bf16 scalar.)
template <class T>
void add(const T* a, const T* b, T* y, std::int64_t count) {
  using A = Accumulator<T>;
#pragma GCC ivdep
  for (std::int64_t i = 0; i < count; ++i) {
    y[i] = static_cast<T>(static_cast<A>(a[i]) + static_cast<A>(b[i]));
  }
}

}  // namespace

template <class T>
void CopyColumns<T>::check() const {
  expect_extent("copy_columns: rows to write", to.view.extent[0], from.extent[0]);
  expect_at_least("copy_columns: width", width, 0);
  expect_at_least("copy_columns: first_from", first_from, 0);
  expect_at_least("copy_columns: first_to", first_to, 0);
  expect_at_least("copy_columns: columns of from", from.extent[1], first_from + width);
  expect_at_least("copy_columns: columns of to", to.view.extent[1], first_to + width);
}

template <class T>
void Add<T>::check() const {
  expect_extent("add: b elements", b.extent[0], a.extent[0]);
  expect_extent("add: y elements", y.extent[0], a.extent[0]);
}

template <class T>
void CopyColumns<T>::run(const Cpu&) const {
  const std::int64_t rows = from.extent[0];
  const std::int64_t rows_each =
      std::max<std::int64_t>(1, kCpuChunk / std::max<std::int64_t>(1, width));
#pragma omp parallel for schedule(static) if (rows > rows_each)
  for (std::int64_t row = 0; row < rows; ++row) {
    const T* const in = from.data + row * from.extent[1] + first_from;
    T* const out = to.view.data + row * to.view.extent[1] + first_to;
    if (to.accumulate) {
      add(in, out, out, width);
    } else {
      std::copy_n(in, width, out);
    }
  }
}

template <class T>
void Add<T>::run(const Cpu&) const {
  in_chunks(a.extent[0], [this](std::int64_t first, std::int64_t count) {
    add(a.data + first, b.data + first, y.data + first, count);
  });
}

template struct CopyColumns<float>;
template struct CopyColumns<bf16>;
template struct CopyColumns<double>;
template struct Add<float>;
template struct Add<bf16>;
template struct Add<double>;

}  // namespace carousel
