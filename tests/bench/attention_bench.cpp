#include "kernels/attention/attention.h"

#include <cstdint>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GFLOP/s of self-attention on qkv [T, B, 3·A·D]: of the products that a mask leaves, two forward and
// five backward.
namespace carousel {
namespace {

template <class T>
struct Layer {
  std::int64_t steps, batch, heads, width;
  bool causal;
  test::Buffer<T> qkv, d_qkv, y, d_y;
  test::Buffer<float> lse;

  Layer(const Device& device, const benchmark::State& state)
      : steps(state.range(1)),
        batch(state.range(2)),
        heads(state.range(3)),
        width(state.range(4)),
        causal(state.range(5) != 0),
        qkv(test::uniform<T>(device, 3 * size())),
        d_qkv(test::uniform<T>(device, 3 * size())),
        y(test::uniform<T>(device, size())),
        d_y(test::uniform<T>(device, size())),
        lse(test::uniform<float>(device, steps * batch * heads)) {}

  std::int64_t size() const { return steps * batch * heads * width; }
  AttentionRule rule() const { return {.heads = heads, .head_width = width, .causal = causal}; }
  HeadRows<T> part(const test::Buffer<T>& all, std::int64_t index) const {
    return {all.view(steps, batch, 3 * heads * width), index * heads * width};
  }
  HeadRows<T> rows(const test::Buffer<T>& all) const {
    return {all.view(steps, batch, heads * width)};
  }
  double operations(int products) const {
    const double pairs =
        static_cast<double>(steps) * static_cast<double>(causal ? steps + 1 : 2 * steps) / 2;
    return 2.0 * products * pairs * static_cast<double>(batch * heads * width);
  }
};

template <class T>
void attention_forward(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const Layer<T> l(*device, state);
  const AttentionForward<T> op{.q = l.part(l.qkv, 0),
                               .k = l.part(l.qkv, 1),
                               .v = l.part(l.qkv, 2),
                               .rule = l.rule(),
                               .y = l.rows(l.y),
                               .lse = l.lse.view(l.batch, l.heads, l.steps)};
  test::time_rate(state, *device, "GFLOP/s", l.operations(2), [&] { run(*device, op); });
}

template <class T>
void attention_backward(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const Layer<T> l(*device, state);
  AttentionBackward<T> op{.q = l.part(l.qkv, 0),
                          .k = l.part(l.qkv, 1),
                          .v = l.part(l.qkv, 2),
                          .rule = l.rule(),
                          .y = l.rows(l.y),
                          .lse = l.lse.view(l.batch, l.heads, l.steps),
                          .d_y = l.rows(l.d_y),
                          .d_q = {l.part(l.d_qkv, 0)},
                          .d_k = {l.part(l.d_qkv, 1)},
                          .d_v = {l.part(l.d_qkv, 2)}};
  const auto scratch = test::give_scratch(*device, op);
  test::time_rate(state, *device, "GFLOP/s", l.operations(5), [&] { run(*device, op); });
}

void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t causal : {0, 1}) {
    b->Args({0, 1024, 1, 8, 64, causal})->Args({0, 64, 12, 4, 32, causal});
    for (const std::int64_t steps : {512, 2048, 8192}) b->Args({1, steps, 2, 12, 64, causal});
  }
  b->ArgNames({"cuda", "T", "B", "A", "D", "causal"})->UseRealTime();
}
BENCHMARK(attention_forward<float>)->Apply(sizes);
BENCHMARK(attention_forward<bf16>)->Apply(sizes);
BENCHMARK(attention_backward<float>)->Apply(sizes);
BENCHMARK(attention_backward<bf16>)->Apply(sizes);

}  // namespace
}  // namespace carousel
