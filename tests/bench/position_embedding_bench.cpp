#include "kernels/position_embedding/position_embedding.h"

#include <cstdint>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s read and written of x and y, or d_y and d_x, [T, B, E], by a learnt table or sinusoids.
namespace carousel {
namespace {

template <class T, bool learnt>
void position_embedding_forward(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t steps = state.range(1), batch = state.range(2), width = state.range(3);
  const auto x = test::uniform<T>(*device, steps * batch * width),
             y = test::uniform<T>(*device, steps * batch * width),
             table = test::uniform<T>(*device, steps * width);
  const PositionEmbeddingForward<T> op{.x = x.view(steps, batch, width),
                                       .table = learnt ? table.view(steps, width) : View<T, 2>{},
                                       .y = y.view(steps, batch, width)};
  test::time_gigabytes(state, *device,
                       2 * steps * batch * width * static_cast<std::int64_t>(sizeof(T)),
                       [&] { run(*device, op); });
}

template <class T>
void position_embedding_backward(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t steps = state.range(1), batch = state.range(2), width = state.range(3);
  const auto d_y = test::uniform<T>(*device, steps * batch * width),
             d_x = test::uniform<T>(*device, steps * batch * width);
  const auto d_table = test::uniform<float>(*device, steps * width);
  const PositionEmbeddingBackward<T> op{.d_y = d_y.view(steps, batch, width),
                                        .d_x = {d_x.view(steps, batch, width)},
                                        .d_table = {d_table.view(steps, width)}};
  test::time_gigabytes(state, *device,
                       3 * steps * batch * width * static_cast<std::int64_t>(sizeof(T)),
                       [&] { run(*device, op); });
}

void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t cuda : {0, 1}) b->Args({cuda, 64, 12, 128})->Args({cuda, 1024, 4, 768});
  b->ArgNames({"cuda", "T", "B", "E"})->UseRealTime();
}
BENCHMARK_TEMPLATE(position_embedding_forward, float, true)->Apply(sizes);
BENCHMARK_TEMPLATE(position_embedding_forward, float, false)->Apply(sizes);
BENCHMARK_TEMPLATE(position_embedding_forward, bf16, true)->Apply(sizes);
BENCHMARK_TEMPLATE(position_embedding_backward, float)->Apply(sizes);
BENCHMARK_TEMPLATE(position_embedding_backward, bf16)->Apply(sizes);

}  // namespace
}  // namespace carousel
