#include "kernels/reduce/reduce.h"

#include <cstdint>
#include <vector>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s of bias gradients: an LSTM's gates and a vocabulary of 10,000 words.
namespace carousel {
namespace {

using test::Buffer;

template <class T>
void column_sum(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t rows = state.range(1), columns = state.range(2);
  const Buffer<T> x(*device, std::vector<T>(static_cast<std::size_t>(rows * columns), T(1.0F)));
  const Buffer<float> sum(*device, static_cast<std::size_t>(columns));
  const std::int64_t scratch_size = column_sum_scratch(rows, columns);
  const Buffer<float> scratch(*device, static_cast<std::size_t>(scratch_size));
  const ColumnSum<T> op{.x = x.view(rows, columns),
                        .sum = {sum.view(columns)},
                        .scratch = scratch.view(scratch_size)};
  test::time_gigabytes(state, *device, rows * columns * static_cast<std::int64_t>(sizeof(T)),
                       [&] { run(*device, op); });
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"cuda", "N", "C"});
  for (const int cuda : {0, 1}) {
    b->Args({cuda, 2048, 1024})->Args({cuda, 4096, 4096})->Args({cuda, 700, 10'000});
  }
}
BENCHMARK(column_sum<float>)->Apply(shapes)->UseRealTime();
BENCHMARK(column_sum<bf16>)->Apply(shapes)->UseRealTime();

}  // namespace
}  // namespace carousel
