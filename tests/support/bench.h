#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>
#include <optional>
#include <variant>

#include "kernels/common/device.h"
#include "tests/support/device.h"
#include "tests/support/uniform.h"

namespace carousel::test {

/// The device that a benchmark's first argument names: 0 is the CPU, 1 is CUDA. If there is no such
/// device, nothing, and the benchmark is marked as skipped.
inline std::optional<Device> bench_device(benchmark::State& state) {
  if (state.range(0) == 0) return devices().front();
  if (cuda_device() != nullptr) return *cuda_device();
  state.SkipWithError("no CUDA device");
  return std::nullopt;
}

/// Times `work`, which does `amount` of `unit` (bytes for GB/s, operations for GFLOP/s), and reports
/// the rate. On CUDA the host waits once for ten runs, so that a launch's latency is not counted as
/// the kernel's time.
template <class Work>
void time_rate(benchmark::State& state, const Device& device, const char* unit, double amount,
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
  state.counters[unit] =
      benchmark::Counter(1e-9 * amount * runs, benchmark::Counter::kIsIterationInvariantRate);
}

/// time_rate() of work that moves `bytes` by its contract's Memory line.
template <class Work>
void time_gigabytes(benchmark::State& state, const Device& device, std::int64_t bytes,
                    const Work& work) {
  time_rate(state, device, "GB/s", static_cast<double>(bytes), work);
}

}  // namespace carousel::test
