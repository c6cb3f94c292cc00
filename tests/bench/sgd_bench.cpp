#include "kernels/sgd/sgd.h"

#include <cstdint>
#include <vector>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s of one update of all weights of a model, bf16 copy included: 0.8 M (a character model), 13 M
// and 66 M numbers, 22 bytes moved for each.
namespace carousel {
namespace {

using test::Buffer;

void sgd(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t size = state.range(1);
  const auto count = static_cast<std::size_t>(size);
  const Buffer<float> weight(*device, std::vector<float>(count, 1.0F));
  const Buffer<float> gradient(*device, std::vector<float>(count, 0.01F));
  const Buffer<float> velocity(*device, std::vector<float>(count, 0.0F));
  const Buffer<bf16> working(*device, count);
  const Buffer<float> rate(*device, std::vector<float>{1e-3F});
  const Sgd<float> op{.weight = weight.view(size),
                      .gradient = gradient.view(size),
                      .velocity = velocity.view(size),
                      .working = working.view(size),
                      .learning_rate = rate.view(1),
                      .momentum = 0.9};
  test::time_gigabytes(state, *device, 22 * size, [&] { run(*device, op); });
}
BENCHMARK(sgd)
    ->ArgNames({"cuda", "n"})
    ->ArgsProduct({{0, 1}, {800'000, 13'000'000, 66'000'000}})
    ->UseRealTime();

}  // namespace
}  // namespace carousel
