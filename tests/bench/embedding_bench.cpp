#include "kernels/embedding/embedding.h"

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s of a lookup and of its gradient, to be read beside copy<T, T>. Tokens are spread as words
// are. Shapes: characters, a WikiText-2 step, GPT-2's vocabulary, and a large one hardly touched.
namespace carousel {
namespace {

using test::Buffer;

std::vector<std::int32_t> zipf_tokens(std::int64_t count, std::int64_t vocab) {
  std::mt19937_64 random(1);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count));
  for (auto& token : tokens) {
    const double u = std::ldexp(static_cast<double>(random() >> 11), -53);
    token = static_cast<std::int32_t>(std::pow(static_cast<double>(vocab), u)) - 1;
  }
  return tokens;
}

template <class T>
void embedding_forward(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t tokens = state.range(1), vocab = state.range(2), width = state.range(3);
  const Buffer<T> weight(*device, std::vector<T>(static_cast<std::size_t>(vocab * width), T(1.0F)));
  const Buffer<std::int32_t> token(*device, zipf_tokens(tokens, vocab));
  const Buffer<T> y(*device, static_cast<std::size_t>(tokens * width));
  const EmbeddingForward<T> op{
      .weight = weight.view(vocab, width), .token = token.view(tokens), .y = y.view(tokens, width)};
  constexpr auto kBytes = static_cast<std::int64_t>(sizeof(T));
  test::time_gigabytes(state, *device, tokens * (2 * kBytes * width + 4),
                       [&] { run(*device, op); });
}

template <class T>
void embedding_backward(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t tokens = state.range(1), vocab = state.range(2), width = state.range(3);
  const Buffer<T> d_y(*device, std::vector<T>(static_cast<std::size_t>(tokens * width), T(1.0F)));
  const Buffer<std::int32_t> token(*device, zipf_tokens(tokens, vocab));
  const Buffer<float> d_weight(*device, static_cast<std::size_t>(vocab * width));
  EmbeddingBackward<T> op{.d_y = d_y.view(tokens, width),
                          .token = token.view(tokens),
                          .d_weight = {d_weight.view(vocab, width)}};
  const auto scratch = test::give_scratch(*device, op);
  constexpr auto kBytes = static_cast<std::int64_t>(sizeof(T));
  test::time_gigabytes(state, *device, (tokens * kBytes + vocab * 4) * width,
                       [&] { run(*device, op); });
}

/// The row-sparse gradient, whose time should not depend on V: bytes as if each token had a row.
template <class T>
void embedding_row_backward(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t tokens = state.range(1), vocab = state.range(2), width = state.range(3);
  const Buffer<T> d_y(*device, std::vector<T>(static_cast<std::size_t>(tokens * width), T(1.0F)));
  const Buffer<std::int32_t> token(*device, zipf_tokens(tokens, vocab));
  const Buffer<std::int32_t> row(*device, static_cast<std::size_t>(tokens)), count(*device, 1);
  const Buffer<float> d_row(*device, static_cast<std::size_t>(tokens * width));
  EmbeddingRowBackward<T> op{.vocab = vocab,
                             .d_y = d_y.view(tokens, width),
                             .token = token.view(tokens),
                             .row = row.view(tokens),
                             .row_count = count.view(1),
                             .d_row = d_row.view(tokens, width)};
  const auto scratch = test::give_scratch(*device, op);
  constexpr auto kBytes = static_cast<std::int64_t>(sizeof(T));
  test::time_gigabytes(state, *device, tokens * (kBytes + 4) * width, [&] { run(*device, op); });
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"cuda", "N", "V", "E"})->UseRealTime();
  for (const std::int64_t cuda : {0, 1}) {
    b->Args({cuda, 1'000'000, 256, 128});
    b->Args({cuda, 2048, 33'278, 400});
    b->Args({cuda, 8192, 50'257, 1024});
    b->Args({cuda, 4096, 1'000'000, 128});
  }
}
BENCHMARK(embedding_forward<float>)->Apply(shapes);
BENCHMARK(embedding_forward<bf16>)->Apply(shapes);
BENCHMARK(embedding_backward<float>)->Apply(shapes);
BENCHMARK(embedding_backward<bf16>)->Apply(shapes);
BENCHMARK(embedding_row_backward<float>)->Apply(shapes);
BENCHMARK(embedding_row_backward<bf16>)->Apply(shapes);

}  // namespace
}  // namespace carousel
