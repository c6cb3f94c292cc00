#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

#include <malloc.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <fstream>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/common/memory.h"
#include "kernels/linear_cross_entropy/plan.h"
#include "kernels/matmul/matmul.h"
#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GFLOP/s of the three products, loss and gradients included, and MB of scratch; and, on the CPU, a
// table of vocabularies beside the bare products: --benchmark_filter='vocabularies<float>'.
namespace carousel {
namespace {

using test::Buffer;
using test::uniform;

/// The op's arguments but for its scratch.
template <class T>
struct Arguments {
  using A = Accumulator<T>;
  Arguments(const Device& device, std::int64_t rows, std::int64_t width, std::int64_t vocab)
      : hidden(uniform<T>(device, rows * width, 1)),
        weight(uniform<T>(device, vocab * width, 1 / std::sqrt(static_cast<double>(width)))),
        bias(uniform<A>(device, vocab, 0.1)),
        target(device, std::vector<std::int32_t>(static_cast<std::size_t>(rows), 1)),
        targets(device, std::size_t{1}),
        loss(device, static_cast<std::size_t>(rows)),
        mean(device, std::size_t{1}),
        d_hidden(device, static_cast<std::size_t>(rows * width)),
        d_weight(device, static_cast<std::size_t>(vocab * width)),
        d_bias(device, static_cast<std::size_t>(vocab)),
        op{.hidden = hidden.view(rows, width),
           .weight = weight.view(vocab, width),
           .bias = bias.view(vocab),
           .target = target.view(rows),
           .loss = loss.view(rows),
           .mean_loss = mean.view(1),
           .count = targets.view(1),
           .d_hidden = {d_hidden.view(rows, width)},
           .d_weight = {d_weight.view(vocab, width)},
           .d_bias = {d_bias.view(vocab)}} {}

  Buffer<T> hidden, weight;
  Buffer<A> bias;
  Buffer<std::int32_t> target, targets;
  Buffer<A> loss, mean;
  Buffer<T> d_hidden;
  Buffer<A> d_weight, d_bias;
  LinearCrossEntropy<T> op;
};

double flops(std::int64_t rows, std::int64_t width, std::int64_t vocab) {
  return 6 * static_cast<double>(rows * width) * static_cast<double>(vocab);
}

template <class T>
void linear_cross_entropy(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t rows = state.range(1), width = state.range(2), vocab = state.range(3);
  Arguments<T> arguments(*device, rows, width, vocab);
  const auto scratch = test::give_scratch(*device, arguments.op);
  test::time_rate(state, *device, "GFLOP/s", flops(rows, width, vocab),
                  [&] { run(*device, arguments.op); });
  state.counters["scratch MB"] = 1e-6 * static_cast<double>(scratch.size());
}

/// A line of this process's status in bytes: VmRSS is its memory, VmHWM the most it has had.
double process_bytes(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(name + ':')) return 1024 * std::stod(line.substr(name.size() + 1));
  }
  return 0;
}

/// What the op takes beyond its arguments at its peak, oneDNN's memory included.
template <class T>
double extra_bytes(const Device& device, LinearCrossEntropy<T> op) {
  Arguments<T> small(device, 64, 64, 1024);  // brings the code of the libraries into memory
  const auto small_scratch = test::give_scratch(device, small.op);
  run(device, small.op);
  malloc_trim(0);                               // what is free would be taken unseen
  std::ofstream("/proc/self/clear_refs") << 5;  // the peak becomes what there is now
  const double before = process_bytes("VmRSS");
  const Memory scratch(device, scratch_bytes(device, op));  // a Buffer is filled from a copy
  op.scratch = {static_cast<std::byte*>(scratch.data()),
                {static_cast<std::int64_t>(scratch.bytes())}};
  run(device, op);
  return process_bytes("VmHWM") - before;
}

template <class Work>
double processor_seconds(const Work& work) {
  const std::clock_t began = std::clock();
  work();
  return static_cast<double>(std::clock() - began) / CLOCKS_PER_SEC;
}

