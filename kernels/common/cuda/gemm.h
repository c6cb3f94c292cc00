#pragma once

#include <cstdint>
#include <string>

#include "kernels/common/device.h"
#include "kernels/common/journal.h"

struct cublasLtContext;

namespace carousel {

enum class GemmType {
  f32,   ///< true single precision
  tf32,  ///< float storage; inputs may be rounded or cut to 10 mantissa bits, where that is faster
  bf16,  ///< bf16 storage
};

/// C[m,n] = A·B (+ C if accumulate) (+ bias[n] added to every row), row-major, contiguous.
/// A is [m,k], or [k,m] if transpose_a; B is [k,n], or [n,k] if transpose_b. Each may be some columns
/// of a wider matrix, whose rows are then `a_stride` (`b_stride`, `c_stride`) elements apart. m, n or
/// k of 0: the empty sum, so C becomes 0 (or stays), plus bias. Accumulation is float. A bf16 output
/// gets its bias rounded to bf16. What the library cannot do, a kernel of ours does. The algorithm
/// depends on shape, strides and alignment alone, so that a product repeats bit for bit. The journal
/// says what ran, and whether a tf32 product ran in f32 after all.
struct Gemm {
  GemmType type = GemmType::f32;
  bool transpose_a = false, transpose_b = false, accumulate = false;
  bool float_output = false;  ///< bf16 only: C is float instead of bf16
  std::int64_t m = 0, n = 0, k = 0;
  const void* a = nullptr;
  std::int64_t a_stride = 0;  ///< 0: A's rows follow one another
  const void* b = nullptr;
  std::int64_t b_stride = 0;
  const float* bias = nullptr;  ///< may be null
  void* c = nullptr;
  std::int64_t c_stride = 0;

  constexpr std::int64_t row_of_a() const { return a_stride > 0 ? a_stride : transpose_a ? m : k; }
  constexpr std::int64_t row_of_b() const { return b_stride > 0 ? b_stride : transpose_b ? k : n; }
  constexpr std::int64_t row_of_c() const { return c_stride > 0 ? c_stride : n; }
};
void gemm(const Cuda& device, const Gemm& product);

/// The library that runs products, with its version: "cuBLASLt 13.1.0".
std::string gemm_library();

/// A product for the journal.
inline ProductNote note_of(const Gemm& p) {
  constexpr const char* kTypes[] = {"f32", "tf32", "bf16"};
  return {.type = p.type == GemmType::bf16 && p.float_output ? "bf16 to float"
                                                             : kTypes[static_cast<int>(p.type)],
          .transpose_a = p.transpose_a,
          .transpose_b = p.transpose_b,
          .accumulate = p.accumulate,
          .bias = p.bias != nullptr,
          .m = p.m,
          .n = p.n,
          .k = p.k};
}

/// The library's handle for the current device, which CudaContext owns.
cublasLtContext* create_gemm_handle();
void destroy_gemm_handle(cublasLtContext* handle) noexcept;

}  // namespace carousel
