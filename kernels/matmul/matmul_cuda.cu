#include <type_traits>

#include "kernels/common/check.h"
#include "kernels/common/cuda/gemm.h"
#include "kernels/matmul/matmul.h"

namespace carousel {
namespace {

template <class T>
GemmType gemm_type(bool tf32) {
  if constexpr (std::is_same_v<T, bf16>) return GemmType::bf16;
  return tf32 ? GemmType::tf32 : GemmType::f32;
}

}  // namespace

template <class T, class Out>
void run(const Cuda& device, const Matmul<T, Out>& op) {
  if constexpr (std::is_same_v<T, double>) {
    throw ConfigError("matmul: double runs on the CPU, found CUDA");
  } else {
    gemm(device, {.type = gemm_type<T>(op.tf32),
                  .transpose_a = op.transpose_a,
                  .transpose_b = op.transpose_b,
                  .accumulate = op.accumulate,
                  .float_output = std::is_same_v<Out, float>,
                  .m = op.c.extent[0],
                  .n = op.c.extent[1],
                  .k = op.a.extent[op.transpose_a ? 0 : 1],
                  .a = op.a.data,
                  .b = op.b.data,
                  .bias = op.bias.data,
                  .c = op.c.data});
  }
}

template void run(const Cuda&, const Matmul<float>&);
template void run(const Cuda&, const Matmul<bf16>&);
template void run(const Cuda&, const Matmul<bf16, float>&);
template void run(const Cuda&, const Matmul<double>&);

}  // namespace carousel
