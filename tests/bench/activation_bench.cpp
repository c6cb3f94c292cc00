#include "kernels/activation/activation.h"

#include <cstdint>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s read and written, of the hidden layer of a model [T·B, H].
namespace carousel {
namespace {

template <class T, Activation kind>
void activation_forward(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t size = state.range(1) * state.range(2);
  const auto x = test::uniform<T>(*device, size, 4), y = test::uniform<T>(*device, size);
  const ActivationForward<T> op{.x = x.view(size), .y = y.view(size), .kind = kind};
  test::time_gigabytes(state, *device, 2 * size * static_cast<std::int64_t>(sizeof(T)),
                       [&] { run(*device, op); });
}

template <class T, Activation kind>
void activation_backward(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t size = state.range(1) * state.range(2);
  const auto x = test::uniform<T>(*device, size, 4), d_y = test::uniform<T>(*device, size),
             d_x = test::uniform<T>(*device, size);
  const ActivationBackward<T> op{
      .x = x.view(size), .d_y = d_y.view(size), .d_x = {d_x.view(size)}, .kind = kind};
  test::time_gigabytes(state, *device, 3 * size * static_cast<std::int64_t>(sizeof(T)),
                       [&] { run(*device, op); });
}

void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t cuda : {0, 1}) b->Args({cuda, 2048, 256})->Args({cuda, 4096, 1024});
  b->ArgNames({"cuda", "TB", "H"})->UseRealTime();
}
BENCHMARK_TEMPLATE(activation_forward, float, Activation::gelu)->Apply(sizes);
BENCHMARK_TEMPLATE(activation_forward, float, Activation::gelu_tanh)->Apply(sizes);
BENCHMARK_TEMPLATE(activation_forward, bf16, Activation::gelu)->Apply(sizes);
BENCHMARK_TEMPLATE(activation_backward, float, Activation::gelu)->Apply(sizes);
BENCHMARK_TEMPLATE(activation_backward, float, Activation::gelu_tanh)->Apply(sizes);
BENCHMARK_TEMPLATE(activation_backward, bf16, Activation::gelu)->Apply(sizes);

}  // namespace
}  // namespace carousel
