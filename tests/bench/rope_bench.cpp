#include "kernels/rope/rope.h"

#include <cstdint>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s read and written, of queries, keys and values [T, B, 3·E] of heads of 64, turned where they lie.
namespace carousel {
namespace {

template <class T>
void rope(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t steps = state.range(1), batch = state.range(2), width = state.range(3);
  const auto x = test::uniform<T>(*device, steps * batch * 3 * width);
  const auto view = x.view(steps, batch, 3 * width);
  const Rope<T> op{.x = view, .heads = 2 * width / 64, .head_width = 64, .y = {view}};
  test::time_gigabytes(state, *device,
                       4 * steps * batch * width * static_cast<std::int64_t>(sizeof(T)),
                       [&] { run(*device, op); });
}

void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t cuda : {0, 1}) b->Args({cuda, 64, 12, 128})->Args({cuda, 1024, 4, 768});
  b->ArgNames({"cuda", "T", "B", "E"})->UseRealTime();
}
BENCHMARK(rope<float>)->Apply(sizes);
BENCHMARK(rope<bf16>)->Apply(sizes);

}  // namespace
}  // namespace carousel
