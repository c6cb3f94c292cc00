#include "kernels/attention_decode/attention_decode.h"

#include <cstdint>
#include <vector>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s read of a full cache [C, B, A·D] by one new token of each row.
namespace carousel {
namespace {

template <class T>
void attention_decode(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t places = state.range(1), batch = state.range(2), heads = state.range(3),
                     width = state.range(4), row = heads * width;
  const test::Buffer<T> qkv(test::uniform<T>(*device, 3 * batch * row)),
      cache_k(test::uniform<T>(*device, places * batch * row)),
      cache_v(test::uniform<T>(*device, places * batch * row)),
      y(test::uniform<T>(*device, batch * row));
  const test::Buffer<std::int64_t> position(
      *device, std::vector<std::int64_t>(static_cast<std::size_t>(batch), places));
  const auto part = [&](std::int64_t index) -> HeadRows<T> {
    return {qkv.view(1, batch, 3 * row), index * row};
  };
  AttentionDecode<T> op{.q = part(0),
                        .k = part(1),
                        .v = part(2),
                        .cache_k = cache_k.view(places, batch, row),
                        .cache_v = cache_v.view(places, batch, row),
                        .position = position.view(batch),
                        .rule = {.heads = heads, .head_width = width},
                        .y = {y.view(1, batch, row)}};
  const auto scratch = test::give_scratch(*device, op);
  const std::int64_t bytes = 2 * places * batch * row * static_cast<std::int64_t>(sizeof(T));
  test::time_gigabytes(state, *device, bytes, [&] { run(*device, op); });
}

void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t cuda : {0, 1})
    b->Args({cuda, 1024, 1, 12, 64})->Args({cuda, 8192, 8, 12, 64});
  b->ArgNames({"cuda", "C", "B", "A", "D"})->UseRealTime();
}
BENCHMARK(attention_decode<float>)->Apply(sizes);
BENCHMARK(attention_decode<bf16>)->Apply(sizes);

}  // namespace
}  // namespace carousel
