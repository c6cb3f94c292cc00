#include "kernels/common/check.h"
#include "kernels/common/cuda/shared.cuh"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/reduce/column_sum.cuh"
#include "kernels/reduce/row_threads.cuh"
#include "kernels/rms_norm/rms_norm.h"

// A row belongs to a warp or to a block, by its width. It is read once for its sum and once more, from
// the cache, to write.
namespace carousel {
namespace {

template <int kRowThreads>
struct Shared {
  BlockReduceStorage<float, kRowThreads> sum;
};

/// A piece of a row x, which with `added` becomes one of the sum.
template <class T, int N>
__device__ void load_summand(const RmsNormForward<T>& op, std::int64_t at, std::int64_t count,
                             float (&v)[N]) {
  load(op.x.data + at, count, v);
  if (!op.added.present()) return;
  float more[N];
  load(op.added.data + at, count, more);
#pragma unroll
  for (int i = 0; i < N; ++i) v[i] = static_cast<float>(static_cast<T>(v[i] + more[i]));
  store(op.sum.data + at, count, v);
}

template <class T, int kRowThreads>
__global__ void __launch_bounds__(row::kBlockThreads<kRowThreads>)
    rms_norm_forward_kernel(const __grid_constant__ RmsNormForward<T> op) {
  constexpr int N = kVector<T>;
  auto& shared = dynamic_shared<Shared<kRowThreads>>();
  const std::int64_t columns = op.x.extent[1];
  row::for_each_row<kRowThreads>(op.x.extent[0], [&](std::int64_t n) {
    const T* const x = op.x.data + n * columns;
    float squares = 0;
    row::for_each_piece<kRowThreads, N>(x, columns, [&](std::int64_t first, std::int64_t count) {
      float v[N];
      load_summand(op, n * columns + first, count, v);
#pragma unroll
      for (int i = 0; i < N; ++i) squares = fmaf(v[i], v[i], squares);
    });
    squares = row::sum_of_row<kRowThreads>(squares, shared.sum);
    const float factor = 1.0F / sqrtf(squares / static_cast<float>(columns) + op.epsilon);
    if (threadIdx.x % kRowThreads == 0) op.inverse_rms(n) = factor;
    // A thread has the same pieces again: it reads what it wrote itself.
    const T* const normalized = op.added.present() ? op.sum.data + n * columns : x;
    row::for_each_piece<kRowThreads, N>(x, columns, [&](std::int64_t first, std::int64_t count) {
      float v[N], gain[N];
      load(normalized + first, count, v);
      if (op.gain.present()) load(op.gain.data + first, count, gain);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        v[i] *= factor;
        if (op.gain.present()) v[i] *= gain[i];
      }
      store(op.y.data + n * columns + first, count, v);
    });
  });
}

/// A piece of a row: δ and x; 0 beyond the row.
template <class T, int N>
__device__ void load_piece(const RmsNormBackward<T>& op, std::int64_t n, std::int64_t first,
                           std::int64_t count, float (&d)[N], float (&x)[N]) {
  const std::int64_t at = n * op.x.extent[1] + first;
  load(op.x.data + at, count, x);
  load(op.d_y.data + at, count, d);
  if (!op.gain.present()) return;
  float gain[N];
  load(op.gain.data + first, count, gain);
#pragma unroll
  for (int i = 0; i < N; ++i) d[i] *= gain[i];
}

template <class T, int kRowThreads>
__global__ void __launch_bounds__(row::kBlockThreads<kRowThreads>)
    rms_norm_backward_kernel(const __grid_constant__ RmsNormBackward<T> op) {
  constexpr int N = kVector<T>;
  auto& shared = dynamic_shared<Shared<kRowThreads>>();
  const std::int64_t columns = op.x.extent[1];
  row::for_each_row<kRowThreads>(op.x.extent[0], [&](std::int64_t n) {
    const T* const x_row = op.x.data + n * columns;
    const float factor = op.inverse_rms(n);
    float along = 0;
    row::for_each_piece<kRowThreads, N>(x_row, columns,
                                        [&](std::int64_t first, std::int64_t count) {
                                          float d[N], x[N];
                                          load_piece(op, n, first, count, d, x);
#pragma unroll
                                          for (int i = 0; i < N; ++i)
                                            along = fmaf(d[i], x[i], along);
                                        });
    along = row::sum_of_row<kRowThreads>(along, shared.sum);
    const float slope = along * factor * factor / static_cast<float>(columns);
    row::for_each_piece<kRowThreads, N>(x_row, columns,
                                        [&](std::int64_t first, std::int64_t count) {
                                          float d[N], x[N], before[N];
                                          T* const d_x = op.d_x.view.data + n * columns + first;
                                          load_piece(op, n, first, count, d, x);
                                          if (op.d_x.accumulate) load(d_x, count, before);
#pragma unroll
                                          for (int i = 0; i < N; ++i) {
                                            d[i] = factor * fmaf(-x[i], slope, d[i]);
                                            if (op.d_x.accumulate) d[i] += before[i];
                                          }
                                          store(d_x, count, d);
                                        });
  });
}

template <class T>
__global__ void rms_norm_gain_kernel(const __grid_constant__ RmsNormBackward<T> op,
                                     const __grid_constant__ column_sum::Plan<1> plan) {
  constexpr int N = column_sum::kPerLane;
  const std::int64_t columns = op.x.extent[1];
  column_sum::sum_group(plan, [&](std::int64_t n, std::int64_t column, auto& sum) {
    float x[N], d[N];
    const float factor = op.inverse_rms(n);
    load<N>(op.x.data + n * columns + column, columns - column, x);
    load<N>(op.d_y.data + n * columns + column, columns - column, d);
#pragma unroll
    for (int i = 0; i < N; ++i) sum[0][i] = fmaf(d[i], x[i] * factor, sum[0][i]);
  });
}

__global__ void rms_norm_combine_kernel(const __grid_constant__ column_sum::Plan<1> plan) {
  column_sum::combine_groups(plan);
}

}  // namespace

