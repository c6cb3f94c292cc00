#include "kernels/additive_attention/additive_attention.h"

#include <cstdint>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// Billions of tanh a second, of which each pass needs T·S·B·H (on CUDA the backward pass twice that):
// a whole text of a decoder at once, and one step of it.
namespace carousel {
namespace {

template <class T>
struct Looks {
  Device device;
  std::int64_t queries, keys, batch, width;
  test::Buffer<T> q = test::uniform<T>(device, queries* batch* width);
  test::Buffer<T> k = test::uniform<T>(device, keys* batch* width);
  test::Buffer<T> v = test::uniform<T>(device, keys* batch* width);
  test::Buffer<T> score = test::uniform<T>(device, width);
  test::Buffer<T> y = test::uniform<T>(device, queries* batch* width);
  test::Buffer<T> d_q = test::uniform<T>(device, queries* batch* width);
  test::Buffer<T> d_k = test::uniform<T>(device, keys* batch* width);
  test::Buffer<T> d_v = test::uniform<T>(device, keys* batch* width);
  test::Buffer<float> d_score = test::uniform<float>(device, width);
  test::Buffer<float> weights = test::uniform<float>(device, batch* queries* keys);

  View<T, 3> of_queries(const test::Buffer<T>& x) const { return x.view(queries, batch, width); }
  View<T, 3> of_keys(const test::Buffer<T>& x) const { return x.view(keys, batch, width); }
};

template <class T, bool kBackward>
void additive_attention(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const Looks<T> l{*device, state.range(1), state.range(2), state.range(3), state.range(4)};
  const AdditiveAttentionForward<T> forward{.q = l.of_queries(l.q),
                                            .k = l.of_keys(l.k),
                                            .v = l.of_keys(l.v),
                                            .score = l.score.view(l.width),
                                            .y = l.of_queries(l.y),
                                            .weights = l.weights.view(l.batch, l.queries, l.keys)};
  AdditiveAttentionBackward<T> backward{.q = forward.q,
                                        .k = forward.k,
                                        .v = forward.v,
                                        .score = forward.score,
                                        .weights = forward.weights,
                                        .d_y = forward.y,
                                        .d_q = {l.of_queries(l.d_q)},
                                        .d_k = {l.of_keys(l.d_k)},
                                        .d_v = {l.of_keys(l.d_v)},
                                        .d_score = {l.d_score.view(l.width)}};
  const auto scratch = test::give_scratch(*device, backward);
  run(*device, forward);
  const auto tanhs = static_cast<double>(l.queries * l.keys * l.batch * l.width);
  test::time_rate(state, *device, "Gtanh/s", tanhs, [&] {
    if constexpr (kBackward) {
      run(*device, backward);
    } else {
      run(*device, forward);
    }
  });
}

void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t cuda : {0, 1}) {
    b->Args({cuda, 12, 12, 64, 256})->Args({cuda, 1, 12, 64, 256})->Args({cuda, 50, 50, 64, 512});
  }
  b->ArgNames({"cuda", "T", "S", "B", "H"})->UseRealTime();
}
BENCHMARK(additive_attention<float, false>)->Apply(sizes);
BENCHMARK(additive_attention<bf16, false>)->Apply(sizes);
BENCHMARK(additive_attention<float, true>)->Apply(sizes);
BENCHMARK(additive_attention<bf16, true>)->Apply(sizes);

}  // namespace
}  // namespace carousel
