#include "kernels/context_windows/context_windows.h"

#include <cstdint>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s read once and written, of windows of T·B tokens with K of context.
namespace carousel {
namespace {

void context_windows(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t steps = 64, rows = state.range(1), width = state.range(2);
  const auto size = static_cast<std::size_t>(steps * rows);
  const test::Buffer<std::int32_t> token(*device, std::vector<std::int32_t>(size, 3)),
      reset(*device, std::vector<std::int32_t>(size, 0)),
      context(*device, size * static_cast<std::size_t>(width));
  const ContextWindows op{.token = token.view(steps, rows),
                          .reset = reset.view(steps, rows),
                          .width = width,
                          .context = context.view(steps, rows, width)};
  test::time_gigabytes(state, *device, 4 * steps * rows * (2 + width), [&] { run(*device, op); });
}
void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t cuda : {0, 1}) b->Args({cuda, 32, 4})->Args({cuda, 256, 9});
  b->ArgNames({"cuda", "B", "K"})->UseRealTime();
}
BENCHMARK(context_windows)->Apply(sizes);

}  // namespace
}  // namespace carousel
