#include "kernels/adam/adam.h"

#include <cstdint>
#include <vector>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s of one update of all weights of a model, bf16 copy included: 0.8 M (a character model), 13 M
// and 66 M numbers, 30 bytes moved for each.
namespace carousel {
namespace {

using test::Buffer;

void adam(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t size = state.range(1);
  const auto count = static_cast<std::size_t>(size);
  const Buffer<float> weight(*device, std::vector<float>(count, 1.0F));
  const Buffer<float> gradient(*device, std::vector<float>(count, 0.01F));
  const Buffer<float> m(*device, std::vector<float>(count, 0.0F));
  const Buffer<float> v(*device, std::vector<float>(count, 0.0F));
  const Buffer<std::int64_t> step(*device, std::vector<std::int64_t>{12'345});
  const Buffer<bf16> working(*device, count);
  const Buffer<float> rate(*device, std::vector<float>{1e-3F});
  const Adam<float> op{.weight = weight.view(size),
                       .gradient = gradient.view(size),
                       .first_moment = m.view(size),
                       .second_moment = v.view(size),
                       .working = working.view(size),
                       .learning_rate = rate.view(1),
                       .step = step.view(1),
                       .weight_decay = 0.01,
                       .decoupled = true};
  test::time_gigabytes(state, *device, 30 * size, [&] { run(*device, op); });
}
BENCHMARK(adam)
    ->ArgNames({"cuda", "n"})
    ->ArgsProduct({{0, 1}, {800'000, 13'000'000, 66'000'000}})
    ->UseRealTime();

}  // namespace
}  // namespace carousel
