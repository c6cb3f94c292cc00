#include "kernels/top_k/top_k.h"

#include <cstdint>
#include <random>
#include <vector>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// The ten nearest of 30,000 and of a million words of width 100, for one word, and for a batch of
// analogies of the first 30,000. GFLOP/s of the product, beside which the selection should be small.
namespace carousel {
namespace {

using test::Buffer;

void top_k(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  constexpr std::int64_t kWidth = 100, kKept = 10;
  const std::int64_t queries = state.range(1), rows = state.range(2);
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 0.1F);
  const auto drawn = [&](std::int64_t count) {
    std::vector<float> values(static_cast<std::size_t>(count));
    for (float& x : values) x = normal(random);
    return Buffer<float>(*device, values);
  };
  const Buffer<float> query = drawn(queries * kWidth), table = drawn(rows * kWidth);
  const Buffer<float> all(*device, static_cast<std::size_t>(queries * rows));
  const Buffer<float> score(*device, static_cast<std::size_t>(queries * kKept));
  const Buffer<std::int32_t> index(*device, static_cast<std::size_t>(queries * kKept));
  const TopK<float> op{.query = query.view(queries, kWidth),
                       .table = table.view(rows, kWidth),
                       .all = all.view(queries, rows),
                       .index = index.view(queries, kKept),
                       .score = score.view(queries, kKept)};
  test::time_rate(state, *device, "GFLOP/s", 2e0 * static_cast<double>(queries * rows * kWidth),
                  [&] { run(*device, op); });
}
BENCHMARK(top_k)
    ->ArgNames({"cuda", "N", "V"})
    ->ArgsProduct({{0, 1}, {1}, {30'000, 1'000'000}})
    ->ArgsProduct({{0, 1}, {512}, {30'000}})
    ->UseRealTime();

}  // namespace
}  // namespace carousel
