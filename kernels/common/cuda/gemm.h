#pragma once

#include <cstdint>

#include "kernels/common/device.h"

struct cublasLtContext;

namespace carousel {

enum class GemmType {
  f32,   ///< true single precision
  tf32,  ///< float storage, inputs rounded to 10 mantissa bits
  bf16,  ///< bf16 storage
};

/// C[m,n] = A·B (+ C if accumulate) (+ bias[n] added to every row), row-major, contiguous.
/// A is [m,k], or [k,m] if transpose_a; B is [k,n], or [n,k] if transpose_b. Accumulation is
/// float. The link seam of products: gemm_cublaslt.cu, or tests/emulation/gemm.cpp, which rounds
/// as the card would. m, n or k of 0: the empty sum, so C becomes 0 (or stays), plus bias.
/// The algorithm is chosen by shape and alignment alone, so that a product repeats bit for bit. A
/// bf16 output gets its bias rounded to bf16.
struct Gemm {
  GemmType type = GemmType::f32;
  bool transpose_a = false, transpose_b = false, accumulate = false;
  bool float_output = false;  ///< bf16 only: C is float instead of bf16
  std::int64_t m = 0, n = 0, k = 0;
  const void* a = nullptr;
  const void* b = nullptr;
  const float* bias = nullptr;  ///< may be null
  void* c = nullptr;
};
void gemm(const Cuda& device, const Gemm& product);

/// The library's handle for the current device, which CudaContext owns; null under emulation.
cublasLtContext* create_gemm_handle();
void destroy_gemm_handle(cublasLtContext* handle) noexcept;

}  // namespace carousel
