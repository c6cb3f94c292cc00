#include "kernels/dropout/dropout.h"

#include <cstdint>
#include <vector>

#include "kernels/copy/copy.h"
#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s of dropout on a step's activations, T·B·H for a small and a large model, to be read beside
// copy<T, T>: a mask costs ten rounds of Philox per four elements and no memory.
namespace carousel {
namespace {

using test::Buffer;

template <class T, bool kBackward, std::int64_t kSteps = 0>
void dropout(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t size = state.range(1);
  const Buffer<T> x(*device, std::vector<T>(static_cast<std::size_t>(size), T(1.0F)));
  const Buffer<T> y(*device, static_cast<std::size_t>(size));
  const Buffer<std::int64_t> step(*device, std::vector<std::int64_t>{5});
  const RandomSource source{.seed = 1, .stream = 2, .step = step.view(1)};
  const std::int64_t period = kSteps == 0 ? 0 : size / kSteps;
  constexpr auto kBytes = static_cast<std::int64_t>(sizeof(T));
  if constexpr (kBackward) {
    run(*device, Fill<T>{.to = y.view(size), .value = T(0.0F)});
    const DropoutBackward<T> op{.d_y = x.view(size),
                                .d_x = {y.view(size), true},
                                .drop_probability = 0.2F,
                                .source = source,
                                .period = period};
    test::time_gigabytes(state, *device, 3 * kBytes * size, [&] { run(*device, op); });
  } else {
    const DropoutForward<T> op{.x = x.view(size),
                               .y = y.view(size),
                               .drop_probability = 0.2F,
                               .source = source,
                               .period = period};
    test::time_gigabytes(state, *device, 2 * kBytes * size, [&] { run(*device, op); });
  }
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"cuda", "n"})
      ->ArgsProduct({{0, 1}, {64 * 32 * 256, 128 * 256 * 1024}})
      ->UseRealTime();
}
BENCHMARK(dropout<float, false>)->Apply(sizes);
BENCHMARK(dropout<bf16, false>)->Apply(sizes);
BENCHMARK(dropout<float, true>)->Apply(sizes);
BENCHMARK(dropout<bf16, true>)->Apply(sizes);
// One mask for all of 64 steps.
BENCHMARK(dropout<float, false, 64>)->Apply(sizes);
BENCHMARK(dropout<bf16, false, 64>)->Apply(sizes);

}  // namespace
}  // namespace carousel
