#include "kernels/cross_entropy/cross_entropy.h"

#include <cstdint>
#include <vector>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s of the logits read (and gradients written): vocabularies of characters, words and GPT-2.
namespace carousel {
namespace {

using test::Buffer;

template <class T>
struct Rows {
  Device device;
  std::int64_t rows, vocab;
  std::size_t count = static_cast<std::size_t>(rows),
              size = count * static_cast<std::size_t>(vocab);
  Buffer<T> logits = test::uniform<T>(device, rows* vocab, 5);
  Buffer<std::int32_t> target{device, std::vector<std::int32_t>(count, 1)};
  Buffer<Accumulator<T>> ones{device, std::vector<Accumulator<T>>(count, 1)};
  Buffer<Accumulator<T>> loss{device, count}, lse{device, count};
  Buffer<T> d_logits{device, size};

  void forward() const {
    run(device, CrossEntropyForward<T>{.logits = logits.view(rows, vocab),
                                       .target = target.view(rows),
                                       .loss = loss.view(rows),
                                       .lse = lse.view(rows)});
  }
  void backward() const {
    run(device, CrossEntropyBackward<T>{.d_loss = ones.view(rows),
                                        .logits = logits.view(rows, vocab),
                                        .target = target.view(rows),
                                        .lse = lse.view(rows),
                                        .d_logits = {d_logits.view(rows, vocab)}});
  }
  std::int64_t bytes() const { return rows * vocab * static_cast<std::int64_t>(sizeof(T)); }
};

template <class T>
void cross_entropy_forward(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const Rows<T> problem{.device = *device, .rows = state.range(1), .vocab = state.range(2)};
  test::time_gigabytes(state, *device, problem.bytes(), [&] { problem.forward(); });
}

template <class T>
void cross_entropy_backward(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const Rows<T> problem{.device = *device, .rows = state.range(1), .vocab = state.range(2)};
  problem.forward();
  test::time_gigabytes(state, *device, 2 * problem.bytes(), [&] { problem.backward(); });
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"cuda", "N", "V"})
      ->ArgsProduct({{0, 1}, {2048, 4096}, {65, 10'000, 50'257}})
      ->UseRealTime();
}
BENCHMARK(cross_entropy_forward<float>)->Apply(sizes);
BENCHMARK(cross_entropy_forward<bf16>)->Apply(sizes);
BENCHMARK(cross_entropy_backward<float>)->Apply(sizes);
BENCHMARK(cross_entropy_backward<bf16>)->Apply(sizes);

}  // namespace
}  // namespace carousel
