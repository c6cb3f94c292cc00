#include "kernels/activation_penalty/activation_penalty.h"

#include <cstdint>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s of the penalties on AWD-LSTM's last layer and on a small one, as they come in training: h is
// read, and the gradient read and written.
namespace carousel {
namespace {

using test::Buffer;

template <class T, PenaltyKind kKind>
void activation_penalty(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t steps = state.range(1), batch = state.range(2), width = state.range(3);
  const std::int64_t size = steps * batch * width;
  const Buffer<T> h = test::uniform<T>(*device, size), d_h = test::uniform<T>(*device, size);
  const Buffer<float> penalty(*device, std::size_t{1});
  ActivationPenalty<T> op{.kind = kKind,
                          .h = h.view(steps, batch, width),
                          .weight = 2,
                          .penalty = penalty.view(1),
                          .d_h = {d_h.view(steps, batch, width), true}};
  const auto scratch = test::give_scratch(*device, op);
  test::time_gigabytes(state, *device, 3 * size * static_cast<std::int64_t>(sizeof(T)),
                       [&] { run(*device, op); });
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"cuda", "T", "B", "H"});
  for (const int cuda : {0, 1}) b->Args({cuda, 70, 80, 400})->Args({cuda, 35, 20, 200});
  b->UseRealTime();
}
BENCHMARK(activation_penalty<float, PenaltyKind::activation>)->Apply(sizes);
BENCHMARK(activation_penalty<float, PenaltyKind::temporal>)->Apply(sizes);
BENCHMARK(activation_penalty<bf16, PenaltyKind::activation>)->Apply(sizes);
BENCHMARK(activation_penalty<bf16, PenaltyKind::temporal>)->Apply(sizes);

}  // namespace
}  // namespace carousel
