#include "kernels/common/check.h"
#include "kernels/common/cuda/shared.cuh"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/layer_norm/layer_norm.h"
#include "kernels/reduce/column_sum.cuh"
#include "kernels/reduce/row_threads.cuh"

// A row belongs to a warp or to a block, by its width. It is read once for its mean, once for the
// variance around that, and once to write; only the first of these goes beyond the cache. A thread
// reads and writes the same pieces of its row in all of them.
namespace carousel {
namespace {

struct SumPair {
  float first = 0, second = 0;
  __device__ friend SumPair operator+(SumPair a, SumPair b) {
    return {a.first + b.first, a.second + b.second};
  }
};

template <int kRowThreads>
struct Shared {
  BlockReduceStorage<float, kRowThreads> sum;
  BlockReduceStorage<SumPair, kRowThreads> pair;
};

template <class T, int kRowThreads>
__global__ void __launch_bounds__(row::kBlockThreads<kRowThreads>)
    layer_norm_forward_kernel(const __grid_constant__ LayerNormForward<T> op) {
  constexpr int N = kVector<T>;
  auto& shared = dynamic_shared<Shared<kRowThreads>>();
  const std::int64_t columns = op.x.extent[1];
  const auto width = static_cast<float>(columns);  // to divide by: a product may be fused or not
  row::for_each_row<kRowThreads>(op.x.extent[0], [&](std::int64_t n) {
    const T* const x = op.x.data + n * columns;
    float sum = 0;
    SumPair around;  // the first mean: what is left of the sum, and the squares
    row::for_each_piece<kRowThreads, N>(x, columns, [&](std::int64_t first, std::int64_t count) {
      float v[N];
      load(x + first, count, v);
#pragma unroll
      for (int i = 0; i < N; ++i) sum += v[i];
    });
    const float near = row::sum_of_row<kRowThreads>(sum, shared.sum) / width;
    row::for_each_piece<kRowThreads, N>(x, columns, [&](std::int64_t first, std::int64_t count) {
      float v[N];
      load(x + first, count, v, near);  // a tail is filled with what adds nothing
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const float off = v[i] - near;
        around = {around.first + off, fmaf(off, off, around.second)};
      }
    });
    around = row::sum_of_row<kRowThreads>(around, shared.pair);
    const float shift = around.first / width, mean = near + shift;
    const float squares = fmaf(-shift, around.first, around.second);
    const float factor = 1.0F / sqrtf(squares / width + op.epsilon);
    if (threadIdx.x % kRowThreads == 0) {
      op.mean(n) = mean;
      op.inverse_deviation(n) = factor;
    }
    row::for_each_piece<kRowThreads, N>(x, columns, [&](std::int64_t first, std::int64_t count) {
      float v[N], gain[N], bias[N];
      load(x + first, count, v);
      if (op.gain.present()) load(op.gain.data + first, count, gain);
      if (op.bias.present()) load(op.bias.data + first, count, bias);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        v[i] = (v[i] - mean) * factor;
        if (op.gain.present()) v[i] *= gain[i];
        if (op.bias.present()) v[i] += bias[i];
      }
      store(op.y.data + n * columns + first, count, v);
    });
  });
}

/// A piece of a row: δ, and x less the row's mean; 0 beyond the row.
template <class T, int N>
__device__ void load_piece(const LayerNormBackward<T>& op, std::int64_t n, std::int64_t first,
                           std::int64_t count, float (&d)[N], float (&x)[N]) {
  const std::int64_t at = n * op.x.extent[1] + first;
  const float mean = op.mean(n);
  load(op.x.data + at, count, x, mean);
  load(op.d_y.data + at, count, d);
  float gain[N];
  if (op.gain.present()) load(op.gain.data + first, count, gain);
#pragma unroll
  for (int i = 0; i < N; ++i) {
    x[i] -= mean;
    if (op.gain.present()) d[i] *= gain[i];
  }
}

