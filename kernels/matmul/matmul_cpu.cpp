#include "kernels/common/check.h"
#include "kernels/common/cpu_product.h"
#include "kernels/matmul/matmul.h"

namespace carousel {

template <class T, class Out>
void Matmul<T, Out>::check() const {
  const auto [rows, columns] = c.extent;
  const auto inner = a.extent[transpose_a ? 0 : 1];
  expect_extent("matmul: rows of a", a.extent[transpose_a ? 1 : 0], rows);
  expect_extent("matmul: columns of b", b.extent[transpose_b ? 0 : 1], columns);
  expect_extent("matmul: inner extent of b", b.extent[transpose_b ? 1 : 0], inner);
  if (bias.present()) expect_extent("matmul: length of bias", bias.extent[0], columns);
}

template <class T, class Out>
void Matmul<T, Out>::run(const Cpu&) const {
  multiply(CpuProduct<T, Out>{.transpose_a = transpose_a,
                              .transpose_b = transpose_b,
                              .accumulate = accumulate,
                              .m = c.extent[0],
                              .n = c.extent[1],
                              .k = a.extent[transpose_a ? 0 : 1],
                              .a = a.data,
                              .b = b.data,
                              .bias = bias.data,
                              .c = c.data});
}

template struct Matmul<float>;
template struct Matmul<bf16>;
template struct Matmul<bf16, float>;
template struct Matmul<double>;

}  // namespace carousel
