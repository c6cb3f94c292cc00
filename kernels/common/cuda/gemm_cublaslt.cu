#include <cublasLt.h>

#include <algorithm>
#include <array>
#include <bit>
#include <compare>
#include <cstdint>
#include <cstdio>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <type_traits>

#include "kernels/common/bf16.h"
#include "kernels/common/cuda/gemm.h"
#include "kernels/common/cuda/gemm_kernels.cuh"
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
  bool bias = false, staged_bias = false;
  std::int64_t m = 0, n = 0, k = 0, row_of_a = 0, row_of_b = 0, row_of_c = 0;
  std::array<std::uint32_t, 3> alignment{};
  auto operator<=>(const Key&) const = default;
};

/// What is asked of the library. It may have no algorithm for a shape or an alignment, and then less
/// is asked.
struct Way {
  bool adds_bias;
  cublasLtReductionScheme_t reductions;  ///< if blocks share a sum, how its parts are kept
};
constexpr Way kWays[] = {
    // The parts of a sum are kept in the workspace as float and added in order.
    {.adds_bias = true, .reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE},
    {.adds_bias = false, .reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE},
    // Or, still in order, in the type of the output.
    {.adds_bias = false, .reductions = CUBLASLT_REDUCTION_SCHEME_MASK},
};

/// cuBLASLt is column-major: a row-major matrix is its transpose there. The product becomes
/// Cᵀ = Bᵀ·Aᵀ, so B is the first operand, and the bias of a column is the bias of a row.
struct Plan {
  Product product;
  Layout b, a, c;
  std::size_t way = 0;
  bool chosen = false;  ///< an algorithm for this way
  cublasLtMatmulAlgo_t algorithm{};
  std::size_t workspace_bytes = 0;
};

/// Whether the bias is first copied to the workspace: cuBLASLt needs it in the type of the output,
/// and its kernels read 16 bytes at once.
bool stages_bias(const Gemm& p) {
  return p.bias != nullptr && (is_half(p) || alignment(p.bias) < 16);
}

/// Where the algorithm's part of the workspace begins, after the copied bias.
std::size_t workspace_offset(const Gemm& p) {
  const auto bytes = static_cast<std::size_t>(p.n) * (is_half(p) ? sizeof(bf16) : sizeof(float));
  return stages_bias(p) ? (bytes + 255) / 256 * 256 : 0;
}

/// Whether the library may add the bias. A copy of it must leave the algorithm half the workspace.
bool may_add_bias(const Gemm& p) {
  return p.bias != nullptr && workspace_offset(p) <= CudaContext::kWorkspaceBytes / 2;
}
/// Whether a bias that the library does not add would be added to what is rounded already.
bool rounds_twice_without_bias(const Gemm& p) {
  return p.bias != nullptr && p.accumulate && is_half(p);
}
bool adds_bias(const Gemm& p, const Plan& plan) {
  return kWays[plan.way].adds_bias && p.bias != nullptr;
}

/// Chooses the plan's algorithm. False: the library has none for the plan's way.
bool choose_algorithm(const CudaContext& context, const Gemm& p, const Key& key, Plan& plan) {
  const bool bias = adds_bias(p, plan);
  set(plan.product, CUBLASLT_MATMUL_DESC_EPILOGUE,
      bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT);
  // The heuristic takes the alignment of the bias from its address.
  const void* const address = !bias ? nullptr : key.staged_bias ? context.workspace : p.bias;
  set(plan.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, address);

  cublasLtMatmulPreference_t made = nullptr;
  check_cublas(cublasLtMatmulPreferenceCreate(&made), "cuBLASLt preference");
  const Preference preference(made);
  set(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
      std::uint64_t{CudaContext::kWorkspaceBytes - (bias ? workspace_offset(p) : 0)});
  set(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
      static_cast<std::uint32_t>(kWays[plan.way].reductions));
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, key.alignment[1]);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, key.alignment[0]);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, key.alignment[2]);
  set(preference, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, key.alignment[2]);

  cublasLtMatmulHeuristicResult_t result{};
  int found = 0;
  const cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(
      context.cublas, plan.product.get(), plan.b.get(), plan.a.get(), plan.c.get(), plan.c.get(),
      preference.get(), 1, &result, &found);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return false;
  check_cublas(status, "cuBLASLt algorithm");
  if (found == 0) return false;
  plan.algorithm = result.algo;
  plan.workspace_bytes = result.workspaceSize;
  return true;
}

Plan make_plan(const Gemm& p) {
  const bool half = p.type == GemmType::bf16;
  const cudaDataType_t input = half ? CUDA_R_16BF : CUDA_R_32F;
  const cudaDataType_t output = is_half(p) ? CUDA_R_16BF : CUDA_R_32F;

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
  set(plan.product, CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, output);
  plan.b =
      p.transpose_b ? layout(input, p.k, p.n, p.row_of_b()) : layout(input, p.n, p.k, p.row_of_b());
  plan.a =
      p.transpose_a ? layout(input, p.m, p.k, p.row_of_a()) : layout(input, p.k, p.m, p.row_of_a());
  plan.c = layout(output, p.n, p.m, p.row_of_c());
  plan.way = may_add_bias(p) ? 0 : 1;
  return plan;
}

