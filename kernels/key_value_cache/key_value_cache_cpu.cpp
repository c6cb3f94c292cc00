#include <algorithm>

#include "kernels/common/check.h"
#include "kernels/common/cpu_parallel.h"
#include "kernels/key_value_cache/key_value_cache.h"

namespace carousel {

template <class T>
void StoreKeysAndValues<T>::check() const {
  const std::int64_t batch = x.extent[1], width = k.extent[2];
  expect_at_least("key_value_cache: places", k.extent[0], 1);
  expect_extent("key_value_cache: rows of k", k.extent[1], batch);
  expect_extent("key_value_cache: places of v", v.extent[0], k.extent[0]);
  expect_extent("key_value_cache: rows of v", v.extent[1], batch);
  expect_extent("key_value_cache: columns of v", v.extent[2], width);
  expect_at_least("key_value_cache: first_k", first_k, 0);
  expect_at_least("key_value_cache: first_v", first_v, 0);
  expect_at_least("key_value_cache: columns of x", x.extent[2], std::max(first_k, first_v) + width);
  expect_extent("key_value_cache: length of position", position.extent[0], batch);
  if (length.present()) expect_extent("key_value_cache: lengths", length.extent[0], batch);
  expect_extent("key_value_cache: length of used", used.extent[0], batch);
}

template <class T>
void StoreKeysAndValues<T>::run(const Cpu&) const {
  const auto [all, batch, columns] = x.extent;
  const std::int64_t width = k.extent[2];
  for (std::int64_t b = 0; b < batch; ++b) used(b) = used_after(b);
#pragma omp parallel for schedule(static) if (all * batch * width > kCpuChunk)
  for (std::int64_t row = 0; row < all * batch; ++row) {
    const std::int64_t t = row / batch, b = row % batch, to = place(t, b);
    if (to < 0) continue;
    const T* const from = x.data + row * columns;
    std::copy_n(from + first_k, width, k.data + (to * batch + b) * width);
    std::copy_n(from + first_v, width, v.data + (to * batch + b) * width);
  }
}

template struct StoreKeysAndValues<float>;
template struct StoreKeysAndValues<bf16>;

}  // namespace carousel
