#include "kernels/sampled_loss/sampled_loss.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GFLOP/s of the three products of an output layer of width 650 that sees 1,024 of 33,000 words.
namespace carousel {
namespace {

template <SampledKind kind>
void sampled_loss(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  constexpr std::int64_t kWords = 1024, kWidth = 650, kVocabulary = 33000;
  const std::int64_t rows = state.range(1), all = rows + kWords;
  std::vector<std::int32_t> words;
  for (std::int64_t i = 0; i < all; ++i) {
    words.push_back(static_cast<std::int32_t>(i * 7919 % kVocabulary));
  }
  const test::Buffer<float> hidden = test::uniform<float>(*device, rows * kWidth),
                            row = test::uniform<float>(*device, all * kWidth, 0.3),
                            bias = test::uniform<float>(*device, all),
                            expected = test::uniform<float>(*device, kVocabulary);
  const test::Buffer<float> denominator(*device, std::vector<float>{static_cast<float>(rows)}),
      loss(*device, static_cast<std::size_t>(rows)), mean(*device, 1),
      d_hidden(*device, static_cast<std::size_t>(rows * kWidth)),
      d_row(*device, static_cast<std::size_t>(all * kWidth)),
      d_bias(*device, static_cast<std::size_t>(all));
  const test::Buffer<std::int32_t> candidate(*device, words);
  SampledLoss<float> op{.kind = kind,
                        .hidden = hidden.view(rows, kWidth),
                        .row = row.view(all, kWidth),
                        .bias = bias.view(all),
                        .candidate = candidate.view(all),
                        .log_expected = expected.view(kVocabulary),
                        .denominator = denominator.view(1),
                        .loss = loss.view(rows),
                        .mean_loss = mean.view(1),
                        .d_hidden = {d_hidden.view(rows, kWidth)},
                        .d_row = d_row.view(all, kWidth),
                        .d_bias = d_bias.view(all)};
  const auto scratch = test::give_scratch(*device, op);
  const double operations = 6.0 * static_cast<double>(rows * kWords * kWidth);
  test::time_rate(state, *device, "GFLOP/s", operations, [&] { run(*device, op); });
}
void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t cuda : {0, 1}) b->Args({cuda, 700})->Args({cuda, 4096});
  b->ArgNames({"cuda", "N"})->UseRealTime();
}
BENCHMARK(sampled_loss<SampledKind::softmax>)->Apply(sizes);
BENCHMARK(sampled_loss<SampledKind::noise>)->Apply(sizes);

}  // namespace
}  // namespace carousel