template <class T>
void RmsNormForward<T>::run(const Cuda& device) const {
  note_row_width<T>("C", x.extent[1]);
  row::with_row_threads(x.extent[1],
                        [&]<int kRowThreads>(std::integral_constant<int, kRowThreads>) {
                          launch(device, row::grid<kRowThreads, Shared<kRowThreads>>(x.extent[0]),
                                 rms_norm_forward_kernel<T, kRowThreads>, *this);
                        });
}

template <class T>
std::size_t RmsNormBackward<T>::scratch_bytes(const Cuda&) const {
  if (!d_gain.present()) return 0;
  return sizeof(float) * static_cast<std::size_t>(column_sum_scratch(x.extent[0], x.extent[1]));
}

template <class T>
void RmsNormBackward<T>::run(const Cuda& device) const {
  const auto [rows, columns] = x.extent;
  expect_at_least("rms_norm: bytes of scratch", scratch.extent[0],
                  static_cast<std::int64_t>(scratch_bytes(device)));
  note_row_width<T>("C", columns);
  if (d_gain.present()) {
    column_sum::Plan<1> plan(rows, columns, reinterpret_cast<float*>(scratch.data));
    plan.sum[0] = d_gain;
    launch(device, plan.grid(), rms_norm_gain_kernel<T>, *this, plan);
    if (plan.groups > 1) launch(device, plan.combining_grid(), rms_norm_combine_kernel, plan);
  }
  if (!d_x.present()) return;
  row::with_row_threads(columns, [&]<int kRowThreads>(std::integral_constant<int, kRowThreads>) {
    launch(device, row::grid<kRowThreads, Shared<kRowThreads>>(rows),
           rms_norm_backward_kernel<T, kRowThreads>, *this);
  });
}

template void RmsNormForward<float>::run(const Cuda&) const;
template void RmsNormForward<bf16>::run(const Cuda&) const;
template std::size_t RmsNormBackward<float>::scratch_bytes(const Cuda&) const;
template std::size_t RmsNormBackward<bf16>::scratch_bytes(const Cuda&) const;
template void RmsNormBackward<float>::run(const Cuda&) const;
template void RmsNormBackward<bf16>::run(const Cuda&) const;

}  // namespace carousel
