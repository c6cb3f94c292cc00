#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/rows.cuh"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/embedding/embedding_scratch.h"
#include "kernels/embedding_mean/embedding_mean.h"

namespace carousel {
namespace {

// As the kernels of embedding: no shared memory, and enough blocks to hide the latency of rows.
constexpr unsigned kThreads = 128;

// One row of threads per context. A thread keeps its columns of the sum in registers; the ids of the
// context come from the first-level cache.
template <class T>
__global__ void embedding_mean_kernel(const __grid_constant__ EmbeddingMean<T> op) {
  constexpr int kWide = kVector<T>;
  const auto [rows, width] = op.y.extent;
  const std::int64_t vocab = op.weight.extent[0], places = op.token.extent[1];
  for (std::int64_t n = first_item(); n < rows; n += item_stride()) {
    const float share = op.share_of(n);
    for (std::int64_t k = threadIdx.x; k < places; k += blockDim.x) {
      op.share(n, k) = op.token(n, k) == kNoToken ? 0.0F : share;
    }
    for (std::int64_t c = threadIdx.x * kWide; c < width; c += blockDim.x * kWide) {
      float sum[kWide]{};
      for (std::int64_t k = 0; k < places; ++k) {
        const std::int32_t token = op.token(n, k);
        if (token == kNoToken) continue;
        float values[kWide];
        const bool known = known_token(token, vocab);
        if (known) load(op.weight.data + token * width + c, width - c, values);
#pragma unroll
        for (int i = 0; i < kWide; ++i) sum[i] += known ? values[i] : NAN;
      }
#pragma unroll
      for (int i = 0; i < kWide; ++i) sum[i] *= share;
      store(op.y.data + n * width + c, width - c, sum);
    }
  }
}

}  // namespace

template <class T>
void EmbeddingMean<T>::run(const Cuda& device) const {
  note_row_width<T>("E", y.extent[1]);
  launch(device, RowGrid(y.extent[1], kVector<T>, kThreads).launch_for(y.extent[0]),
         embedding_mean_kernel<T>, *this);
}

template void EmbeddingMean<float>::run(const Cuda&) const;
template void EmbeddingMean<bf16>::run(const Cuda&) const;

}  // namespace carousel
