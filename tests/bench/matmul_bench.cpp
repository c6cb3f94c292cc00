#include "kernels/matmul/matmul.h"

#include <cstdint>
#include <vector>

#include "kernels/common/cpu_product.h"
#include "kernels/common/memory.h"
#include "tests/support/bench.h"
#include "tests/support/buffer.h"

// GFLOP/s of the products of an LSTM language model: all time steps' input product and logits,
// their weight gradients, and the product of one time step, on the CPU with packed weights as well.
namespace carousel {
namespace {

using test::Buffer;

enum Form { kForward, kWeightGradient };  // x·Wᵀ; d_yᵀ·x

template <class T, bool kTf32 = false>
void product(benchmark::State& state) {
  const auto device = test::bench_device(state);
  if (!device) return;
  const std::int64_t m = state.range(1), n = state.range(2), k = state.range(3);
  const bool forward = state.range(4) == kForward;
  const auto a = test::uniform<T>(*device, m * k), b = test::uniform<T>(*device, k * n);
  const Buffer<T> c(*device, static_cast<std::size_t>(m * n));
  const Matmul<T> op{.a = forward ? a.view(m, k) : a.view(k, m),
                     .b = forward ? b.view(n, k) : b.view(k, n),
                     .c = c.view(m, n),
                     .transpose_a = !forward,
                     .transpose_b = forward,
                     .tf32 = kTf32};
  test::time_rate(state, *device, "GFLOP/s", 2.0 * static_cast<double>(m * n * k),
                  [&] { run(*device, op); });
}

/// One time step's h·Wᵀ with packed weights.
void packed_product(benchmark::State& state) {
  const PackedShape shape{.k = state.range(2), .n = state.range(1), .rows = state.range(0)};
  const auto weight = test::uniform<float>(Cpu{}, shape.k * shape.n);
  const auto h = test::uniform<float>(Cpu{}, shape.rows * shape.k);
  const Buffer<float> gates(Cpu{}, static_cast<std::size_t>(shape.rows * shape.n));
  const Memory storage(Cpu{}, PackedMatrix<float>::bytes(shape));
  const PackedMatrix<float> packed(shape, weight.view(shape.k * shape.n).data, true,
                                   storage.data());
  test::time_rate(state, Cpu{}, "GFLOP/s",
                  2.0 * static_cast<double>(shape.rows * shape.k * shape.n), [&] {
                    packed.multiply(shape.rows, h.view(shape.rows * shape.k).data,
                                    gates.view(shape.rows * shape.n).data, false);
                  });
}

void shapes(benchmark::internal::Benchmark* b) {
  b->ArgNames({"cuda", "m", "n", "k", "form"});
  for (const int cuda : {0, 1}) {
    b->Args({cuda, 2048, 1024, 256, kForward});         // characters: T·B = 64·32, H = 256
    b->Args({cuda, 1024, 256, 2048, kWeightGradient});  //
    b->Args({cuda, 700, 10'000, 650, kForward});        // words: logits, T·B = 35·20, V = 10,000
    b->Args({cuda, 10'000, 650, 700, kWeightGradient});
    b->Args({cuda, 32, 1024, 256, kForward});  // one time step
    b->Args({cuda, 1, 1024, 256, kForward});   // one time step of generation
  }
}
void steps(benchmark::internal::Benchmark* b) {
  b->ArgNames({"B", "4H", "H"});
  b->Args({1, 1024, 256})->Args({4, 1024, 256})->Args({32, 1024, 256});
  b->Args({20, 2600, 650})->Args({64, 4096, 1024});
}
BENCHMARK(product<float>)->Apply(shapes)->UseRealTime();
BENCHMARK(product<float, true>)->Apply(shapes)->UseRealTime();
BENCHMARK(product<bf16>)->Apply(shapes)->UseRealTime();
BENCHMARK(packed_product)->Apply(steps)->UseRealTime();

}  // namespace
}  // namespace carousel
