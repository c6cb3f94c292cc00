#include "kernels/recurrent_sequence/recurrent_sequence.h"

#include <benchmark/benchmark.h>

#include <optional>
#include <vector>

#include "kernels/common/graph.h"
#include "tests/support/bench.h"
#include "tests/support/buffer.h"
#include "tests/support/device.h"
#include "tests/support/recurrent_layer.h"

namespace carousel {
namespace {

void finish(const Device& device) {
#if CAROUSEL_CUDA
  if (const Cuda* cuda = std::get_if<Cuda>(&device)) cuda->synchronize();
#else
  (void)device;
#endif
}

enum class Pass : std::uint8_t {
  forward,
  train,         // forward and backward: this one overwrites gates, and is not run twice on them
  train_lengths  // the same of rows that have 1 to T steps, in no order
};

template <class T, Pass kPass>
void recurrent_sequence(benchmark::State& state, Device device, CellKind cell) {
  const test::RecurrentLayer<T> layer{
      .device = device,
      .cell = cell,
      .size = {state.range(0), state.range(1), state.range(2), state.range(3)}};
  auto forward = layer.forward();
  auto backward = layer.backward();
  std::vector<std::int32_t> steps;
  for (std::int64_t b = 0; b < layer.size.B; ++b) {
    steps.push_back(static_cast<std::int32_t>(1 + (37 * b + 11) % layer.size.T));
  }
  const test::Buffer<std::int32_t> lengths(device, steps);
  if (kPass == Pass::train_lengths) {
    forward.rows.end = backward.rows.end = lengths.view(layer.size.B);
  }
  const auto forward_scratch = test::give_scratch(device, forward);
  const auto backward_scratch = test::give_scratch(device, backward);
  const auto pass = [&] {
    run(device, forward);
    if (kPass != Pass::forward) run(device, backward);
  };
  // On CUDA a pass is a graph, as in training. The first pass chooses the library's algorithms.
  pass();
  std::optional<Graph> graph;
  if (!is_cpu(device)) graph.emplace(device, pass);
  for (auto _ : state) {
    graph ? graph->launch() : pass();
    finish(device);
  }
  const double passes = static_cast<double>(state.iterations());
  state.counters["FLOP/s"] = benchmark::Counter(
      (kPass == Pass::forward ? 1 : 3) * cell->gates * layer.size.flops() * passes,
      benchmark::Counter::kIsRate);
  state.counters["tokens/s"] = benchmark::Counter(static_cast<double>(layer.size.rows()) * passes,
                                                  benchmark::Counter::kIsRate);
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"T", "B", "I", "H"})->UseRealTime()->Unit(benchmark::kMillisecond);
  b->Args({64, 32, 128, 256})->Args({64, 32, 256, 256});  // the character model's two layers
  b->Args({50, 50, 64, 512})->Args({50, 50, 512, 512});   // one wide layer, a stack of them
  b->Args({64, 64, 256, 256});                            // a classifier's
  b->Args({35, 20, 650, 650});                            // Zaremba's medium word model
  b->Args({64, 64, 1024, 1024})->Args({1, 1, 256, 256});  // large; a step of generation
}

const bool registered = [] {
  for (const Device& device : test::devices()) {
    for (const CellKind cell : cell_kinds()) {
      const std::string name =
          "recurrent_sequence/" + test::device_name(device) + "/" + std::string(cell->name);
      const auto add = [&](const std::string& what, auto* function) {
        shapes(benchmark::RegisterBenchmark((name + what).c_str(), function, device, cell));
      };
      add("/f32/forward", &recurrent_sequence<float, Pass::forward>);
      add("/f32/train", &recurrent_sequence<float, Pass::train>);
      add("/bf16/forward", &recurrent_sequence<bf16, Pass::forward>);
      add("/bf16/train", &recurrent_sequence<bf16, Pass::train>);
      add("/f32/train_lengths", &recurrent_sequence<float, Pass::train_lengths>);
      add("/bf16/train_lengths", &recurrent_sequence<bf16, Pass::train_lengths>);
    }
  }
  return true;
}();

}  // namespace
}  // namespace carousel
