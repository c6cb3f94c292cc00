#include "kernels/key_value_cache/key_value_cache.h"

#include <cstdint>

#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GB/s read and written of the keys and values of T new tokens in B rows, E wide, of a cache of 1024.
namespace carousel {
namespace {

template <class T>
void store_keys_and_values(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  constexpr std::int64_t kPlaces = 1024;
  const std::int64_t steps = state.range(1), batch = state.range(2), width = state.range(3);
  const auto x = test::uniform<T>(*device, steps * batch * 3 * width),
             k = test::uniform<T>(*device, kPlaces * batch * width),
             v = test::uniform<T>(*device, kPlaces * batch * width);
  const test::Buffer<std::int64_t> position(
      *device, std::vector<std::int64_t>(static_cast<std::size_t>(batch), 777));
  const test::Buffer<std::int32_t> used(*device, static_cast<std::size_t>(batch));
  const StoreKeysAndValues<T> op{.x = x.view(steps, batch, 3 * width),
                                 .first_k = width,
                                 .first_v = 2 * width,
                                 .position = position.view(batch),
                                 .k = k.view(kPlaces, batch, width),
                                 .v = v.view(kPlaces, batch, width),
                                 .used = used.view(batch)};
  test::time_gigabytes(state, *device,
                       4 * steps * batch * width * static_cast<std::int64_t>(sizeof(T)),
                       [&] { run(*device, op); });
}

void sizes(benchmark::internal::Benchmark* b) {
  for (const std::int64_t cuda : {0, 1}) b->Args({cuda, 1, 1, 128})->Args({cuda, 512, 8, 768});
  b->ArgNames({"cuda", "T", "B", "E"})->UseRealTime();
}
BENCHMARK(store_keys_and_values<float>)->Apply(sizes);
BENCHMARK(store_keys_and_values<bf16>)->Apply(sizes);

}  // namespace
}  // namespace carousel
