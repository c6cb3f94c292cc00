#include "kernels/rms_norm/rms_norm.h"

#include <cstdint>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s read and written of x and y, and of x, d_y and d_x [T·B, E], without what the cache serves.
namespace carousel {
namespace {

template <class T>
void rms_norm_forward(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t N = state.range(1), C = state.range(2);
  const auto x = test::uniform<T>(*device, N * C), y = test::uniform<T>(*device, N * C);
  const auto gain = test::uniform<float>(*device, C), inverse = test::uniform<float>(*device, N);
  const RmsNormForward<T> op{
      .x = x.view(N, C), .gain = gain.view(C), .y = y.view(N, C), .inverse_rms = inverse.view(N)};
  test::time_gigabytes(state, *device, 2 * N * C * static_cast<std::int64_t>(sizeof(T)),
                       [&] { run(*device, op); });
}

/// With the residual sum.
template <class T>
void add_rms_norm(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t N = state.range(1), C = state.range(2);
  const auto x = test::uniform<T>(*device, N * C), added = test::uniform<T>(*device, N * C),
             sum = test::uniform<T>(*device, N * C), y = test::uniform<T>(*device, N * C);
  const auto gain = test::uniform<float>(*device, C), inverse = test::uniform<float>(*device, N);
  const RmsNormForward<T> op{.x = x.view(N, C),
                             .added = added.view(N, C),
                             .gain = gain.view(C),
                             .sum = sum.view(N, C),
                             .y = y.view(N, C),
                             .inverse_rms = inverse.view(N)};
  test::time_gigabytes(state, *device, 4 * N * C * static_cast<std::int64_t>(sizeof(T)),
                       [&] { run(*device, op); });
}

template <class T>
void rms_norm_backward(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t N = state.range(1), C = state.range(2);
  const auto x = test::uniform<T>(*device, N * C), d_y = test::uniform<T>(*device, N * C),
             d_x = test::uniform<T>(*device, N * C);
  const auto gain = test::uniform<float>(*device, C), inverse = test::uniform<float>(*device, N),
             d_gain = test::uniform<float>(*device, C);
  RmsNormBackward<T> op{.x = x.view(N, C),
                        .gain = gain.view(C),
                        .inverse_rms = inverse.view(N),
                        .d_y = d_y.view(N, C),
                        .d_x = {d_x.view(N, C)},
                        .d_gain = {d_gain.view(C)}};
  const auto scratch = test::give_scratch(*device, op);
  test::time_gigabytes(state, *device, 5 * N * C * static_cast<std::int64_t>(sizeof(T)),
                       [&] { run(*device, op); });
}

void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t cuda : {0, 1}) b->Args({cuda, 768, 128})->Args({cuda, 4096, 1024});
  b->ArgNames({"cuda", "TB", "E"})->UseRealTime();
}
BENCHMARK(rms_norm_forward<float>)->Apply(sizes);
BENCHMARK(rms_norm_forward<bf16>)->Apply(sizes);
BENCHMARK(add_rms_norm<float>)->Apply(sizes);
BENCHMARK(add_rms_norm<bf16>)->Apply(sizes);
BENCHMARK(rms_norm_backward<float>)->Apply(sizes);
BENCHMARK(rms_norm_backward<bf16>)->Apply(sizes);

}  // namespace
}  // namespace carousel
