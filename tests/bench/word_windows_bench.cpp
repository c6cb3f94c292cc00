#include "kernels/word_windows/word_windows.h"

#include <cstdint>
#include <random>
#include <vector>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// Million words a second, half of which are kept, with windows of up to 5 words to a side.
namespace carousel {
namespace {

using test::Buffer;

void word_windows(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t rows = 4, steps = state.range(1) / rows, vocab = 33'278, width = 5;
  std::mt19937 random(1);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(steps * rows));
  for (auto& id : ids) id = static_cast<std::int32_t>(random() % static_cast<unsigned>(vocab));
  const Buffer<std::int32_t> token(*device, ids), reached(*device, ids.size()),
      context(*device, ids.size() * 10), center(*device, ids.size());
  const Buffer<float> keep(*device, std::vector<float>(static_cast<std::size_t>(vocab), 0.5F));
  const Buffer<std::int64_t> step(*device, std::vector<std::int64_t>{1});
  const WordWindows op{.token = token.view(steps, rows),
                       .keep = keep.view(vocab),
                       .width = width,
                       .source = {.step = step.view(1)},
                       .reached = reached.view(steps, rows),
                       .context = context.view(steps, rows, 2 * width),
                       .center = center.view(steps, rows)};
  test::time_rate(state, *device, "Gword/s", static_cast<double>(steps * rows),
                  [&] { run(*device, op); });
}
void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t cuda : {0, 1}) b->Args({cuda, 4096})->Args({cuda, 65'536});
  b->ArgNames({"cuda", "words"})->UseRealTime();
}
BENCHMARK(word_windows)->Apply(sizes);

}  // namespace
}  // namespace carousel
