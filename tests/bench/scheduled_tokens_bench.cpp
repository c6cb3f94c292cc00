#include "kernels/scheduled_tokens/scheduled_tokens.h"

#include <cstdint>
#include <vector>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s of tokens read and written: a step of a decoder, and many.
namespace carousel {
namespace {

void scheduled_tokens(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t count = state.range(1);
  const test::Buffer<std::int32_t> given(
      *device, std::vector<std::int32_t>(static_cast<std::size_t>(count), 1)),
      token(*device, static_cast<std::size_t>(count));
  const test::Buffer<std::int64_t> step(*device, std::vector<std::int64_t>{5});
  test::time_gigabytes(state, *device, 12 * count, [&] {
    run(*device, ScheduledTokens{.given = given.view(count),
                                 .own = given.view(count),
                                 .forcing = {.steps = 10},
                                 .random = {.seed = 1, .step = step.view(1)},
                                 .token = token.view(count)});
  });
}
BENCHMARK(scheduled_tokens)
    ->ArgNames({"cuda", "N"})
    ->Args({0, 64})
    ->Args({1, 64})
    ->Args({1, 1 << 20})
    ->UseRealTime();

}  // namespace
}  // namespace carousel
