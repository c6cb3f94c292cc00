#include "kernels/common/cuda/gemm.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "kernels/common/bf16.h"

// Implements kernels/common/cuda/gemm.h on the emulated device. Inputs are rounded as tensor cores
// round them; sums are float.
namespace carousel {
namespace {

/// To 10 mantissa bits, ties away from zero, as cvt.rna.tf32.f32 does. NaN and infinity stay.
float tf32(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7F800000U) == 0x7F800000U) return x;
  return std::bit_cast<float>((bits + 0x1000U) & 0xFFFFE000U);
}

/// One operand as float, rounded, in the order [rows, columns] whatever its storage, in which rows
/// are `stride` elements apart.
std::vector<float> operand(const Gemm& p, const void* data, std::int64_t rows, std::int64_t columns,
                           bool transposed, std::int64_t stride) {
  std::vector<float> values(static_cast<std::size_t>(rows * columns));
  float* to = values.data();
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) {
      const std::int64_t at = transposed ? j * stride + i : i * stride + j;
      if (p.type == GemmType::bf16) {
        *to++ = static_cast<const bf16*>(data)[at];
      } else {
        const float x = static_cast<const float*>(data)[at];
        *to++ = p.type == GemmType::tf32 ? tf32(x) : x;
      }
    }
  }
  return values;
}

template <class Out>
void run_product(const Gemm& p) {
  const std::vector<float> a = operand(p, p.a, p.m, p.k, p.transpose_a, p.row_of_a());
  const std::vector<float> b = operand(p, p.b, p.k, p.n, p.transpose_b, p.row_of_b());
  auto* const c = static_cast<Out*>(p.c);
  std::vector<float> row(static_cast<std::size_t>(p.n));
  for (std::int64_t i = 0; i < p.m; ++i) {
    std::fill(row.begin(), row.end(), 0.0F);
    for (std::int64_t l = 0; l < p.k; ++l) {
      const float x = a[static_cast<std::size_t>(i * p.k + l)];
      const float* const from = b.data() + l * p.n;
      float* const sum = row.data();
      for (std::int64_t j = 0; j < p.n; ++j) sum[j] = std::fma(x, from[j], sum[j]);
    }
    for (std::int64_t j = 0; j < p.n; ++j) {
      Out& out = c[i * p.row_of_c() + j];
      float sum = row[static_cast<std::size_t>(j)];
      if (p.accumulate) sum += static_cast<float>(out);
      if (p.bias != nullptr) sum += static_cast<float>(Out(p.bias[j]));
      out = static_cast<Out>(sum);
    }
  }
}

}  // namespace

void gemm(const Cuda& device, const Gemm& product) {
  if (product.m == 0 || product.n == 0) return;
  if (Journal* const journal = Journal::mine()) {
    journal->note(note_of(product).text() + ": emulated");
  }
  emulation::enqueue(device.stream(), [product] {
    const bool half = product.type == GemmType::bf16 && !product.float_output;
    half ? run_product<bf16>(product) : run_product<float>(product);
  });
}

std::string gemm_library() { return "emulated products"; }

cublasLtContext* create_gemm_handle() { return nullptr; }
void destroy_gemm_handle(cublasLtContext*) noexcept {}

}  // namespace carousel
