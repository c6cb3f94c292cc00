#include "kernels/global_norm/global_norm.h"

#include <cstdint>
#include <vector>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s of reading all gradients of a model: 0.8 M (a character model), 13 M and 66 M numbers.
namespace carousel {
namespace {

using test::Buffer;

void global_norm(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t size = state.range(1);
  Buffer<float> gradient(*device, std::vector<float>(static_cast<std::size_t>(size), 0.01F));
  Buffer<float> norm(*device, 1), scale(*device, 1);
  Buffer<double> scratch(*device, kGlobalNormPartials);
  Buffer<std::int32_t> finite(*device, 1);
  const GlobalNorm<float> op{.gradient = gradient.view(size),
                             .clip_norm = 1,
                             .scratch = scratch.view(kGlobalNormPartials),
                             .norm = norm.view(1),
                             .gradient_scale = scale.view(1),
                             .finite = finite.view(1)};
  test::time_gigabytes(state, *device, 4 * size, [&] { run(*device, op); });
}
BENCHMARK(global_norm)
    ->ArgNames({"cuda", "n"})
    ->ArgsProduct({{0, 1}, {800'000, 13'000'000, 66'000'000}})
    ->UseRealTime();

}  // namespace
}  // namespace carousel