template <class T, class Attribute, class Get>
T attribute_of(const cublasLtMatmulAlgo_t& algorithm, Attribute attribute, const Get& get) {
  T value = 0;
  std::size_t written = 0;
  check_cublas(get(&algorithm, attribute, &value, sizeof value, &written),
               "cuBLASLt algorithm's attribute");
  return value;
}

/// Permission for tf32 is not an order: the algorithm may multiply in f32.
bool refused_tf32(const Gemm& p, const Plan& plan) {
  const auto flags = attribute_of<std::uint64_t>(
      plan.algorithm, CUBLASLT_ALGO_CAP_NUMERICAL_IMPL_FLAGS, cublasLtMatmulAlgoCapGetAttribute);
  return p.type == GemmType::tf32 && (flags & CUBLASLT_NUMERICAL_IMPL_FLAGS_INPUT_TF32) == 0;
}

void note_plan(Journal& journal, const Gemm& p, const Key& key, const Plan& plan) {
  const auto value = [&](const char* name, cublasLtMatmulAlgoConfigAttributes_t what) {
    return name + std::to_string(attribute_of<std::int32_t>(plan.algorithm, what,
                                                            cublasLtMatmulAlgoConfigGetAttribute));
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
  if (refused_tf32(p, plan)) text += "; refused: tf32, the library's algorithm multiplies in f32";
  if (p.bias != nullptr && !adds_bias(p, plan)) {
    text += "; refused: adding the bias in the product, ";
    text += may_add_bias(p) ? "the library has no algorithm for it" : "it is too long";
  }
  if (kWays[plan.way].reductions != kWays[0].reductions) {
    text += "; refused: float parts of sums, the library has no algorithm for it";
  }
  journal.note(std::move(text));
}

/// Queues the product. False: the library has an algorithm and cannot run it with these operands.
bool run_plan(const Cuda& device, const Gemm& p, const Plan& plan) {
  const CudaContext& context = device.context();
  const bool inside = adds_bias(p, plan), outside = p.bias != nullptr && !inside;
  if (inside) {
    const bool staged = stages_bias(p);
    if (staged) launch_stage_bias(device, p, context.workspace);
    const void* const bias = staged ? context.workspace : p.bias;
    set(plan.product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  }
  // As the first term the bias is rounded with the sum. In C there is room for it unless C is added to.
  const bool first = outside && !p.accumulate;
  if (first) launch_empty_sum(device, p);
  const float one = 1.0F, beta = p.accumulate || first ? 1.0F : 0.0F;
  const std::size_t offset = inside ? workspace_offset(p) : 0;
  const cublasStatus_t status = cublasLtMatmul(
      context.cublas, plan.product.get(), &one, p.b, plan.b.get(), p.a, plan.a.get(), &beta, p.c,
      plan.c.get(), p.c, plan.c.get(), &plan.algorithm,
      static_cast<std::byte*>(context.workspace) + offset, plan.workspace_bytes, context.stream);
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) return false;
  check_cublas(status, "gemm");
  if (outside && !first) launch_empty_sum(device, p);
  return true;
}

/// Queues the product in the first way that the library knows, which the plan keeps, or else by our
/// own kernel.
void run_first_way(const Cuda& device, const Gemm& p, const Key& key, Plan& plan) {
  for (; plan.way < std::size(kWays); ++plan.way, plan.chosen = false) {
    if (!kWays[plan.way].adds_bias && rounds_twice_without_bias(p)) continue;
    if (!plan.chosen) plan.chosen = choose_algorithm(device.context(), p, key, plan);
    if (!plan.chosen || !run_plan(device, p, plan)) continue;
    if (Journal* const journal = Journal::mine()) note_plan(*journal, p, key, plan);
    return;
  }
  if (Journal* const journal = Journal::mine()) {
    journal->note(note_of(p).text() + ": a thread per element; refused: cuBLASLt, which has no " +
                  "algorithm for it");
  }
  launch_plain(device, p);
}

}  // namespace

void gemm(const Cuda& device, const Gemm& p) {
  if (p.m == 0 || p.n == 0) return;
  if (p.k == 0) return launch_empty_sum(device, p);
  const Key key{.device = device.context().ordinal,
                .type = p.type,
                .transpose_a = p.transpose_a,
                .transpose_b = p.transpose_b,
                .accumulate = p.accumulate,
                .float_output = p.float_output,
                .bias = p.bias != nullptr,
                .staged_bias = stages_bias(p),
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
  if (found == plans.end()) found = plans.emplace(key, make_plan(p)).first;
  run_first_way(device, p, key, found->second);
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
