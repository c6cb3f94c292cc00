#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <bit>
#include <compare>
#include <cstdint>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>

#include "kernels/common/bf16.h"
#include "kernels/common/cuda/gemm.h"
#include "kernels/common/cuda/launch.cuh"

namespace carousel {
namespace {

void check_cublas(cublasStatus_t status, const char* what, Where at = Where::here()) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    throw CudaError(std::string(at.file) + ":" + std::to_string(at.line) + ": " + what + ": " +
                    cublasLtGetStatusString(status));
  }
}

/// Owns a descriptor of cuBLASLt.
template <auto kDestroy, class Handle>
struct Destroy {
  void operator()(Handle handle) const { kDestroy(handle); }
};
template <class Handle, auto kDestroy>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroy<kDestroy, Handle>>;
using Product = Owned<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using Layout = Owned<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owned<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

template <class T>
void set(const Product& product, cublasLtMatmulDescAttributes_t attribute, const T& value) {
  check_cublas(cublasLtMatmulDescSetAttribute(product.get(), attribute, &value, sizeof value),
               "cuBLASLt product");
}
template <class T>
void set(const Preference& preference, cublasLtMatmulPreferenceAttributes_t attribute, T value) {
  check_cublas(
      cublasLtMatmulPreferenceSetAttribute(preference.get(), attribute, &value, sizeof value),
      "cuBLASLt preference");
}

Layout layout(cudaDataType_t type, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
  cublasLtMatrixLayout_t made = nullptr;
  check_cublas(cublasLtMatrixLayoutCreate(&made, type, static_cast<std::uint64_t>(rows),
                                          static_cast<std::uint64_t>(columns), stride),
               "cuBLASLt layout");
  return Layout(made);
}

/// The largest power of two, up to 16, that divides the address. No kernel needs more than 16.
std::uint32_t alignment(const void* address) {
  const auto bits = reinterpret_cast<std::uintptr_t>(address) | 16U;
  return static_cast<std::uint32_t>(bits & (~bits + 1));
}

/// Everything that decides which algorithm runs.
struct Key {
  int device = 0;
  GemmType type = GemmType::f32;
  bool transpose_a = false, transpose_b = false, accumulate = false, float_output = false;
  bool bias = false;
  std::int64_t m = 0, n = 0, k = 0, row_of_a = 0, row_of_b = 0, row_of_c = 0;
  std::array<std::uint32_t, 3> alignment{};
  auto operator<=>(const Key&) const = default;
};

/// cuBLASLt is column-major: a row-major matrix is its transpose there. The product becomes
/// Cᵀ = Bᵀ·Aᵀ, so B is the first operand, and the bias of a column is the bias of a row.
struct Plan {
  Product product;
  Layout b, a, c;
  cublasLtMatmulAlgo_t algorithm{};
  std::size_t workspace_bytes = 0;
};

/// Whether the bias is first rounded to bf16 in the workspace: cuBLASLt needs it in the type of the
/// output.
bool rounds_bias(const Gemm& p) {
  return p.bias != nullptr && p.type == GemmType::bf16 && !p.float_output;
}

/// Where the algorithm's part of the workspace begins, after the rounded bias.
std::size_t workspace_offset(const Gemm& p) {
  const auto bytes = static_cast<std::size_t>(p.n) * sizeof(bf16);
  return rounds_bias(p) ? (bytes + 255) / 256 * 256 : 0;
}

void choose_algorithm(cublasLtContext* handle, const Gemm& p, const Key& key, Plan& plan) {
  cublasLtMatmulPreference_t made = nullptr;
  check_cublas(cublasLtMatmulPreferenceCreate(&made), "cuBLASLt preference");
  const Preference preference(made);
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
      std::uint64_t{CudaContext::kWorkspaceBytes - workspace_offset(p)});
  // If blocks share a sum, their parts are kept in the workspace as float and added in order.
  set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.alignment[1]);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.alignment[0]);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.alignment[2]);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.alignment[2]);

  cublasLtMatmulHeuristicResult_t result{};
  int found = 0;
  check_cublas(cublasLtMatmulAlgoGetHeuristic(handle, plan.product.get(), plan.b.get(),
                                              plan.a.get(), plan.c.get(), plan.c.get(),
                                              preference.get(), 1, &result, &found),
               "cuBLASLt algorithm");
  if (found == 0) {
    throw CudaError("gemm: cuBLASLt has no algorithm for " + std::to_string(p.m) + "x" +
                    std::to_string(p.n) + "x" + std::to_string(p.k));
  }
  plan.algorithm = result.algo;
  plan.workspace_bytes = result.workspaceSize;
}

