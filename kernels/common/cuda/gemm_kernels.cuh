#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/common/bf16.h"
#include "kernels/common/cuda/gemm.h"
#include "kernels/common/cuda/launch.cuh"

/// What a product needs beside the library: a bias in the library's type, and sums that the library
/// does not make.
namespace carousel {

inline constexpr unsigned kGemmThreads = 256;

/// Whether C is bf16.
inline bool is_half(const Gemm& p) { return p.type == GemmType::bf16 && !p.float_output; }

/// The whole product, a thread per element, with a grid stride. With k = 0, C and bias alone.
template <class In, class Out>
__global__ void gemm_plain_kernel(const __grid_constant__ Gemm p) {
  const auto* const a = static_cast<const In*>(p.a);
  const auto* const b = static_cast<const In*>(p.b);
  const std::int64_t row_a = p.transpose_a ? 1 : p.row_of_a();
  const std::int64_t inner_a = p.transpose_a ? p.row_of_a() : 1;
  const std::int64_t column_b = p.transpose_b ? p.row_of_b() : 1;
  const std::int64_t inner_b = p.transpose_b ? 1 : p.row_of_b();
  const std::int64_t first = blockIdx.x * std::int64_t{kGemmThreads} + threadIdx.x;
  for (std::int64_t i = first; i < p.m * p.n; i += gridDim.x * std::int64_t{kGemmThreads}) {
    const std::int64_t row = i / p.n, column = i % p.n;
    float sum = 0;
    for (std::int64_t l = 0; l < p.k; ++l) {
      sum += static_cast<float>(a[row * row_a + l * inner_a]) *
             static_cast<float>(b[column * column_b + l * inner_b]);
    }
    Out& out = static_cast<Out*>(p.c)[row * p.row_of_c() + column];
    if (p.accumulate) sum += static_cast<float>(out);
    if (p.bias != nullptr) sum += static_cast<float>(Out(p.bias[column]));
    out = static_cast<Out>(sum);
  }
}

inline void launch_plain(const Cuda& device, const Gemm& p) {
  launch(device, {.blocks = blocks_for(p.m * p.n, kGemmThreads), .threads = kGemmThreads},
         is_half(p)                 ? gemm_plain_kernel<bf16, bf16>
         : p.type == GemmType::bf16 ? gemm_plain_kernel<bf16, float>
                                    : gemm_plain_kernel<float, float>,
         p);
}

/// C = (C if accumulate) + bias.
inline void launch_empty_sum(const Cuda& device, Gemm p) {
  p.k = 0;
  launch_plain(device, p);
}

/// staged = bias, as Out; a thread per element, with a grid stride.
template <class Out>
__global__ void gemm_stage_bias_kernel(const float* bias, std::int64_t n, Out* staged) {
  const std::int64_t first = blockIdx.x * std::int64_t{kGemmThreads} + threadIdx.x;
  for (std::int64_t i = first; i < n; i += gridDim.x * std::int64_t{kGemmThreads}) {
    staged[i] = static_cast<Out>(bias[i]);
  }
}

/// Copies the bias of p, in the type of its output, to `to`.
inline void launch_stage_bias(const Cuda& device, const Gemm& p, void* to) {
  const Grid grid{.blocks = blocks_for(p.n, kGemmThreads), .threads = kGemmThreads};
  if (is_half(p)) {
    launch(device, grid, gemm_stage_bias_kernel<bf16>, p.bias, p.n, static_cast<bf16*>(to));
  } else {
    launch(device, grid, gemm_stage_bias_kernel<float>, p.bias, p.n, static_cast<float*>(to));
  }
}

}  // namespace carousel
