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
void run(const Cpu&, const Matmul<T, Out>& op) {
  multiply(CpuProduct<T, Out>{.transpose_a = op.transpose_a,
                              .transpose_b = op.transpose_b,
                              .accumulate = op.accumulate,
                              .m = op.c.extent[0],
                              .n = op.c.extent[1],
                              .k = op.a.extent[op.transpose_a ? 0 : 1],
                              .a = op.a.data,
                              .b = op.b.data,
                              .bias = op.bias.data,
                              .c = op.c.data});
}

template struct Matmul<float>;
template struct Matmul<bf16>;
template struct Matmul<bf16, float>;
template struct Matmul<double>;
template void run(const Cpu&, const Matmul<float>&);
template void run(const Cpu&, const Matmul<bf16>&);
template void run(const Cpu&, const Matmul<bf16, float>&);
template void run(const Cpu&, const Matmul<double>&);

}  // namespace carousel
