#include "kernels/gradient_norm_penalty/gradient_norm_penalty.h"

#include <cstdint>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GFLOP/s of the penalty on a layer's window, counting its two products, to be read beside matmul.
namespace carousel {
namespace {

using test::Buffer;

template <class T>
void gradient_norm_penalty(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t steps = state.range(1), batch = state.range(2), width = state.range(3);
  const std::int64_t size = steps * batch * width;
  const Buffer<T> delta = test::uniform<T>(*device, size), h = test::uniform<T>(*device, size);
  const Buffer<T> w = test::uniform<T>(*device, width * width, 0.1);
  const Buffer<float> d_w = test::uniform<float>(*device, width * width);
  const Buffer<float> penalty(*device, std::size_t{1});
  GradientNormPenalty<T> op{.delta = delta.view(steps, batch, width),
                            .h = h.view(steps, batch, width),
                            .weight_hh = w.view(width, width),
                            .penalty = penalty.view(1),
                            .d_weight_hh = {d_w.view(width, width), true}};
  const auto scratch = test::give_scratch(*device, op);
  const double flops = 4.0 * static_cast<double>((steps - 1) * batch * width * width);
  test::time_rate(state, *device, "GFLOP/s", flops, [&] { run(*device, op); });
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"cuda", "T", "B", "H"});
  for (const int cuda : {0, 1}) b->Args({cuda, 64, 32, 256})->Args({cuda, 128, 64, 1024});
  b->UseRealTime();
}
BENCHMARK(gradient_norm_penalty<float>)->Apply(sizes);
BENCHMARK(gradient_norm_penalty<bf16>)->Apply(sizes);

}  // namespace
}  // namespace carousel
