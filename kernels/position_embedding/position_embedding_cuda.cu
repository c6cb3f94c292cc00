#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/common/half_turns.h"
#include "kernels/position_embedding/position_embedding.h"

namespace carousel {
namespace {

constexpr unsigned kThreads = 256;  // no shared memory and few registers: any size fills an SM

__device__ std::int64_t thread_index() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ std::int64_t thread_count() { return static_cast<std::int64_t>(gridDim.x) * blockDim.x; }

constexpr std::int64_t pieces_of(std::int64_t width, int vector) {
  return (width + vector - 1) / vector;
}

// One thread per 128 bits of a row of y.
template <class T>
__global__ void position_embedding_forward_kernel(
    const __grid_constant__ PositionEmbeddingForward<T> op,
    const __grid_constant__ HalfTurns half_turns) {
  constexpr int N = kVector<T>;
  const std::int64_t batch = op.x.extent[1], width = op.x.extent[2], pieces = pieces_of(width, N);
  const std::int64_t items = op.x.extent[0] * batch * pieces;
  for (std::int64_t item = thread_index(); item < items; item += thread_count()) {
    const std::int64_t row = item / pieces, column = (item - row * pieces) * N, t = row / batch;
    const std::int64_t n = t + (op.offset.present() ? op.offset(row - t * batch) : 0);
    float x[N], p[N];
    load(op.x.data + row * width + column, width - column, x);
    if (!op.table.present()) {
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const auto turns = static_cast<float>(half_turns(n, (column + i) / 2));
        p[i] = (column + i) % 2 == 0 ? sinpif(turns) : cospif(turns);
      }
    } else if (n >= 0 && n < op.table.extent[0]) {
      load(op.table.data + n * width + column, width - column, p);
    } else {
#pragma unroll
      for (int i = 0; i < N; ++i) p[i] = NAN;
    }
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = fmaf(op.scale, x[i], p[i]);
    store(op.y.data + row * width + column, width - column, x);
  }
}

// One thread per 128 bits of d_x.
template <class T>
__global__ void position_embedding_input_kernel(
    const __grid_constant__ PositionEmbeddingBackward<T> op) {
  constexpr int N = kVector<T>;
  const std::int64_t size = op.d_y.size();
  for (std::int64_t n = thread_index() * N; n < size; n += thread_count() * N) {
    float d[N], before[N] = {};
    load(op.d_y.data + n, size - n, d);
    if (op.d_x.accumulate) load(op.d_x.view.data + n, size - n, before);
#pragma unroll
    for (int i = 0; i < N; ++i) d[i] = fmaf(op.scale, d[i], before[i]);
    store(op.d_x.view.data + n, size - n, d);
  }
}

// One thread per 128 bits of a row of d_table, which adds the rows of the batch in order.
template <class T>
__global__ void position_embedding_table_kernel(
    const __grid_constant__ PositionEmbeddingBackward<T> op) {
  constexpr int N = kVector<T>;
  const std::int64_t steps = op.d_y.extent[0], batch = op.d_y.extent[1], width = op.d_y.extent[2];
  const std::int64_t pieces = pieces_of(width, N), items = op.d_table.view.extent[0] * pieces;
  for (std::int64_t item = thread_index(); item < items; item += thread_count()) {
    const std::int64_t n = item / pieces, column = (item - n * pieces) * N, count = width - column;
    float* const to = op.d_table.view.data + n * width + column;
    float sum[N] = {}, d[N];
    if (op.d_table.accumulate) load(to, count, sum);
    for (std::int64_t b = 0; n < steps && b < batch; ++b) {
      load(op.d_y.data + (n * batch + b) * width + column, count, d);
#pragma unroll
      for (int i = 0; i < N; ++i) sum[i] += d[i];
    }
    store(to, count, sum);
  }
}

// One thread per row.
__global__ void advance_positions_kernel(const __grid_constant__ AdvancePositions op) {
  for (std::int64_t b = thread_index(); b < op.before.extent[0]; b += thread_count()) {
    op.after(b) = op.moved(b);
  }
}

Grid grid(std::int64_t items) {
  return {.blocks = blocks_for(items, kThreads), .threads = kThreads};
}

}  // namespace

template <class T>
void PositionEmbeddingForward<T>::run(const Cuda& device) const {
  const std::int64_t width = x.extent[2];
  note_row_width<T>("E", width);
  launch(device, grid(x.extent[0] * x.extent[1] * pieces_of(width, kVector<T>)),
         position_embedding_forward_kernel<T>, *this,
         HalfTurns(10'000, std::max<std::int64_t>(1, width)));
}

template <class T>
void PositionEmbeddingBackward<T>::run(const Cuda& device) const {
  const std::int64_t width = d_y.extent[2];
  note_row_width<T>("E", width);
  if (d_table.present()) {
    launch(device, grid(d_table.view.extent[0] * pieces_of(width, kVector<T>)),
           position_embedding_table_kernel<T>, *this);
  }
  if (d_x.present()) {
    launch(device, grid(pieces_of(d_y.size(), kVector<T>)), position_embedding_input_kernel<T>,
           *this);
  }
}

void AdvancePositions::run(const Cuda& device) const {
  launch(device, grid(before.extent[0]), advance_positions_kernel, *this);
}

template void PositionEmbeddingForward<float>::run(const Cuda&) const;
template void PositionEmbeddingForward<bf16>::run(const Cuda&) const;
template void PositionEmbeddingBackward<float>::run(const Cuda&) const;
template void PositionEmbeddingBackward<bf16>::run(const Cuda&) const;

}  // namespace carousel