double median(std::vector<double> of) {
  const auto middle = of.begin() + static_cast<std::ptrdiff_t>(of.size() / 2);
  std::nth_element(of.begin(), middle, of.end());
  return *middle;
}

/// The op and its bare products in turn, on the CPU in the process's time: `ratio` is the median of
/// the rounds' ratios, `planned` what the plan predicts, `extra MB` the op's own memory. Run it with
/// one thread if the machine is busy: OMP_NUM_THREADS=1.
template <class T>
void vocabularies(benchmark::State& state) {
  using A = Accumulator<T>;
  const Device device = Cpu{};
  const std::int64_t vocab = state.range(0), width = state.range(1), rows = 4096;
  Arguments<T> arguments(device, rows, width, vocab);
  LinearCrossEntropy<T>& op = arguments.op;
  const double extra = extra_bytes(device, op);
  const auto scratch = test::give_scratch(device, op);
  const auto logits = uniform<A>(device, rows * vocab);
  const auto g = uniform<T>(device, std::is_same_v<T, A> ? 0 : rows * vocab);
  const View<const T, 2> d_logits{[&] {
    if constexpr (std::is_same_v<T, A>) return logits.view(rows, vocab);
    if constexpr (!std::is_same_v<T, A>) return g.view(rows, vocab);
  }()};
  const auto bare = [&] {
    run(device, Matmul<T, A>{.a = op.hidden,
                             .b = op.weight,
                             .bias = op.bias,
                             .c = logits.view(rows, vocab),
                             .transpose_b = true});
    run(device, Matmul<T>{.a = d_logits, .b = op.weight, .c = op.d_hidden.view});
    run(device,
        Matmul<T, A>{.a = d_logits, .b = op.hidden, .c = op.d_weight.view, .transpose_a = true});
  };
  const int rounds = static_cast<int>(std::clamp(1e12 / flops(rows, width, vocab), 1.0, 40.0));
  std::vector<double> times, ratios;
  for (auto _ : state) {
    for (int round = rounds > 1 ? -1 : 0; round < rounds; ++round) {
      const double products = processor_seconds(bare);
      const double whole = processor_seconds([&] { run(device, op); });
      if (round < 0) continue;  // warm-up
      times.push_back(whole);
      ratios.push_back(whole / products);
    }
    state.SetIterationTime(median(times));
  }
  const auto plan = linear_cross_entropy::plan(op, device);
  const double ratio = median(ratios);
  state.counters["GFLOP/s"] = 1e-9 * flops(rows, width, vocab) / median(times);
  state.counters["ratio"] = ratio;
  state.counters["planned"] = plan.cost;
  state.counters["ratio/planned"] = ratio / plan.cost;
  state.counters["rows"] = static_cast<double>(plan.tile.rows);
  state.counters["words"] = static_cast<double>(plan.tile.words);
  state.counters["extra MB"] = 1e-6 * extra;
}

void sizes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"cuda", "N", "H", "V"})->Unit(benchmark::kMillisecond)->UseRealTime();
  for (const std::int64_t cuda : {0, 1}) {
    b->Args({cuda, 2048, 256, 65});
    b->Args({cuda, 4096, 512, 10'000});
    b->Args({cuda, 2048, 400, 33'278});
    b->Args({cuda, 4096, 1024, 50'257});
  }
}
BENCHMARK(linear_cross_entropy<float>)->Apply(sizes);
BENCHMARK(linear_cross_entropy<bf16>)->Apply(sizes);

void table(benchmark::internal::Benchmark* b) {
  b->ArgNames({"V", "H"})->Unit(benchmark::kMillisecond)->UseManualTime()->Iterations(1);
  b->ArgsProduct({{65, 10'000, 33'278, 50'257, 256'000}, {256, 650, 1024}});
}
BENCHMARK(vocabularies<float>)->Apply(table);
BENCHMARK(vocabularies<bf16>)->Apply(table);

}  // namespace
}  // namespace carousel
