#include <type_traits>

#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/copy/copy.h"

namespace carousel {
namespace {

constexpr unsigned kThreads = 256;  // no shared memory and few registers: any size fills an SM

__device__ std::int64_t thread_index() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ std::int64_t thread_count() { return static_cast<std::int64_t>(gridDim.x) * blockDim.x; }

// One thread per element.
template <class T>
__global__ void fill_kernel(const __grid_constant__ Fill<T> op) {
  const std::int64_t size = op.to.extent[0];
  for (std::int64_t n = thread_index(); n < size; n += thread_count()) op.to.data[n] = op.value;
}

// One thread per 128 bits of the narrower type.
template <class From, class To>
__global__ void cast_kernel(const __grid_constant__ Cast<From, To> op) {
  constexpr int kEach = 8;
  const std::int64_t size = op.to.extent[0];
  for (std::int64_t n = kEach * thread_index(); n < size; n += kEach * thread_count()) {
    float values[kEach];
    load(op.from.data + n, size - n, values);
    store(op.to.data + n, size - n, values);
  }
}

// One thread per element of [T, B], rows fastest, so that writes coalesce. Reads do not, but the
// next steps of a row come from the same cache lines.
__global__ void gather_windows_kernel(const __grid_constant__ GatherWindows op) {
  const std::int64_t length = op.stream.extent[0];
  const std::int64_t rows = op.token.extent[1], size = op.token.size();
  for (std::int64_t i = thread_index(); i < size; i += thread_count()) {
    const std::int64_t t = i / rows, b = i - t * rows, position = op.position.data[b];
    // n = position + t, which may not be formed before it is known to fit.
    const bool inside = position >= -t && position < length - t;
    const std::int64_t n = inside ? position + t : 0;
    op.token.data[i] = inside ? op.stream.data[n] : 0;
    if (op.target.present()) {
      op.target.data[i] =
          inside && n + 1 < length ? op.stream.data[n + 1] : GatherWindows::kNoTarget;
    }
    if (op.reset.present()) {
      const bool begins =
          n == 0 || (op.document_end >= 0 && op.stream.data[n - 1] == op.document_end);
      const bool restarts = t == 0 && op.restart.present() && op.restart.data[b] != 0;
      op.reset.data[i] = inside && (begins || restarts) ? 1 : 0;
    }
  }
}

// One thread per element of `to`, so that writes coalesce, and reads within a row.
template <class T>
__global__ void gather_rows_kernel(const __grid_constant__ GatherRows<T> op) {
  const std::int64_t given = op.from.extent[1], rows = op.to.extent[1], inner = op.to.extent[2];
  const std::int64_t size = op.to.size();
  for (std::int64_t i = thread_index(); i < size; i += thread_count()) {
    const std::int64_t line = i / inner, o = line / rows;
    const std::int64_t b = op.row.data[line - o * rows];
    const bool exists = b >= 0 && b < given;
    op.to.data[i] = exists ? op.from.data[(o * given + b) * inner + (i - line * inner)]
                           : GatherRows<T>::kImpossible;
  }
}

}  // namespace

template <class T>
void Fill<T>::run(const Cuda& device) const {
  launch(device, {.blocks = blocks_for(to.extent[0], kThreads), .threads = kThreads},
         fill_kernel<T>, *this);
}

template <class From, class To>
void Cast<From, To>::run(const Cuda& device) const {
  if constexpr (std::is_same_v<From, To>) {
    const auto bytes = static_cast<std::size_t>(to.extent[0]) * sizeof(To);
    if (bytes == 0) return;
    if (Journal* const journal = Journal::mine()) journal->note("the driver's copy");
    check_cuda(
        cudaMemcpyAsync(to.data, from.data, bytes, cudaMemcpyDeviceToDevice, device.stream()),
        "copy");
  } else {
    launch(device, {.blocks = blocks_for(to.extent[0], 8 * kThreads), .threads = kThreads},
           cast_kernel<From, To>, *this);
  }
}

void GatherWindows::run(const Cuda& device) const {
  launch(device, {.blocks = blocks_for(token.size(), kThreads), .threads = kThreads},
         gather_windows_kernel, *this);
}

template <class T>
void GatherRows<T>::run(const Cuda& device) const {
  launch(device, {.blocks = blocks_for(to.size(), kThreads), .threads = kThreads},
         gather_rows_kernel<T>, *this);
}

template void Fill<float>::run(const Cuda&) const;
template void Fill<bf16>::run(const Cuda&) const;
template void Fill<std::int32_t>::run(const Cuda&) const;
template void Fill<std::int64_t>::run(const Cuda&) const;
template void Cast<float, bf16>::run(const Cuda&) const;
template void Cast<bf16, float>::run(const Cuda&) const;
template void Cast<float, float>::run(const Cuda&) const;
template void Cast<bf16, bf16>::run(const Cuda&) const;
template void Cast<std::int32_t, std::int32_t>::run(const Cuda&) const;
template void Cast<std::int64_t, std::int64_t>::run(const Cuda&) const;
template void GatherRows<float>::run(const Cuda&) const;
template void GatherRows<bf16>::run(const Cuda&) const;
template void GatherRows<std::int32_t>::run(const Cuda&) const;
template void GatherRows<std::int64_t>::run(const Cuda&) const;

}  // namespace carousel
