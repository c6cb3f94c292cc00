#include <type_traits>

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
void Matmul<T, Out>::run(const Cuda& device) const {
  gemm(device, {.type = gemm_type<T>(tf32),
                .transpose_a = transpose_a,
                .transpose_b = transpose_b,
                .accumulate = accumulate,
                .float_output = std::is_same_v<Out, float>,
                .m = c.extent[0],
                .n = c.extent[1],
                .k = a.extent[transpose_a ? 0 : 1],
                .a = a.data,
                .b = b.data,
                .bias = bias.data,
                .c = c.data});
}

template void Matmul<float>::run(const Cuda&) const;
template void Matmul<bf16>::run(const Cuda&) const;
template void Matmul<bf16, float>::run(const Cuda&) const;

}  // namespace carousel
