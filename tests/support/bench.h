#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>
#include <optional>
#include <variant>

#include "kernels/common/device.h"
#include "tests/support/device.h"

namespace carousel::test {

/// The device a benchmark's first argument names: 0 is the CPU, 1 is CUDA. Nothing, with the
/// benchmark marked as skipped, where the build or the machine has no such device.
inline std::optional<Device> bench_device(benchmark::State& state) {
  if (state.range(0) == 0) return Device(Cpu{});
  if (cuda_device() != nullptr) return *cuda_device();
  state.SkipWithError("no CUDA device");
  return std::nullopt;
}

/// Times `work`, which moves `bytes` by its contract's Memory line, and reports GB/s. On CUDA the
/// host waits once for ten runs, so that a launch's latency is not counted as the kernel's time.
template <class Work>
void time_gigabytes(benchmark::State& state, const Device& device, std::int64_t bytes,
                    const Work& work) {
  const int runs = is_cpu(device) ? 1 : 10;
  const auto finish = [&] {
#if CAROUSEL_CUDA
    if (const auto* cuda = std::get_if<Cuda>(&device)) cuda->synchronize();
#endif
  };
  work();  // warm-up
  finish();
  for (auto _ : state) {
    for (int i = 0; i < runs; ++i) work();
    finish();
  }
  state.counters["GB/s"] = benchmark::Counter(1e-9 * static_cast<double>(bytes) * runs,
                                              benchmark::Counter::kIsIterationInvariantRate);
}

}  // namespace carousel::test
