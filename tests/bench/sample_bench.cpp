#include "kernels/sample/sample.h"

#include <cstdint>
#include <random>
#include <vector>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// Drawing one token of 65 characters, 10,000 words or GPT-2's 50,257, and 64 rows of those at once;
// plain, and with top-k and top-p. GB/s of one reading of the logits.
namespace carousel {
namespace {

using test::Buffer;

void sample(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t rows = state.range(1), vocabulary = state.range(2);
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 3);
  std::vector<float> values(static_cast<std::size_t>(rows * vocabulary));
  for (float& x : values) x = normal(random);
  const Buffer<float> logits(*device, values);
  const Buffer<std::int64_t> step(*device, std::vector<std::int64_t>{1});
  const Buffer<std::int32_t> token(*device, static_cast<std::size_t>(rows));
  const bool cut = state.range(3) != 0;
  const Sample<float> op{.logits = logits.view(rows, vocabulary),
                         .temperature = 0.8F,
                         .top_k = cut ? 50 : 0,
                         .top_p = cut ? 0.95F : 1.0F,
                         .random = {.seed = 1, .step = step.view(1)},
                         .token = token.view(rows)};
  test::time_gigabytes(state, *device, 4 * rows * vocabulary, [&] { run(*device, op); });
}
BENCHMARK(sample)
    ->ArgNames({"cuda", "B", "V", "cut"})
    ->ArgsProduct({{0, 1}, {1, 64}, {65, 10'000, 50'257}, {0, 1}})
    ->UseRealTime();

}  // namespace
}  // namespace carousel
