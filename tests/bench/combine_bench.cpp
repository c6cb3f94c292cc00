#include "kernels/combine/combine.h"

#include <cstdint>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s read and written: the two directions of a layer side by side, [T·B, H] each, and the sum of a
// residual connection, [T·B, H].
namespace carousel {
namespace {

template <class T>
void concatenate(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t rows = state.range(1), width = state.range(2);
  const auto a = test::uniform<T>(*device, rows * width),
             b = test::uniform<T>(*device, rows * width);
  const auto y = test::uniform<T>(*device, 2 * rows * width);
  const CopyColumns<T> left{
      .from = a.view(rows, width), .to = {y.view(rows, 2 * width)}, .width = width};
  CopyColumns<T> right = left;
  right.from = b.view(rows, width);
  right.first_to = width;
  test::time_gigabytes(state, *device, 4 * rows * width * static_cast<std::int64_t>(sizeof(T)),
                       [&] {
                         run(*device, left);
                         run(*device, right);
                       });
}

template <class T>
void add(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t size = state.range(1) * state.range(2);
  const auto a = test::uniform<T>(*device, size), b = test::uniform<T>(*device, size);
  const auto y = test::uniform<T>(*device, size);
  const Add<T> op{.a = a.view(size), .b = b.view(size), .y = y.view(size)};
  test::time_gigabytes(state, *device, 3 * size * static_cast<std::int64_t>(sizeof(T)),
                       [&] { run(*device, op); });
}

void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t cuda : {0, 1}) b->Args({cuda, 2048, 256})->Args({cuda, 4096, 1024});
  b->ArgNames({"cuda", "TB", "H"})->UseRealTime();
}
BENCHMARK(concatenate<float>)->Apply(sizes);
BENCHMARK(concatenate<bf16>)->Apply(sizes);
BENCHMARK(add<float>)->Apply(sizes);
BENCHMARK(add<bf16>)->Apply(sizes);

}  // namespace
}  // namespace carousel
