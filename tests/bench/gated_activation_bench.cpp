#include "kernels/gated_activation/gated_activation.h"

#include <cstdint>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s read and written, of the gated hidden layer of a model [T·B, 2·C].
namespace carousel {
namespace {

template <class T>
void gated_activation_forward(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t N = state.range(1), C = state.range(2);
  const auto x = test::uniform<T>(*device, N * 2 * C, 4), y = test::uniform<T>(*device, N * C);
  const GatedActivationForward<T> op{.x = x.view(N, 2 * C), .y = y.view(N, C)};
  test::time_gigabytes(state, *device, 3 * N * C * static_cast<std::int64_t>(sizeof(T)),
                       [&] { run(*device, op); });
}

template <class T>
void gated_activation_backward(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t N = state.range(1), C = state.range(2);
  const auto x = test::uniform<T>(*device, N * 2 * C, 4), d_y = test::uniform<T>(*device, N * C),
             d_x = test::uniform<T>(*device, N * 2 * C);
  const GatedActivationBackward<T> op{
      .x = x.view(N, 2 * C), .d_y = d_y.view(N, C), .d_x = {d_x.view(N, 2 * C)}};
  test::time_gigabytes(state, *device, 5 * N * C * static_cast<std::int64_t>(sizeof(T)),
                       [&] { run(*device, op); });
}

void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t cuda : {0, 1}) b->Args({cuda, 768, 512})->Args({cuda, 4096, 3072});
  b->ArgNames({"cuda", "TB", "C"})->UseRealTime();
}
BENCHMARK(gated_activation_forward<float>)->Apply(sizes);
BENCHMARK(gated_activation_forward<bf16>)->Apply(sizes);
BENCHMARK(gated_activation_backward<float>)->Apply(sizes);
BENCHMARK(gated_activation_backward<bf16>)->Apply(sizes);

}  // namespace
}  // namespace carousel
