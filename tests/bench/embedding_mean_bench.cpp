#include "kernels/embedding_mean/embedding_mean.h"

#include <cstdint>
#include <random>
#include <vector>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s of rows read and written, of contexts of word vectors with room for 10 words of which 6 are there.
namespace carousel {
namespace {

using test::Buffer;

template <class T>
void embedding_mean(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t rows = state.range(1), width = state.range(2), places = 10, vocab = 33'278;
  std::mt19937 random(1);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(rows * places), kNoToken);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (i % 10 < 6) ids[i] = static_cast<std::int32_t>(random() % static_cast<unsigned>(vocab));
  }
  const auto weight = test::uniform<T>(*device, vocab * width);
  const Buffer<std::int32_t> token(*device, ids);
  const Buffer<T> y(*device, static_cast<std::size_t>(rows * width));
  const Buffer<float> share(*device, ids.size());
  const EmbeddingMean<T> op{.weight = weight.view(vocab, width),
                            .token = token.view(rows, places),
                            .y = y.view(rows, width),
                            .share = share.view(rows, places)};
  const std::int64_t bytes = rows * (7 * width * static_cast<std::int64_t>(sizeof(T)) + 8 * places);
  test::time_gigabytes(state, *device, bytes, [&] { run(*device, op); });
}
void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t cuda : {0, 1}) b->Args({cuda, 1024, 100})->Args({cuda, 16'384, 300});
  b->ArgNames({"cuda", "N", "E"})->UseRealTime();
}
BENCHMARK(embedding_mean<float>)->Apply(sizes);
BENCHMARK(embedding_mean<bf16>)->Apply(sizes);

}  // namespace
}  // namespace carousel
