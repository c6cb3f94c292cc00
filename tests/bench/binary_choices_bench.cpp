#include "kernels/binary_choices/binary_choices.h"

#include <cstdint>
#include <random>
#include <vector>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s of hidden, its gradient and the rows of weight, of steps of word vectors: 5 words of noise.
namespace carousel {
namespace {

using test::Buffer;

template <class T>
void binary_choices(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t rows = state.range(1), width = state.range(2), choices = 6, vocab = 33'278;
  std::mt19937 random(1);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(rows * choices));
  for (auto& id : ids) id = static_cast<std::int32_t>(random() % static_cast<unsigned>(vocab));
  const auto hidden = test::uniform<T>(*device, rows * width);
  const auto weight = test::uniform<T>(*device, vocab * width);
  const Buffer<std::int32_t> choice(*device, ids), answer(*device, std::vector(ids.size(), 0)),
      count(*device, std::size_t{1});
  const Buffer<float> loss(*device, static_cast<std::size_t>(rows)), mean(*device, std::size_t{1}),
      d_logit(*device, ids.size());
  const Buffer<T> d_hidden(*device, static_cast<std::size_t>(rows * width));
  const BinaryChoices<T> op{.hidden = hidden.view(rows, width),
                            .weight = weight.view(vocab, width),
                            .choice = choice.view(rows, choices),
                            .answer = answer.view(rows, choices),
                            .gradients_of_sum = true,
                            .loss = loss.view(rows),
                            .mean_loss = mean.view(1),
                            .count = count.view(1),
                            .d_logit = d_logit.view(rows, choices),
                            .d_hidden = {d_hidden.view(rows, width)}};
  const auto bytes = static_cast<std::int64_t>(sizeof(T)) * rows * width * (choices + 2);
  test::time_gigabytes(state, *device, bytes + 12 * rows * choices, [&] { run(*device, op); });
}
void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t cuda : {0, 1}) b->Args({cuda, 1024, 100})->Args({cuda, 16'384, 300});
  b->ArgNames({"cuda", "N", "E"})->UseRealTime();
}
BENCHMARK(binary_choices<float>)->Apply(sizes);
BENCHMARK(binary_choices<bf16>)->Apply(sizes);

}  // namespace
}  // namespace carousel
