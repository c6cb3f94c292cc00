#include "kernels/adaptive_softmax/adaptive_softmax.h"

#include <cstdint>
#include <vector>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s read once and written: the routes of N targets over a vocabulary of 33,000, the rows of a
// cluster, every fifth of N, and the log-probabilities of a cluster of 23,000 words.
namespace carousel {
namespace {

constexpr std::int64_t kVocabulary = 33000;
const AdaptiveCutoffs kCutoffs =
    adaptive_cutoffs(std::vector<std::int64_t>{2000, 10000}, kVocabulary);

void adaptive_route(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t rows = state.range(1);
  std::vector<std::int32_t> words;
  for (std::int64_t n = 0; n < rows; ++n) {
    words.push_back(static_cast<std::int32_t>(n * 7919 % kVocabulary));
  }
  const auto size = static_cast<std::size_t>(rows);
  const test::Buffer<std::int32_t> target(*device, words), head(*device, size),
      row(*device, 2 * size), local(*device, 2 * size), place(*device, 2 * size), count(*device, 2);
  const test::Buffer<float> counted(*device, 1);
  const AdaptiveRoute<float> op{.cutoffs = kCutoffs,
                                .target = target.view(rows),
                                .head_target = head.view(rows),
                                .row = row.view(2, rows),
                                .local = local.view(2, rows),
                                .place = place.view(2, rows),
                                .count = count.view(2),
                                .counted = counted.view(1)};
  test::time_gigabytes(state, *device, 4 * rows * 8, [&] { run(*device, op); });
}

void select_rows(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t rows = state.range(1), width = 650;
  std::vector<std::int32_t> chosen;
  for (std::int64_t n = 0; n < rows; n += 5) chosen.push_back(static_cast<std::int32_t>(n));
  const auto count = static_cast<std::int64_t>(chosen.size());
  const test::Buffer<float> from = test::uniform<float>(*device, rows * width),
                            to(*device, static_cast<std::size_t>(count * width));
  const test::Buffer<std::int32_t> row(*device, chosen);
  const SelectRows<float> op{
      .from = from.view(rows, width), .row = row.view(count), .to = {to.view(count, width)}};
  test::time_gigabytes(state, *device, 8 * count * width, [&] { run(*device, op); });
}

void adaptive_log_probabilities(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t rows = state.range(1) / 64, words = kCutoffs.words(1);
  const test::Buffer<float> head = test::uniform<float>(*device, rows * kCutoffs.head()),
                            tail = test::uniform<float>(*device, rows * words),
                            y(*device, static_cast<std::size_t>(rows * kVocabulary));
  const AdaptiveLogProbabilities<float> op{.cutoffs = kCutoffs,
                                           .head = head.view(rows, kCutoffs.head()),
                                           .tail = tail.view(rows, words),
                                           .cluster = 1,
                                           .y = y.view(rows, kVocabulary)};
  test::time_gigabytes(state, *device, 8 * rows * words, [&] { run(*device, op); });
}

void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t cuda : {0, 1}) b->Args({cuda, 700})->Args({cuda, 4096});
  b->ArgNames({"cuda", "N"})->UseRealTime();
}
BENCHMARK(adaptive_route)->Apply(sizes);
BENCHMARK(select_rows)->Apply(sizes);
BENCHMARK(adaptive_log_probabilities)->Apply(sizes);

}  // namespace
}  // namespace carousel
