#include <benchmark/benchmark.h>

#include <cstdint>
#include <type_traits>

#ifdef __CUDACC__
#include <cooperative_groups.h>
#endif

#include "kernels/common/cuda/context.cuh"
#include "kernels/common/cuda/gemm.h"
#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/ptx.cuh"
#include "kernels/copy/copy.h"
#include "tests/support/bench.h"

// What this device can do at best, for figures of the same run to be held against: its copy, its
// products of large matrices, a launch, and barriers of the whole grid, of which a recurrence that
// stays on the device needs one a step.
namespace carousel {
namespace {

// An emulated device has no ceilings worth the time: there the smallest sizes show that all this runs.
#ifdef __CUDACC__
constexpr bool kEmulated = false;
#else
constexpr bool kEmulated = true;
#endif

void copy_ceiling(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  constexpr std::size_t kBytes = std::size_t{1}
                                 << (kEmulated ? 16 : 30);  // many times the L2 cache
  constexpr std::size_t kFloats = kBytes / sizeof(float);
  const test::Buffer<float> from(*device, kFloats), to(*device, kFloats);
  run(*device, Fill<float>{.to = from.view(kFloats), .value = 1.5F});
  const Cast<float, float> copy{.from = from.view(kFloats), .to = to.view(kFloats)};
  test::time_gigabytes(state, *device, 2 * static_cast<std::int64_t>(kBytes),
                       [&] { run(*device, copy); });
}

template <GemmType kType>
void product_ceiling(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  using T = std::conditional_t<kType == GemmType::bf16, bf16, float>;
  const std::int64_t side = state.range(1), size = side * side;
  const auto& cuda = std::get<Cuda>(*device);
  const auto a = test::uniform<T>(*device, size), b = test::uniform<T>(*device, size);
  const test::Buffer<T> c(*device, static_cast<std::size_t>(size));
  const Gemm product{.type = kType,
                     .m = side,
                     .n = side,
                     .k = side,
                     .a = a.view(size).data,
                     .b = b.view(size).data,
                     .c = c.view(size).data};
  const auto n = static_cast<double>(side);
  test::time_rate(state, *device, "GFLOP/s", 2 * n * n * n, [&] { gemm(cuda, product); });
}

__global__ void ceilings_empty_kernel() {}

void launch_ceiling(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const auto& cuda = std::get<Cuda>(*device);
  test::time_rate(state, *device, "million/s", 1e3,
                  [&] { launch(cuda, {}, ceilings_empty_kernel); });
}

constexpr int kRounds = kEmulated ? 2 : 1000;

#ifdef __CUDACC__
__global__ void ceilings_grid_sync_kernel(std::uint32_t*) {
  for (int i = 0; i < kRounds; ++i) cooperative_groups::this_grid().sync();
}
#endif

// Every block adds to one counter and waits until all have.
__global__ void ceilings_flag_barrier_kernel(std::uint32_t* arrived) {
  for (unsigned i = 1; i <= kRounds; ++i) {
    __syncthreads();
    if (threadIdx.x == 0) {
      ptx::add_release(arrived, 1);
      while (ptx::load_acquire(arrived) < i * gridDim.x) {
      }
    }
    __syncthreads();
  }
}

/// Barriers among one block of 256 threads per multiprocessor.
void barrier_ceiling(benchmark::State& state, void (*kernel)(std::uint32_t*)) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const auto& cuda = std::get<Cuda>(*device);
  const test::Buffer<std::int32_t> counter(*device, std::size_t{1});
  auto* const arrived = reinterpret_cast<std::uint32_t*>(counter.view(1).data);
  const std::int64_t blocks = cuda.context().properties.multiProcessorCount;
  test::time_rate(state, *device, "million/s", 1e3 * kRounds, [&] {
    run(*device, Fill<std::int32_t>{.to = counter.view(1), .value = 0});
    launch(cuda, {.blocks = blocks, .threads = 256, .cooperative = true}, kernel, arrived);
  });
}

BENCHMARK(copy_ceiling)->ArgName("cuda")->Arg(1)->UseRealTime();
void squares(benchmark::internal::Benchmark* b) {
  b->ArgNames({"cuda", "n"})->Args({1, kEmulated ? 64 : 8192})->UseRealTime();
}
BENCHMARK(product_ceiling<GemmType::f32>)->Apply(squares);
BENCHMARK(product_ceiling<GemmType::tf32>)->Apply(squares);
BENCHMARK(product_ceiling<GemmType::bf16>)->Apply(squares);
BENCHMARK(launch_ceiling)->ArgName("cuda")->Arg(1)->UseRealTime();
BENCHMARK_CAPTURE(barrier_ceiling, flags, ceilings_flag_barrier_kernel)
    ->ArgName("cuda")
    ->Arg(1)
    ->UseRealTime();
#ifdef __CUDACC__
BENCHMARK_CAPTURE(barrier_ceiling, grid_sync, ceilings_grid_sync_kernel)
    ->ArgName("cuda")
    ->Arg(1)
    ->UseRealTime();
#endif

}  // namespace
}  // namespace carousel
