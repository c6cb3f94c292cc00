#include "kernels/lstm_sequence/lstm_sequence.h"

#include <benchmark/benchmark.h>

#include <cmath>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"
#include "tests/support/device.h"

namespace carousel {
namespace {

using test::Buffer;
using test::uniform;

struct Size {
  std::int64_t T, B, I, H;
  std::size_t rows() const { return static_cast<std::size_t>(T * B); }
  /// Of the forward pass: two products. The backward pass has four of the same sizes.
  double flops() const { return 8.0 * static_cast<double>(T * B * H) * static_cast<double>(I + H); }
};

/// Everything a layer reads and writes in one training step.
template <class T>
struct Layer {
  using Acc = Accumulator<T>;
  Device device;
  Size size;
  std::size_t units = size.rows() * static_cast<std::size_t>(size.H);
  std::size_t input = static_cast<std::size_t>(size.I), width = static_cast<std::size_t>(size.H);
  double bound = 1 / std::sqrt(static_cast<double>(size.H));
  Buffer<T> x = uniform<T>(device, size.rows() * input, 1);
  Buffer<T> weight_ih = uniform<T>(device, 4 * width * input, bound);
  Buffer<T> weight_hh = uniform<T>(device, 4 * width * width, bound);
  Buffer<Acc> bias = uniform<Acc>(device, 4 * width, bound);
  std::size_t states = static_cast<std::size_t>(size.B) * width;
  Buffer<T> h0 = uniform<T>(device, states, 1);
  Buffer<Acc> c0 = uniform<Acc>(device, states, 1);
  Buffer<T> h{device, units}, gates{device, 4 * units}, d_h = uniform<T>(device, units, 1);
  Buffer<Acc> c{device, units};
  Buffer<T> d_x{device, size.rows() * input};
  Buffer<Acc> d_weight_ih{device, 4 * width*input}, d_weight_hh{device, 4 * width*width};
  Buffer<Acc> d_bias_ih{device, 4 * width}, d_bias_hh{device, 4 * width};

  LstmSequenceForward<T> forward() const {
    const auto [t, b, i, n] = size;
    return {.x = x.view(t, b, i),
            .weight_ih = weight_ih.view(4 * n, i),
            .weight_hh = weight_hh.view(4 * n, n),
            .bias_ih = bias.view(4 * n),
            .bias_hh = bias.view(4 * n),
            .h0 = h0.view(b, n),
            .c0 = c0.view(b, n),
            .h = h.view(t, b, n),
            .c = c.view(t, b, n),
            .gates = gates.view(t, b, 4 * n)};
  }
  LstmSequenceBackward<T> backward() const {
    const auto [t, b, i, n] = size;
    return {.d_h = d_h.view(t, b, n),
            .x = x.view(t, b, i),
            .weight_ih = weight_ih.view(4 * n, i),
            .weight_hh = weight_hh.view(4 * n, n),
            .h0 = h0.view(b, n),
            .c0 = c0.view(b, n),
            .h = h.view(t, b, n),
            .c = c.view(t, b, n),
            .gates = gates.view(t, b, 4 * n),
            .d_x = d_x.view(t, b, i),
            .d_weight_ih = d_weight_ih.view(4 * n, i),
            .d_weight_hh = d_weight_hh.view(4 * n, n),
            .d_bias_ih = d_bias_ih.view(4 * n),
            .d_bias_hh = d_bias_hh.view(4 * n)};
  }
};

void finish(const Device& device) {
#if CAROUSEL_CUDA
  if (const Cuda* cuda = std::get_if<Cuda>(&device)) cuda->synchronize();
#else
  (void)device;
#endif
}

/// Forward alone, or forward and backward: gates are overwritten by the backward pass, so that it
/// is not run twice on the same ones.
template <class T, bool kTrain>
void lstm_sequence(benchmark::State& state, Device device) {
  const Layer<T> layer{.device = device,
                       .size = {state.range(0), state.range(1), state.range(2), state.range(3)}};
  auto forward = layer.forward();
  auto backward = layer.backward();
  const auto forward_scratch = test::give_scratch(device, forward);
  const auto backward_scratch = test::give_scratch(device, backward);
  for (auto _ : state) {
    run(device, forward);
    if (kTrain) run(device, backward);
    finish(device);
  }
  const double passes = static_cast<double>(state.iterations());
  state.counters["FLOP/s"] = benchmark::Counter((kTrain ? 3 : 1) * layer.size.flops() * passes,
                                                benchmark::Counter::kIsRate);
  state.counters["tokens/s"] = benchmark::Counter(static_cast<double>(layer.size.rows()) * passes,
                                                  benchmark::Counter::kIsRate);
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"T", "B", "I", "H"})->UseRealTime()->Unit(benchmark::kMillisecond);
  b->Args({64, 32, 128, 256})->Args({64, 32, 256, 256});  // the character model's two layers
  b->Args({50, 50, 64, 512})->Args({50, 50, 512, 512});   // one wide layer, a stack of them
  b->Args({35, 20, 650, 650});                            // Zaremba's medium word model
  b->Args({64, 64, 1024, 1024})->Args({1, 1, 256, 256});  // large; a step of generation
}

const bool registered = [] {
  for (const Device& device : test::devices()) {
    const std::string name = "lstm_sequence/" + test::device_name(device);
    const auto add = [&](const std::string& what, auto* function) {
      shapes(benchmark::RegisterBenchmark((name + what).c_str(), function, device));
    };
    add("/f32/forward", &lstm_sequence<float, false>);
    add("/f32/train", &lstm_sequence<float, true>);
    add("/bf16/forward", &lstm_sequence<bf16, false>);
    add("/bf16/train", &lstm_sequence<bf16, true>);
  }
  return true;
}();

}  // namespace
}  // namespace carousel