Plan make_plan(cublasLtContext* handle, const Gemm& p, const Key& key) {
  const bool half = p.type == GemmType::bf16;
  const cudaDataType_t input = half ? CUDA_R_16BF : CUDA_R_32F;
  const cudaDataType_t output = half && !p.float_output ? CUDA_R_16BF : CUDA_R_32F;

  Plan plan;
  cublasLtMatmulDesc_t made = nullptr;
  check_cublas(
      cublasLtMatmulDescCreate(
          &made, p.type == GemmType::tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F,
          CUDA_R_32F),
      "cuBLASLt product");
  plan.product.reset(made);
  set(plan.product, CUBLASLT_MATMUL_DESC_TRANSA, p.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N);
  set(plan.product, CUBLASLT_MATMUL_DESC_TRANSB, p.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N);
  if (p.bias != nullptr) {
    set(plan.product, CUBLASLT_MATMUL_DESC_EPILOGUE, CUBLASLT_EPILOGUE_BIAS);
    set(plan.product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, output);
  }
  plan.b =
      p.transpose_b ? layout(input, p.k, p.n, p.row_of_b()) : layout(input, p.n, p.k, p.row_of_b());
  plan.a =
      p.transpose_a ? layout(input, p.m, p.k, p.row_of_a()) : layout(input, p.k, p.m, p.row_of_a());
  plan.c = layout(output, p.n, p.m, p.row_of_c());
  choose_algorithm(handle, p, key, plan);
  return plan;
}

constexpr unsigned kThreads = 256;

/// C = (C if accumulate) + bias; a thread per element, with a grid stride.
template <class Out>
__global__ void gemm_empty_sum_kernel(const __grid_constant__ Gemm p) {
  const std::int64_t first = blockIdx.x * std::int64_t{kThreads} + threadIdx.x;
  auto* const c = static_cast<Out*>(p.c);
  for (std::int64_t i = first; i < p.m * p.n; i += gridDim.x * std::int64_t{kThreads}) {
    Out& out = c[i / p.n * p.row_of_c() + i % p.n];
    const float sum = p.accumulate ? static_cast<float>(out) : 0.0F;
    const float bias = p.bias == nullptr ? 0.0F : static_cast<float>(Out(p.bias[i % p.n]));
    out = static_cast<Out>(sum + bias);
  }
}

__global__ void gemm_round_bias_kernel(const float* bias, std::int64_t n, bf16* rounded) {
  const std::int64_t first = blockIdx.x * std::int64_t{kThreads} + threadIdx.x;
  for (std::int64_t i = first; i < n; i += gridDim.x * std::int64_t{kThreads}) {
    rounded[i] = static_cast<bf16>(bias[i]);
  }
}

int configured(const cublasLtMatmulAlgo_t& algorithm, cublasLtMatmulAlgoConfigAttributes_t what) {
  std::int32_t value = 0;
  std::size_t written = 0;
  check_cublas(
      cublasLtMatmulAlgoConfigGetAttribute(&algorithm, what, &value, sizeof value, &written),
      "cuBLASLt algorithm's configuration");
  return value;
}

