#include "kernels/combine/combine.h"
#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/half_turns.h"
#include "kernels/rope/rope.h"

namespace carousel {
namespace {

constexpr unsigned kThreads = 256;  // no shared memory and few registers: any size fills an SM

template <class T>
__device__ void give(T* to, float value, bool accumulate) {
  *to = static_cast<T>(accumulate ? value + static_cast<float>(*to) : value);
}

// A thread has one pair of all heads of a row, so that an angle is computed once. Neighbouring threads
// have neighbouring pairs.
template <class T>
__global__ void rope_kernel(const __grid_constant__ Rope<T> op,
                            const __grid_constant__ HalfTurns half_turns) {
  const std::int64_t batch = op.x.extent[1], width = op.x.extent[2], pairs = op.head_width / 2;
  const std::int64_t items = op.x.extent[0] * batch * pairs;
  const std::int64_t threads = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  std::int64_t item = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; item < items; item += threads) {
    const std::int64_t row = item / pairs, pair = item - row * pairs, t = row / batch;
    const std::int64_t before = op.offset.present() ? op.offset(row - t * batch) : 0;
    const auto turns = static_cast<float>(half_turns(before + t, pair));
    const float cosine = cospif(turns), sine = op.inverse ? -sinpif(turns) : sinpif(turns);
    const bool halves = op.pairs == RopePairs::halves;
    const std::int64_t apart = halves ? pairs : 1;
    std::int64_t at = row * width + op.first + (halves ? pair : 2 * pair);
    for (std::int64_t head = 0; head < op.heads; ++head, at += op.head_width) {
      const auto a = static_cast<float>(op.x.data[at]);
      const auto b = static_cast<float>(op.x.data[at + apart]);
      give(op.y.view.data + at, fmaf(-sine, b, cosine * a), op.y.accumulate);
      give(op.y.view.data + at + apart, fmaf(sine, a, cosine * b), op.y.accumulate);
    }
  }
}

/// Columns that no head has.
template <class T>
void pass_on(const Cuda& device, const Rope<T>& op, std::int64_t begin, std::int64_t end) {
  const std::int64_t rows = op.x.extent[0] * op.x.extent[1], width = op.x.extent[2];
  if (begin == end || (op.x.data == op.y.view.data && !op.y.accumulate)) return;
  CopyColumns<T>{.from = {op.x.data, {rows, width}},
                 .first_from = begin,
                 .to = {{op.y.view.data, {rows, width}}, op.y.accumulate},
                 .first_to = begin,
                 .width = end - begin}
      .run(device);
}

}  // namespace

template <class T>
void Rope<T>::run(const Cuda& device) const {
  const std::int64_t items = x.extent[0] * x.extent[1] * (head_width / 2);
  launch(device, {.blocks = blocks_for(items, kThreads), .threads = kThreads}, rope_kernel<T>,
         *this, HalfTurns(base, head_width));
  pass_on(device, *this, 0, first);
  pass_on(device, *this, first + heads * head_width, x.extent[2]);
}

template void Rope<float>::run(const Cuda&) const;
template void Rope<bf16>::run(const Cuda&) const;

}  // namespace carousel
