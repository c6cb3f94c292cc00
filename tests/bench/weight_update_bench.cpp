#include "kernels/weight_update/weight_update.h"

#include <cstdint>
#include <vector>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s of one update, bf16 copy included: of all weights of a model (0.8 M, a character model, 13 M
// and 66 M numbers); and of 2,048 rows of 64 in a matrix of 10⁴ and of 10⁶ rows, which should take
// the same time.
namespace carousel {
namespace {

using test::Buffer;

/// What a rule needs, for V rows of E, of which `touched` are updated.
template <class Rule>
struct Problem {
  Problem(const Device& device, std::int64_t vocab, std::int64_t width, std::int64_t touched)
      : rows(vocab),
        columns(width),
        weight(device, filled(vocab * width, 1)),
        gradient(device, filled(touched * width, 0.01F)),
        working(device, static_cast<std::size_t>(vocab * width)),
        rate(device, std::vector<float>{1e-3F}),
        step(device, std::vector<std::int64_t>{12'345}) {
    for (std::size_t s = 0; s < Rule::kStates; ++s) {
      state.emplace_back(device, filled(vocab * width, 0));
    }
  }
  static std::vector<float> filled(std::int64_t count, float value) {
    return std::vector<float>(static_cast<std::size_t>(count), value);
  }
  WeightUpdate<Rule, float> op(std::int64_t touched) const {
    WeightUpdate<Rule, float> result{.weight = weight.view(rows, columns),
                                     .gradient = gradient.view(touched, columns),
                                     .working = working.view(rows, columns),
                                     .learning_rate = rate.view(1),
                                     .step = step.view(1)};
    for (std::size_t s = 0; s < Rule::kStates; ++s) {
      result.state[s] = state[s].view(rows, columns);
    }
    return result;
  }
  // Weight and states in and out, the gradient in, the copy out.
  static constexpr std::int64_t kBytes = 8 * (1 + Rule::kStates) + 4 + 2;

  std::int64_t rows, columns;
  Buffer<float> weight, gradient;
  Buffer<bf16> working;
  Buffer<float> rate;
  Buffer<std::int64_t> step;
  std::vector<Buffer<float>> state;
};

template <class Rule>
void weight_update(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t size = state.range(1);
  const Problem<Rule> problem(*device, 1, size, 1);
  const auto op = problem.op(1);
  test::time_gigabytes(state, *device, Problem<Rule>::kBytes * size, [&] { run(*device, op); });
}

template <class Rule>
void weight_update_rows(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  constexpr std::int64_t kTouched = 2048, kWidth = 64;
  const std::int64_t vocab = state.range(1);
  const Problem<Rule> problem(*device, vocab, kWidth, kTouched);
  std::vector<std::int32_t> rows(kTouched);
  for (std::int64_t r = 0; r < kTouched; ++r) {
    rows[static_cast<std::size_t>(r)] = static_cast<std::int32_t>(r * vocab / kTouched);
  }
  const Buffer<std::int32_t> row(*device, rows);
  const Buffer<std::int32_t> count(*device, std::vector<std::int32_t>{kTouched});
  auto op = problem.op(kTouched);
  op.row = row.view(kTouched);
  op.row_count = count.view(1);
  test::time_gigabytes(state, *device, Problem<Rule>::kBytes * kTouched * kWidth,
                       [&] { run(*device, op); });
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"cuda", "n"})->UseRealTime();
  b->ArgsProduct({{0, 1}, {800'000, 13'000'000, 66'000'000}});
}
void vocabularies(benchmark::internal::Benchmark* b) {
  b->ArgNames({"cuda", "V"})->UseRealTime();
  b->ArgsProduct({{0, 1}, {10'000, 1'000'000}});
}
BENCHMARK(weight_update<Sgd>)->Apply(sizes);
BENCHMARK(weight_update<Momentum>)->Apply(sizes);
BENCHMARK(weight_update<Adam>)->Apply(sizes);
BENCHMARK(weight_update<RmsProp<true, true>>)->Apply(sizes);
BENCHMARK(weight_update<Adagrad>)->Apply(sizes);
BENCHMARK(weight_update_rows<Sgd>)->Apply(vocabularies);
BENCHMARK(weight_update_rows<Adam>)->Apply(vocabularies);

}  // namespace
}  // namespace carousel
