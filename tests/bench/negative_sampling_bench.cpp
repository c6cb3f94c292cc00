#include "kernels/negative_sampling/negative_sampling.h"

#include <cstdint>
#include <vector>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// Thousand million drawn words a second, from a table that fits the cache and from a large one.
namespace carousel {
namespace {

using test::Buffer;

void negative_sampling(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t rows = state.range(1), vocab = state.range(2), words = 5;
  std::vector<double> weights;
  for (std::int64_t v = 0; v < vocab; ++v) weights.push_back(1 / static_cast<double>(v + 1));
  const auto N = static_cast<std::size_t>(rows);
  const Buffer<std::int32_t> target(*device, std::vector<std::int32_t>(N, 1)),
      choice(*device, N * 6), answer(*device, N * 6);
  const Buffer<std::int64_t> columns(*device, alias_columns(weights)),
      step(*device, std::vector<std::int64_t>{1});
  const NegativeSampling op{.target = target.view(rows),
                            .noise = {columns.view(vocab)},
                            .source = {.step = step.view(1)},
                            .choice = choice.view(rows, 1 + words),
                            .answer = answer.view(rows, 1 + words)};
  test::time_rate(state, *device, "Gword/s", static_cast<double>(rows * words),
                  [&] { run(*device, op); });
}
void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t cuda : {0, 1})
    b->Args({cuda, 4096, 33'278})->Args({cuda, 4096, 1'000'000});
  b->ArgNames({"cuda", "N", "V"})->UseRealTime();
}
BENCHMARK(negative_sampling)->Apply(sizes);

}  // namespace
}  // namespace carousel
