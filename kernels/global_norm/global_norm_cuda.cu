#include <algorithm>

#include "kernels/common/check.h"
#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/reduce.cuh"
#include "kernels/common/cuda/shared.cuh"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/global_norm/global_norm.h"

namespace carousel {
namespace {

constexpr int kThreads = 256;

struct Shared {
  BlockReduceStorage<double, kThreads> reduce;
};

// One block per stretch, so at most kGlobalNormPartials blocks: eight to an SM of the largest
// cards, enough to saturate memory. Double costs nothing here: one conversion and one multiply-add
// per four bytes read is below what every card from sm_80 on can do.
template <class T>
__global__ void global_norm_partial_kernel(const __grid_constant__
                                           typename GlobalNorm<T>::Part part) {
  constexpr int kEach = 4;
  const std::int64_t stretch = part.stretch(), first = blockIdx.x * stretch;
  const std::int64_t count = min(stretch, part.used() - first);  // negative beyond the used rows
  const T* const gradient = part.values + first;
  double sum[kEach] = {};
  for (std::int64_t n = kEach * threadIdx.x; n < count; n += kEach * kThreads) {
    float values[kEach];
    load(gradient + n, count - n, values);
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      sum[i] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
    }
  }
  auto& shared = dynamic_shared<Shared>();
  const double total =
      block_reduce<kThreads>((sum[0] + sum[1]) + (sum[2] + sum[3]), Sum{}, shared.reduce);
  if (threadIdx.x == 0) part.partial[blockIdx.x] = total;
}

// One block. A launch of its own costs a microsecond, and no counter has to be kept at zero.
template <class T>
__global__ void global_norm_finish_kernel(const __grid_constant__ GlobalNorm<T> op,
                                          std::int64_t partials) {
  double sum = 0;
  for (std::int64_t p = threadIdx.x; p < partials; p += kThreads) sum += op.scratch.data[p];
  sum = block_reduce<kThreads>(sum, Sum{}, dynamic_shared<Shared>().reduce);
  if (threadIdx.x != 0) return;
  const double norm = sqrt(sum);
  const double scale = op.clip_norm / (norm + 1e-6);
  op.norm.data[0] = static_cast<T>(norm);
  // The comparison is this way round so that NaN does not become 1.
  op.gradient_scale.data[0] = static_cast<T>(op.clip_norm == 0 || scale >= 1 ? 1.0 : scale);
  bool finite = isfinite(static_cast<T>(norm));
  for (std::int64_t k = 0; k < op.loss.extent[0]; ++k) {
    finite = finite && isfinite(op.loss.data[k]);
  }
  op.finite.data[0] = finite && !(op.keep_failure && op.finite.data[0] == 0) ? 1 : 0;
}

}  // namespace

template <class T>
void GlobalNorm<T>::run(const Cuda& device) const {
  const std::int64_t partials = for_each_part([&](const Part& part) {
    launch(device, {.blocks = part.partials(), .threads = kThreads, .shared_bytes = sizeof(Shared)},
           global_norm_partial_kernel<T>, part);
  });
  launch(device, {.blocks = 1, .threads = kThreads, .shared_bytes = sizeof(Shared)},
         global_norm_finish_kernel<T>, *this, partials);
}

template void GlobalNorm<float>::run(const Cuda&) const;

}  // namespace carousel
