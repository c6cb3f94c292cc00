#include "kernels/layer_norm/layer_norm.h"

#include <cstdint>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s read and written of x, d_y, y and d_x [T·B, H], by the contract's Memory lines without what
// the cache serves.
namespace carousel {
namespace {

template <class T>
struct Layer {
  test::Buffer<T> x, y, d_x;
  test::Buffer<float> gain, bias, mean, inverse_deviation, d_gain, d_bias;
  std::int64_t rows, columns;

  Layer(const Device& device, std::int64_t n, std::int64_t c)
      : x(test::uniform<T>(device, n * c)),
        y(test::uniform<T>(device, n * c)),
        d_x(test::uniform<T>(device, n * c)),
        gain(test::uniform<float>(device, c)),
        bias(test::uniform<float>(device, c)),
        mean(test::uniform<float>(device, n)),
        inverse_deviation(test::uniform<float>(device, n)),
        d_gain(test::uniform<float>(device, c)),
        d_bias(test::uniform<float>(device, c)),
        rows(n),
        columns(c) {}
};

template <class T>
void layer_norm_forward(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const Layer<T> l(*device, state.range(1), state.range(2));
  const LayerNormForward<T> op{.x = l.x.view(l.rows, l.columns),
                               .gain = l.gain.view(l.columns),
                               .bias = l.bias.view(l.columns),
                               .y = l.y.view(l.rows, l.columns),
                               .mean = l.mean.view(l.rows),
                               .inverse_deviation = l.inverse_deviation.view(l.rows)};
  const std::int64_t bytes = 2 * l.rows * l.columns * static_cast<std::int64_t>(sizeof(T));
  test::time_gigabytes(state, *device, bytes, [&] { run(*device, op); });
}

template <class T>
void layer_norm_backward(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const Layer<T> l(*device, state.range(1), state.range(2));
  LayerNormBackward<T> op{.x = l.x.view(l.rows, l.columns),
                          .gain = l.gain.view(l.columns),
                          .mean = l.mean.view(l.rows),
                          .inverse_deviation = l.inverse_deviation.view(l.rows),
                          .d_y = l.y.view(l.rows, l.columns),
                          .d_x = {l.d_x.view(l.rows, l.columns)},
                          .d_gain = {l.d_gain.view(l.columns)},
                          .d_bias = {l.d_bias.view(l.columns)}};
  const auto scratch = test::give_scratch(*device, op);
  const std::int64_t bytes = 5 * l.rows * l.columns * static_cast<std::int64_t>(sizeof(T));
  test::time_gigabytes(state, *device, bytes, [&] { run(*device, op); });
}

void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t cuda : {0, 1}) b->Args({cuda, 2048, 256})->Args({cuda, 4096, 1024});
  b->ArgNames({"cuda", "TB", "H"})->UseRealTime();
}
BENCHMARK(layer_norm_forward<float>)->Apply(sizes);
BENCHMARK(layer_norm_forward<bf16>)->Apply(sizes);
BENCHMARK(layer_norm_backward<float>)->Apply(sizes);
BENCHMARK(layer_norm_backward<bf16>)->Apply(sizes);

}  // namespace
}  // namespace carousel
