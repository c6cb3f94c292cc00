#include <cublasLt.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/common/bf16.h"
#include "tests/emulation/runtime/memory.h"

// A library of products for the emulated device. It computes what cuBLASLt computes, with inputs
// rounded as tensor cores round them and float sums, and it is as difficult as a GPU's library is
// allowed to be:
// - it multiplies in tf32, where that is permitted, only if at least 16 rows and 512 columns and
//   inner elements make it worth it, and it cuts inputs off, as tensor cores do;
// - it has no algorithm for some shapes, and says so by a status, by finding none, or only when the
//   product is run;
// - it takes a bias only at 16 bytes, and where the alignment was known to the heuristic;
// - it writes into the whole workspace.

using carousel::bf16;

struct cublasLtContext {};
struct cublasLtMatmulDescOpaque_t {
  cublasComputeType_t compute{};
  cublasOperation_t transpose_a = CUBLAS_OP_N, transpose_b = CUBLAS_OP_N;
  cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
  const void* bias = nullptr;
  cudaDataType_t bias_type = CUDA_R_32F;
};
struct cublasLtMatrixLayoutOpaque_t {
  cudaDataType_t type{};
  std::int64_t rows = 0, columns = 0, stride = 0;
};
struct cublasLtMatmulPreferenceOpaque_t {
  std::uint64_t workspace_bytes = 0;
  std::uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
  std::uint32_t least_alignment = 256;
};

namespace {

constexpr std::uint64_t kDeviceWorkspace = std::uint64_t{64} << 20;
constexpr std::uint64_t kWorkspaceBytes = 1024;
constexpr std::uintptr_t kBiasAlignment = 16;

/// A matrix in device memory, column-major.
struct Matrix {
  const void* data;
  cublasLtMatrixLayoutOpaque_t layout;
  bool transposed;
};

/// A product in cuBLASLt's terms, column-major: D[m, n] = op(A)·op(B) + beta·D + bias[m].
struct Request {
  Matrix a, b;
  std::int64_t m, n, k;
  bool tf32, accumulate;
  const void* bias;
  void* d;
  std::int64_t stride;
};

/// To 10 mantissa bits by cutting off the rest. NaN and infinity stay.
float tf32(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if ((bits & 0x7F800000U) == 0x7F800000U) return x;
  return std::bit_cast<float>(bits & 0xFFFFE000U);
}

/// op(matrix) as float, rounded, column after column.
std::vector<float> operand(const Matrix& matrix, std::int64_t rows, std::int64_t columns,
                           bool rounded) {
  std::vector<float> values(static_cast<std::size_t>(rows * columns));
  float* to = values.data();
  for (std::int64_t column = 0; column < columns; ++column) {
    for (std::int64_t row = 0; row < rows; ++row) {
      const std::int64_t at = matrix.transposed ? row * matrix.layout.stride + column
                                                : column * matrix.layout.stride + row;
      if (matrix.layout.type == CUDA_R_16BF) {
        *to++ = static_cast<const bf16*>(matrix.data)[at];
      } else {
        const float x = static_cast<const float*>(matrix.data)[at];
        *to++ = rounded ? tf32(x) : x;
      }
    }
  }
  return values;
}

template <class Out>
void run_product(const Request& p) {
  const std::vector<float> a = operand(p.a, p.m, p.k, p.tf32);
  const std::vector<float> b = operand(p.b, p.k, p.n, p.tf32);
  std::vector<float> sums(static_cast<std::size_t>(p.m));
  for (std::int64_t j = 0; j < p.n; ++j) {
    std::fill(sums.begin(), sums.end(), 0.0F);
    for (std::int64_t l = 0; l < p.k; ++l) {
      const float x = b[static_cast<std::size_t>(j * p.k + l)];
      const float* const from = a.data() + l * p.m;
      float* const sum = sums.data();
      for (std::int64_t i = 0; i < p.m; ++i) sum[i] = std::fma(x, from[i], sum[i]);
    }
    for (std::int64_t i = 0; i < p.m; ++i) {
      Out& out = static_cast<Out*>(p.d)[j * p.stride + i];
      float sum = sums[static_cast<std::size_t>(i)];
      if (p.accumulate) sum += static_cast<float>(out);
      if (p.bias != nullptr) sum += static_cast<float>(static_cast<const Out*>(p.bias)[i]);
      out = static_cast<Out>(sum);
    }
  }
}

bool aligned(const void* address, std::uintptr_t bytes) {
  return reinterpret_cast<std::uintptr_t>(address) % bytes == 0;
}

/// The algorithm's words: whether it multiplies in tf32, whether for bf16, whether with an epilogue.
enum Word : std::size_t { kTf32, kHalf, kBias };

template <class Object>
cublasStatus_t destroy(Object* object) {
  delete object;
  return CUBLAS_STATUS_SUCCESS;
}
template <class T>
cublasStatus_t take(T& to, const void* value, std::size_t bytes) {
  if (bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(&to, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}
template <class T>
cublasStatus_t give(T from, void* value, std::size_t bytes, std::size_t* written) {
  if (bytes != sizeof(T)) return CUBLAS_STATUS_INVALID_VALUE;
  std::memcpy(value, &from, bytes);
  *written = bytes;
  return CUBLAS_STATUS_SUCCESS;
}

}  // namespace

extern "C" {

std::size_t cublasLtGetVersion() { return 130000; }
const char* cublasLtGetStatusString(cublasStatus_t status) {
  return status == CUBLAS_STATUS_NOT_SUPPORTED ? "not supported" : "invalid value";
}
cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  *handle = new cublasLtContext;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) { return destroy(handle); }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* made, cublasComputeType_t compute,
                                        cudaDataType_t) {
  *made = new cublasLtMatmulDescOpaque_t{.compute = compute};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t made) { return destroy(made); }

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t p,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void* value, std::size_t bytes) {
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return take(p->transpose_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return take(p->transpose_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return take(p->epilogue, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER:
      return take(p->bias, value, bytes);
    case CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE:
      return take(p->bias_type, value, bytes);
  }
  return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* made, cudaDataType_t type,
                                          std::uint64_t rows, std::uint64_t columns,
                                          std::int64_t stride) {
  const auto number = [](std::uint64_t n) { return static_cast<std::int64_t>(n); };
  *made = new cublasLtMatrixLayoutOpaque_t{type, number(rows), number(columns), stride};
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t made) { return destroy(made); }

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* made) {
  *made = new cublasLtMatmulPreferenceOpaque_t;
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t made) {
  return destroy(made);
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, std::size_t bytes) {
  if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) {
    return take(p->workspace_bytes, value, bytes);
  }
  if (attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK) {
    return take(p->reductions, value, bytes);
  }
  std::uint32_t alignment = 0;
  const cublasStatus_t status = take(alignment, value, bytes);
  p->least_alignment = std::min(p->least_alignment, alignment);
  return status;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t p,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t,
                                              cublasLtMatrixLayout_t, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int,
                                              cublasLtMatmulHeuristicResult_t* result, int* found) {
  if (preference->workspace_bytes > kDeviceWorkspace) return CUBLAS_STATUS_INVALID_VALUE;
  const bool bias = p->epilogue == CUBLASLT_EPILOGUE_BIAS;
  if (bias && (p->bias_type != d->type || !aligned(p->bias, kBiasAlignment))) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  *found = 0;
  const std::int64_t k = p->transpose_a == CUBLAS_OP_T ? a->rows : a->columns;
  const bool odd = d->rows % 2 != 0 && d->columns % 2 != 0;
  if (a->type == CUDA_R_16BF && odd && k % 7 == 0) return CUBLAS_STATUS_NOT_SUPPORTED;
  // A bias needs operands at 4 bytes, sums in parts that stay float an even width or height.
  if (bias && preference->least_alignment < 4) return CUBLAS_STATUS_SUCCESS;
  if (preference->reductions == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE && odd) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  *found = 1;
  *result = {};
  result->algo.data[kTf32] =
      p->compute == CUBLAS_COMPUTE_32F_FAST_TF32 && d->columns >= 16 && std::min(d->rows, k) >= 512;
  result->algo.data[kHalf] = a->type == CUDA_R_16BF;
  result->algo.data[kBias] = bias;
  result->workspaceSize = std::min(preference->workspace_bytes, kWorkspaceBytes);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t*,
                                                    cublasLtMatmulAlgoConfigAttributes_t,
                                                    void* value, std::size_t bytes,
                                                    std::size_t* written) {
  return give(std::int32_t{0}, value, bytes, written);
}

