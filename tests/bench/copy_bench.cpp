#include "kernels/copy/copy.h"

#include <cstdint>
#include <vector>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s of fills, casts and gathers. copy<float, float> is the machine's own rate, which the
// other benchmarks of this program are read against. Sizes: a step's activations (in cache on a
// GPU), and a vocabulary matrix (in memory).
namespace carousel {
namespace {

using test::Buffer;

template <class From, class To>
void copy(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t size = state.range(1);
  Buffer<From> from(*device, std::vector<From>(static_cast<std::size_t>(size), From(1.0F)));
  Buffer<To> to(*device, static_cast<std::size_t>(size));
  const Cast<From, To> op{.from = from.view(size), .to = to.view(size)};
  constexpr auto kBytes = static_cast<std::int64_t>(sizeof(From) + sizeof(To));
  test::time_gigabytes(state, *device, size * kBytes, [&] { run(*device, op); });
}

template <class T>
void fill(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t size = state.range(1);
  Buffer<T> to(*device, static_cast<std::size_t>(size));
  const Fill<T> op{.to = to.view(size), .value = T(1.0F)};
  test::time_gigabytes(state, *device, size * static_cast<std::int64_t>(sizeof(T)),
                       [&] { run(*device, op); });
}

void gather_windows(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t steps = state.range(1), rows = state.range(2), length = 4 << 20;
  std::vector<std::int64_t> first(static_cast<std::size_t>(rows));
  for (std::size_t b = 0; b < first.size(); ++b) {
    first[b] = static_cast<std::int64_t>(b) * (length / rows);
  }
  Buffer<std::int32_t> stream(*device, std::vector<std::int32_t>(4 << 20, 1));
  Buffer<std::int64_t> position(*device, first);
  const auto count = static_cast<std::size_t>(steps * rows);
  Buffer<std::int32_t> token(*device, count), target(*device, count), reset(*device, count);
  const GatherWindows op{.stream = stream.view(length),
                         .position = position.view(rows),
                         .document_end = 1,
                         .token = token.view(steps, rows),
                         .target = target.view(steps, rows),
                         .reset = reset.view(steps, rows)};
  test::time_gigabytes(state, *device, 16 * steps * rows, [&] { run(*device, op); });
}

template <class T>
void gather_rows(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t rows = state.range(1), inner = state.range(2);
  const auto count = static_cast<std::size_t>(rows * inner);
  std::vector<std::int32_t> reversed(static_cast<std::size_t>(rows));
  for (std::size_t r = 0; r < reversed.size(); ++r) {
    reversed[r] = static_cast<std::int32_t>(reversed.size() - 1 - r);
  }
  Buffer<T> from(*device, std::vector<T>(count, T(1.0F))), to(*device, count);
  Buffer<std::int32_t> row(*device, reversed);
  const GatherRows<T> op{
      .from = from.view(1, rows, inner), .row = row.view(rows), .to = to.view(1, rows, inner)};
  constexpr auto kBytes = static_cast<std::int64_t>(2 * sizeof(T));
  test::time_gigabytes(state, *device, rows * inner * kBytes, [&] { run(*device, op); });
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"cuda", "n"})->ArgsProduct({{0, 1}, {64 * 32 * 512, 50'257 * 1024}})->UseRealTime();
}
void windows(benchmark::internal::Benchmark* b) {
  b->ArgNames({"cuda", "T", "B"})->ArgsProduct({{0, 1}, {64}, {32, 256}})->UseRealTime();
}
// A beam's states: small ones of a recurrent cell, and a cache's.
void beams(benchmark::internal::Benchmark* b) {
  b->ArgNames({"cuda", "B", "I"})->ArgsProduct({{0, 1}, {64}, {1024, 512 * 1024}})->UseRealTime();
}
BENCHMARK(copy<float, float>)->Apply(sizes);
BENCHMARK(copy<bf16, bf16>)->Apply(sizes);
BENCHMARK(copy<float, bf16>)->Apply(sizes);
BENCHMARK(copy<bf16, float>)->Apply(sizes);
BENCHMARK(fill<float>)->Apply(sizes);
BENCHMARK(fill<bf16>)->Apply(sizes);
BENCHMARK(gather_windows)->Apply(windows);
BENCHMARK(gather_rows<float>)->Apply(beams);
BENCHMARK(gather_rows<bf16>)->Apply(beams);

}  // namespace
}  // namespace carousel
