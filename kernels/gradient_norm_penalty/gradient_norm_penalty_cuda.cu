#include "kernels/common/check.h"
#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/reduce.cuh"
#include "kernels/common/cuda/shared.cuh"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/gradient_norm_penalty/gradient_norm_penalty.h"
#include "kernels/gradient_norm_penalty/rows.h"

namespace carousel {
namespace {

constexpr int kThreads = 256;
constexpr int kRows = kThreads / kWarp;  // of a block: a warp each

struct Squares {
  double delta, product;
  __device__ Squares operator+(const Squares& other) const {
    return {delta + other.delta, product + other.product};
  }
};

struct TermSum {
  double square, count;
  __device__ TermSum operator+(const TermSum& other) const {
    return {square + other.square, count + other.count};
  }
};
struct FinishShared {
  BlockReduceStorage<TermSum, kThreads> reduce;
};

__device__ std::int64_t first_row() {
  return static_cast<std::int64_t>(blockIdx.x) * kRows + threadIdx.x / kWarp;
}
__device__ std::int64_t row_stride() { return static_cast<std::int64_t>(gridDim.x) * kRows; }

// One warp per pair of steps; no shared memory, so that occupancy is that of the registers.
template <class T>
__global__ void gradient_norm_term_kernel(const __grid_constant__ GradientNormRows<T> r) {
  constexpr int kWide = kVector<T>;
  const unsigned lane = threadIdx.x % kWarp;
  for (std::int64_t n = first_row(); n < r.rows; n += row_stride()) {
    GradientNormTerm term;
    if (r.joined(n)) {
      Squares sum{};
      for (std::int64_t c = lane * kWide; c < r.width; c += kWarp * kWide) {
        float delta[kWide], h[kWide], v[kWide];
        load(r.delta(n) + c, r.width - c, delta);
        load(r.h(n) + c, r.width - c, h);
        load(r.product + n * r.width + c, r.width - c, v);
#pragma unroll
        for (int k = 0; k < kWide; ++k) {
          const double d = static_cast<double>(delta[k]);
          const double u = static_cast<double>(v[k] * activation_slope(r.op.activation, h[k]));
          sum.delta += d * d;
          sum.product += u * u;
        }
      }
      sum = warp_reduce(sum, Sum{});
      term = GradientNormTerm(sqrt(sum.delta), sqrt(sum.product));
    }
    if (lane != 0) continue;
    r.square[n] = term.square;
    r.coefficient[n] = term.coefficient;
    r.counts[n] = term.counts ? 1 : 0;
  }
}

// One block.
template <class T>
__global__ void gradient_norm_finish_kernel(const __grid_constant__ GradientNormRows<T> r) {
  TermSum sum{};
  for (std::int64_t n = threadIdx.x; n < r.rows; n += kThreads) {
    sum = sum + TermSum{r.square[n], static_cast<double>(r.counts[n])};
  }
  sum = block_reduce<kThreads>(sum, Sum{}, dynamic_shared<FinishShared>().reduce);
  if (threadIdx.x != 0) return;
  r.op.penalty.data[0] = sum.count == 0 ? 0.0F : static_cast<float>(sum.square / sum.count);
  r.scale[0] = sum.count == 0 ? 0 : 2 * static_cast<double>(r.op.weight) / sum.count;
}

// One warp per pair of steps: a row of the second product's factor.
template <class T>
__global__ void gradient_norm_factor_kernel(const __grid_constant__ GradientNormRows<T> r) {
  constexpr int kWide = kVector<T>;
  const unsigned lane = threadIdx.x % kWarp;
  for (std::int64_t n = first_row(); n < r.rows; n += row_stride()) {
    const bool counts = r.counts[n] != 0;
    const double coefficient = counts ? r.scale[0] * r.coefficient[n] : 0;
    for (std::int64_t c = lane * kWide; c < r.width; c += kWarp * kWide) {
      float h[kWide], v[kWide], factor[kWide] = {};
      if (counts) {
        load(r.h(n) + c, r.width - c, h);
        load(r.product + n * r.width + c, r.width - c, v);
#pragma unroll
        for (int k = 0; k < kWide; ++k) {
          const float slope = activation_slope(r.op.activation, h[k]);
          factor[k] = static_cast<float>(coefficient * static_cast<double>(v[k] * (slope * slope)));
        }
      }
      store(r.factor + n * r.width + c, r.width - c, factor);
    }
  }
}

}  // namespace

template <class T>
std::size_t GradientNormPenalty<T>::scratch_bytes(const Cuda&) const {
  ScratchCutter cut;
  GradientNormRows<T>(cut, *this);
  return cut.bytes();
}

template <class T>
void GradientNormPenalty<T>::run(const Cuda& device) const {
  ScratchCutter cut(device, scratch);
  const GradientNormRows<T> r(cut, *this);
  cut.expect_enough("gradient_norm_penalty: scratch bytes");
  note_row_width<T>("H", r.width);
  const Grid grid{.blocks = blocks_for(r.rows, kRows), .threads = kThreads};
  r.first_product().run(device);
  launch(device, grid, gradient_norm_term_kernel<T>, r);
  launch(device, {.threads = kThreads, .shared_bytes = sizeof(FinishShared)},
         gradient_norm_finish_kernel<T>, r);
  launch(device, grid, gradient_norm_factor_kernel<T>, r);
  r.second_product().run(device);
}

template void GradientNormPenalty<float>::run(const Cuda&) const;
template void GradientNormPenalty<bf16>::run(const Cuda&) const;
template std::size_t GradientNormPenalty<float>::scratch_bytes(const Cuda&) const;
template std::size_t GradientNormPenalty<bf16>::scratch_bytes(const Cuda&) const;

}  // namespace carousel