cublasStatus_t cublasLtMatmulAlgoCapGetAttribute(const cublasLtMatmulAlgo_t* algorithm,
                                                 cublasLtMatmulAlgoCapAttributes_t, void* value,
                                                 std::size_t bytes, std::size_t* written) {
  const std::uint64_t flags = algorithm->data[kHalf] != 0 ? CUBLASLT_NUMERICAL_IMPL_FLAGS_INPUT_16BF
                              : algorithm->data[kTf32] != 0
                                  ? CUBLASLT_NUMERICAL_IMPL_FLAGS_INPUT_TF32
                                  : CUBLASLT_NUMERICAL_IMPL_FLAGS_INPUT_32F;
  return give(flags, value, bytes, written);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t p, const void*, const void* a,
                              cublasLtMatrixLayout_t la, const void* b, cublasLtMatrixLayout_t lb,
                              const void* beta, const void*, cublasLtMatrixLayout_t, void* d,
                              cublasLtMatrixLayout_t ld, const cublasLtMatmulAlgo_t* algorithm,
                              void* workspace, std::size_t workspace_bytes, cudaStream_t stream) {
  const bool accumulate = *static_cast<const float*>(beta) != 0;
  const bool bias = algorithm->data[kBias] != 0;
  if (bias && !aligned(p->bias, kBiasAlignment)) return CUBLAS_STATUS_INVALID_VALUE;
  if (bias && accumulate && ld->columns % 3 == 0) return CUBLAS_STATUS_NOT_SUPPORTED;
  const Request request{.a = {a, *la, p->transpose_a == CUBLAS_OP_T},
                        .b = {b, *lb, p->transpose_b == CUBLAS_OP_T},
                        .m = ld->rows,
                        .n = ld->columns,
                        .k = p->transpose_a == CUBLAS_OP_T ? la->rows : la->columns,
                        .tf32 = algorithm->data[kTf32] != 0,
                        .accumulate = accumulate,
                        .bias = bias ? p->bias : nullptr,
                        .d = d,
                        .stride = ld->stride};
  const bool half = ld->type == CUDA_R_16BF;
  emulation::enqueue(stream, [=] {
    emulation::fill_fresh(workspace, workspace_bytes);
    half ? run_product<bf16>(request) : run_product<float>(request);
  });
  return CUBLAS_STATUS_SUCCESS;
}
}
