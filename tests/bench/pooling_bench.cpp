#include "kernels/pooling/pooling.h"

#include <cstdint>
#include <vector>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s of the states read (and gradients written), [T, B, H] of a small and a large classifier.
namespace carousel {
namespace {

using test::Buffer;

template <class T, Pooling kKind>
struct Batch {
  Device device;
  std::int64_t steps, rows, width;
  Buffer<T> x = test::uniform<T>(device, steps* rows* width);
  Buffer<T> y = test::uniform<T>(device, rows* width);
  Buffer<T> d_x = test::uniform<T>(device, steps* rows* width);
  Buffer<std::int32_t> step{device, static_cast<std::size_t>(rows* width)};

  View<std::int32_t, 2> chosen() const {
    return kKind == Pooling::max ? step.view(rows, width) : View<std::int32_t, 2>();
  }
  void forward() const {
    run(device, PoolingForward<T>{.x = x.view(steps, rows, width),
                                  .kind = kKind,
                                  .y = y.view(rows, width),
                                  .chosen = chosen()});
  }
  void backward() const {
    run(device, PoolingBackward<T>{.d_y = y.view(rows, width),
                                   .kind = kKind,
                                   .chosen = chosen(),
                                   .d_x = {d_x.view(steps, rows, width)}});
  }
  std::int64_t bytes() const { return steps * rows * width * static_cast<std::int64_t>(sizeof(T)); }
};

template <class T, Pooling kKind, bool kBackward>
void pooling(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const Batch<T, kKind> batch{
      .device = *device, .steps = state.range(1), .rows = state.range(2), .width = state.range(3)};
  batch.forward();
  test::time_gigabytes(state, *device, batch.bytes(),
                       [&] { kBackward ? batch.backward() : batch.forward(); });
}

void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t cuda : {0, 1}) {
    b->Args({cuda, 64, 32, 256})->Args({cuda, 128, 256, 1024});
  }
  b->ArgNames({"cuda", "T", "B", "H"})->UseRealTime();
}
BENCHMARK(pooling<float, Pooling::mean, false>)->Apply(sizes);
BENCHMARK(pooling<float, Pooling::max, false>)->Apply(sizes);
BENCHMARK(pooling<bf16, Pooling::mean, false>)->Apply(sizes);
BENCHMARK(pooling<bf16, Pooling::max, false>)->Apply(sizes);
BENCHMARK(pooling<float, Pooling::mean, true>)->Apply(sizes);
BENCHMARK(pooling<float, Pooling::max, true>)->Apply(sizes);
BENCHMARK(pooling<bf16, Pooling::mean, true>)->Apply(sizes);
BENCHMARK(pooling<bf16, Pooling::max, true>)->Apply(sizes);

}  // namespace
}  // namespace carousel