template <class T, int kRowThreads>
__global__ void __launch_bounds__(row::kBlockThreads<kRowThreads>)
    layer_norm_backward_kernel(const __grid_constant__ LayerNormBackward<T> op) {
  constexpr int N = kVector<T>;
  auto& shared = dynamic_shared<Shared<kRowThreads>>();
  const std::int64_t columns = op.x.extent[1];
  const auto width = static_cast<float>(columns);  // to divide by: a product may be fused or not
  row::for_each_row<kRowThreads>(op.x.extent[0], [&](std::int64_t n) {
    const T* const x_row = op.x.data + n * columns;
    const float factor = op.inverse_deviation(n);
    SumPair sums;
    row::for_each_piece<kRowThreads, N>(
        x_row, columns, [&](std::int64_t first, std::int64_t count) {
          float d[N], x[N];
          load_piece(op, n, first, count, d, x);
#pragma unroll
          for (int i = 0; i < N; ++i) sums = {sums.first + d[i], fmaf(d[i], x[i], sums.second)};
        });
    sums = row::sum_of_row<kRowThreads>(sums, shared.pair);
    const float shift = sums.first / width, slope = sums.second * factor * factor / width;
    row::for_each_piece<kRowThreads, N>(x_row, columns,
                                        [&](std::int64_t first, std::int64_t count) {
                                          float d[N], x[N], before[N];
                                          T* const d_x = op.d_x.view.data + n * columns + first;
                                          load_piece(op, n, first, count, d, x);
                                          if (op.d_x.accumulate) load(d_x, count, before);
#pragma unroll
                                          for (int i = 0; i < N; ++i) {
                                            d[i] = factor * fmaf(-x[i], slope, d[i] - shift);
                                            if (op.d_x.accumulate) d[i] += before[i];
                                          }
                                          store(d_x, count, d);
                                        });
  });
}

template <class T>
__global__ void layer_norm_parameters_kernel(const __grid_constant__ LayerNormBackward<T> op,
                                             const __grid_constant__ column_sum::Plan<2> plan) {
  constexpr int N = column_sum::kPerLane;
  const std::int64_t columns = op.x.extent[1];
  column_sum::sum_group(plan, [&](std::int64_t n, std::int64_t column, auto& sum) {
    float x[N], d[N];
    const float mean = op.mean(n), factor = op.inverse_deviation(n);
    load<N>(op.x.data + n * columns + column, columns - column, x);
    load<N>(op.d_y.data + n * columns + column, columns - column, d);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      sum[0][i] = fmaf(d[i], (x[i] - mean) * factor, sum[0][i]);
      sum[1][i] += d[i];
    }
  });
}

__global__ void layer_norm_combine_kernel(const __grid_constant__ column_sum::Plan<2> plan) {
  column_sum::combine_groups(plan);
}

}  // namespace

template <class T>
void LayerNormForward<T>::run(const Cuda& device) const {
  note_row_width<T>("C", x.extent[1]);
  row::with_row_threads(x.extent[1],
                        [&]<int kRowThreads>(std::integral_constant<int, kRowThreads>) {
                          launch(device, row::grid<kRowThreads, Shared<kRowThreads>>(x.extent[0]),
                                 layer_norm_forward_kernel<T, kRowThreads>, *this);
                        });
}

template <class T>
std::size_t LayerNormBackward<T>::scratch_bytes(const Cuda&) const {
  if (!d_gain.present() && !d_bias.present()) return 0;
  return 2 * sizeof(float) * static_cast<std::size_t>(column_sum_scratch(x.extent[0], x.extent[1]));
}

template <class T>
void LayerNormBackward<T>::run(const Cuda& device) const {
  const auto [rows, columns] = x.extent;
  expect_at_least("layer_norm: bytes of scratch", scratch.extent[0],
                  static_cast<std::int64_t>(scratch_bytes(device)));
  note_row_width<T>("C", columns);
  if (d_gain.present() || d_bias.present()) {
    column_sum::Plan<2> plan(rows, columns, reinterpret_cast<float*>(scratch.data));
    plan.sum[0] = d_gain;
    plan.sum[1] = d_bias;
    launch(device, plan.grid(), layer_norm_parameters_kernel<T>, *this, plan);
    if (plan.groups > 1) launch(device, plan.combining_grid(), layer_norm_combine_kernel, plan);
  }
  if (!d_x.present()) return;
  row::with_row_threads(columns, [&]<int kRowThreads>(std::integral_constant<int, kRowThreads>) {
    launch(device, row::grid<kRowThreads, Shared<kRowThreads>>(rows),
           layer_norm_backward_kernel<T, kRowThreads>, *this);
  });
}

template void LayerNormForward<float>::run(const Cuda&) const;
template void LayerNormForward<bf16>::run(const Cuda&) const;
template std::size_t LayerNormBackward<float>::scratch_bytes(const Cuda&) const;
template std::size_t LayerNormBackward<bf16>::scratch_bytes(const Cuda&) const;
template void LayerNormBackward<float>::run(const Cuda&) const;
template void LayerNormBackward<bf16>::run(const Cuda&) const;

}  // namespace carousel
