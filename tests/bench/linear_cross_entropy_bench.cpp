#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GFLOP/s of the three products, loss and gradients included, and MB of scratch: the ratio to the
// bare products (matmul's benchmark) is what the rest of the op costs.
namespace carousel {
namespace {

using test::Buffer;
using test::uniform;

template <class T>
void linear_cross_entropy(benchmark::State& state) {
  using A = Accumulator<T>;
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t rows = state.range(1), width = state.range(2), vocab = state.range(3);
  const auto count = static_cast<std::size_t>(rows);
  const auto hidden = uniform<T>(*device, rows * width, 1);
  const auto weight = uniform<T>(*device, vocab * width, 1 / std::sqrt(static_cast<double>(width)));
  const auto bias = uniform<A>(*device, vocab, 0.1);
  const Buffer<std::int32_t> target(*device, std::vector<std::int32_t>(count, 1));
  const Buffer<std::int32_t> targets(*device, std::size_t{1});
  const Buffer<A> loss(*device, count), mean(*device, std::size_t{1});
  const Buffer<T> d_hidden(*device, static_cast<std::size_t>(rows * width));
  const Buffer<A> d_weight(*device, static_cast<std::size_t>(vocab * width));
  const Buffer<A> d_bias(*device, static_cast<std::size_t>(vocab));
  LinearCrossEntropy<T> op{.hidden = hidden.view(rows, width),
                           .weight = weight.view(vocab, width),
                           .bias = bias.view(vocab),
                           .target = target.view(rows),
                           .loss = loss.view(rows),
                           .mean_loss = mean.view(1),
                           .count = targets.view(1),
                           .d_hidden = {d_hidden.view(rows, width)},
                           .d_weight = {d_weight.view(vocab, width)},
                           .d_bias = {d_bias.view(vocab)}};
  const auto scratch = test::give_scratch(*device, op);

  const double flops = 6.0 * static_cast<double>(rows * width) * static_cast<double>(vocab);
  test::time_rate(state, *device, "GFLOP/s", flops, [&] { run(*device, op); });
  state.counters["scratch MB"] = 1e-6 * static_cast<double>(op.scratch.extent[0]);
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"cuda", "N", "H", "V"})->Unit(benchmark::kMillisecond)->UseRealTime();
  for (const std::int64_t cuda : {0, 1}) {
    b->Args({cuda, 2048, 256, 65});
    b->Args({cuda, 4096, 512, 10'000});
    b->Args({cuda, 2048, 400, 33'278});
    b->Args({cuda, 4096, 1024, 50'257});
  }
}
BENCHMARK(linear_cross_entropy<float>)->Apply(sizes);
BENCHMARK(linear_cross_entropy<bf16>)->Apply(sizes);

}  // namespace
}  // namespace carousel