void note_plan(Journal& journal, const Gemm& p, const Key& key, const Plan& plan) {
  const auto value = [&](const char* name, cublasLtMatmulAlgoConfigAttributes_t what) {
    return name + std::to_string(configured(plan.algorithm, what));
  };
  std::string text = note_of(p).text() + ": cuBLASLt" +
                     value(" algorithm ", CUBLASLT_ALGO_CONFIG_ID) +
                     value(", tile ", CUBLASLT_ALGO_CONFIG_TILE_ID) +
                     value(", stages ", CUBLASLT_ALGO_CONFIG_STAGES_ID) +
                     value(", split-k ", CUBLASLT_ALGO_CONFIG_SPLITK_NUM) + ", workspace " +
                     std::to_string(plan.workspace_bytes) + " B";
  const std::uint32_t least = *std::min_element(key.alignment.begin(), key.alignment.end());
  if (least < 16) {
    text += "; refused: kernels for 16-byte alignment, an operand has " + std::to_string(least);
  }
  journal.note(std::move(text));
}

void run_plan(const Cuda& device, const Gemm& p, const Plan& plan) {
  const CudaContext& context = device.context();
  const void* bias = p.bias;
  if (rounds_bias(p)) {
    auto* const rounded = static_cast<bf16*>(context.workspace);
    launch(device, {.blocks = blocks_for(p.n, kThreads), .threads = kThreads},
           gemm_round_bias_kernel, p.bias, p.n, rounded);
    bias = rounded;
  }
  if (bias != nullptr) set(plan.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  const float one = 1.0F, beta = p.accumulate ? 1.0F : 0.0F;
  check_cublas(
      cublasLtMatmul(context.cublas, plan.product.get(), &one, p.b, plan.b.get(), p.a, plan.a.get(),
                     &beta, p.c, plan.c.get(), p.c, plan.c.get(), &plan.algorithm,
                     static_cast<std::byte*>(context.workspace) + workspace_offset(p),
                     plan.workspace_bytes, context.stream),
      "gemm");
}

}  // namespace

void gemm(const Cuda& device, const Gemm& p) {
  if (p.m == 0 || p.n == 0) return;
  if (p.k == 0) {
    const bool half = p.type == GemmType::bf16 && !p.float_output;
    return launch(device, {.blocks = blocks_for(p.m * p.n, kThreads), .threads = kThreads},
                  half ? gemm_empty_sum_kernel<bf16> : gemm_empty_sum_kernel<float>, p);
  }
  const Key key{.device = device.context().ordinal,
                .type = p.type,
                .transpose_a = p.transpose_a,
                .transpose_b = p.transpose_b,
                .accumulate = p.accumulate,
                .float_output = p.float_output,
                .bias = p.bias != nullptr,
                .m = p.m,
                .n = p.n,
                .k = p.k,
                .row_of_a = p.row_of_a(),
                .row_of_b = p.row_of_b(),
                .row_of_c = p.row_of_c(),
                .alignment = {alignment(p.a), alignment(p.b), alignment(p.c)}};
  // The lock covers the call, because each call changes its plan's bias pointer. Plans are kept,
  // because choosing an algorithm takes longer than queueing a small product.
  static std::mutex mutex;
  static std::map<Key, Plan> plans;
  const std::lock_guard lock(mutex);
  auto found = plans.find(key);
  if (found == plans.end()) {
    found = plans.emplace(key, make_plan(device.context().cublas, p, key)).first;
  }
  if (Journal* const journal = Journal::mine()) note_plan(*journal, p, key, found->second);
  run_plan(device, p, found->second);
  if (device.context().synchronous) device.synchronize();
}

std::string gemm_library() {
  const std::size_t version = cublasLtGetVersion();  // 130102 is 13.1.2
  return "cuBLASLt " + std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) +
         "." + std::to_string(version % 100);
}

cublasLtContext* create_gemm_handle() {
  cublasLtHandle_t handle = nullptr;
  check_cublas(cublasLtCreate(&handle), "cuBLASLt");
  return handle;
}

void destroy_gemm_handle(cublasLtContext* handle) noexcept {
  if (handle == nullptr) return;
  const cublasStatus_t status = cublasLtDestroy(handle);
  if (status != CUBLAS_STATUS_SUCCESS) {
    std::fprintf(stderr, "cuBLASLt: %s\n", cublasLtGetStatusString(status));
  }
}

}  // namespace carousel
