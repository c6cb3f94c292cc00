#include "kernels/attention_decode/attention_decode.h"
#include "kernels/attention_decode/ring.h"
#include "kernels/common/check.h"
#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/reduce.cuh"
#include "kernels/common/cuda/shared.cuh"
#include "kernels/common/cuda/vector_io.cuh"

// A row's visible positions are cut into parts of kPart, each a block's: one query alone has too few heads
// to fill a device. A second kernel combines the parts in order.
namespace carousel {
namespace {

using attention_decode::Entries;
using attention_decode::RowOfCache;

constexpr int kPart = 256, kThreads = 128, kWarps = kThreads / kWarp;
constexpr int kKeyLanes = 8;  ///< lanes that share the product of one key
constexpr int kMostColumns = static_cast<int>(kMostHeadWidth) / kWarp;  ///< of a lane

struct Shared {
  float query[kMostHeadWidth], scores[kPart], sums[kWarps][kMostHeadWidth];
  BlockReduceStorage<float, kThreads> reduce;
};

/// The parts of all queries in scratch memory: the largest score, the sum of exponentials, and D sums.
struct Parts {
  float* data;
  std::int64_t count, width;
  __device__ float* part(std::int64_t query, std::int64_t index) const {
    return data + (query * count + index) * (width + 2);
  }
};

template <class Op>
std::int64_t parts_of(const Op& op) {
  return (RowOfCache::seen_at_most(op.rule, op.cache_k.extent[0]) + kPart - 1) / kPart;
}

/// Query i of [T, B, A].
struct Place {
  std::int64_t t, b, a;
  template <class Op>
  __device__ Place(const Op& op, std::int64_t i)
      : t(i / op.rule.heads / op.q.batch()),
        b(i / op.rule.heads % op.q.batch()),
        a(i % op.rule.heads) {}
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    attention_decode_kernel(const __grid_constant__ AttentionDecode<T> op,
                            const __grid_constant__ Parts parts) {
  auto& shared = dynamic_shared<Shared>();
  const std::int64_t query = blockIdx.x / parts.count, index = blockIdx.x % parts.count;
  const Place at(op, query);
  const RowOfCache row(op, at.b);
  const int width = static_cast<int>(op.rule.head_width), thread = static_cast<int>(threadIdx.x);
  const std::int64_t column = op.rule.group_of(at.a) * width;
  const std::int64_t first = row.first(op.rule, at.t) + index * kPart,
                     left = at.t < row.added ? row.before + at.t + 1 - first : 0;
  const int count = left > kPart ? kPart : left > 0 ? static_cast<int>(left) : 0;
  const T* const q = op.q.head(at.b, at.a, width) + at.t * op.q.stride();
  for (int d = thread; d < width; d += kThreads) {
    shared.query[d] = static_cast<float>(q[d]) * op.rule.scale;
  }
  __syncthreads();
  const Entries<T> keys(op.cache_k, op.k, row, at.b, column);
  float top = -INFINITY;
  for (int s = thread / kKeyLanes; s < kPart; s += kThreads / kKeyLanes) {
    float z = 0;
    if (s < count) {
      const T* const key = keys.at(first + s);
      for (int d = thread % kKeyLanes * kVector<T>; d < width; d += kKeyLanes * kVector<T>) {
        float values[kVector<T>];
        load(key + d, width - d, values);
#pragma unroll
        for (int i = 0; i < kVector<T>; ++i) {
          if (d + i < width) z = fmaf(shared.query[d + i], values[i], z);
        }
      }
    }
    z = warp_reduce<kKeyLanes>(z, Sum{});
    if (s >= count) z = -INFINITY;
    if (thread % kKeyLanes == 0) shared.scores[s] = z;
    top = fmaxf(top, z);
  }
  top = block_reduce<kThreads>(
      top, [](float x, float y) { return fmaxf(x, y); }, shared.reduce);
  const float shift = top == -INFINITY ? 0.0F : top;
  float sum = 0;
  for (int s = thread; s < kPart; s += kThreads) {
    shared.scores[s] = expf(shared.scores[s] - shift);
    sum += shared.scores[s];
  }
  sum = block_reduce<kThreads>(sum, Sum{}, shared.reduce);
  const Entries<T> values(op.cache_v, op.v, row, at.b, column);
  const int warp = thread / kWarp, lane = thread % kWarp;
  float sums[kMostColumns] = {};
  for (int s = warp; s < count; s += kWarps) {
    const T* const value = values.at(first + s);
#pragma unroll
    for (int i = 0; i < kMostColumns; ++i) {
      const int d = lane + kWarp * i;
      if (d < width) sums[i] = fmaf(shared.scores[s], static_cast<float>(value[d]), sums[i]);
    }
  }
#pragma unroll
  for (int i = 0; i < kMostColumns; ++i) shared.sums[warp][lane + kWarp * i] = sums[i];
  __syncthreads();
  float* const part = parts.part(query, index);
  if (thread == 0) part[0] = top, part[1] = sum;
  for (int d = thread; d < width; d += kThreads) {
    float all = 0;
    for (int w = 0; w < kWarps; ++w) all += shared.sums[w][d];
    part[2 + d] = all;
  }
}

/// One warp per query.
template <class T>
__global__ void attention_decode_combine_kernel(const __grid_constant__ AttentionDecode<T> op,
                                                const __grid_constant__ Parts parts,
                                                std::int64_t queries) {
  const std::int64_t query = static_cast<std::int64_t>(blockIdx.x) * blockDim.y + threadIdx.y;
  if (query >= queries) return;  // no barrier follows
  const Place at(op, query);
  float top = -INFINITY, total = 0;
  for (std::int64_t i = 0; i < parts.count; ++i) top = fmaxf(top, parts.part(query, i)[0]);
  const float shift = top == -INFINITY ? 0.0F : top;
  for (std::int64_t i = 0; i < parts.count; ++i) {
    const float* const part = parts.part(query, i);
    total = fmaf(expf(part[0] - shift), part[1], total);
  }
  T* const y = op.y.head(at.b, at.a, parts.width) + at.t * op.y.stride();
  for (std::int64_t d = threadIdx.x; d < parts.width; d += kWarp) {
    float sum = 0;
    for (std::int64_t i = 0; i < parts.count; ++i) {
      const float* const part = parts.part(query, i);
      sum = fmaf(expf(part[0] - shift), part[2 + d], sum);
    }
    y[d] = static_cast<T>(total == 0 ? 0.0F : sum / total);
  }
}

/// One block per new token of a row.
template <class T>
__global__ void append_to_cache_kernel(const __grid_constant__ AppendToCache<T> op) {
  const std::int64_t batch = op.k.batch(), t = blockIdx.x / batch, b = blockIdx.x % batch;
  const RowOfCache row(op, b);
  if (t >= row.added || t < row.added - row.places) return;  // no barrier follows
  const std::int64_t place = (row.before + t) % row.places;
  const T* const k = op.k.head(b, 0, op.width) + t * op.k.stride();
  const T* const v = op.v.head(b, 0, op.width) + t * op.v.stride();
  for (std::int64_t d = threadIdx.x; d < op.width; d += blockDim.x) {
    op.cache_k(place, b, d) = k[d];
    op.cache_v(place, b, d) = v[d];
  }
}

}  // namespace

template <class T>
std::size_t AttentionDecode<T>::scratch_bytes(const Cuda&) const {
  const std::int64_t queries = q.steps() * q.batch() * rule.heads;
  return static_cast<std::size_t>(queries * parts_of(*this) * (rule.head_width + 2)) *
         sizeof(float);
}

template <class T>
void AttentionDecode<T>::run(const Cuda& device) const {
  expect_at_least("attention_decode: bytes of scratch", scratch.extent[0],
                  static_cast<std::int64_t>(scratch_bytes(device)));
  AttentionDecode<T> op = *this;
  op.rule.scale = static_cast<float>(rule.factor());
  const std::int64_t queries = q.steps() * q.batch() * rule.heads;
  const Parts parts{reinterpret_cast<float*>(scratch.data), parts_of(*this), rule.head_width};
  launch(device,
         {.blocks = queries * parts.count, .threads = kThreads, .shared_bytes = sizeof(Shared)},
         attention_decode_kernel<T>, op, parts);
  launch(device,
         {.blocks = blocks_for(queries, kWarps, queries), .threads = kWarp, .threads_y = kWarps},
         attention_decode_combine_kernel<T>, op, parts, queries);
}

template <class T>
void AppendToCache<T>::run(const Cuda& device) const {
  launch(device, {.blocks = k.steps() * k.batch(), .threads = kThreads}, append_to_cache_kernel<T>,
         *this);
}

template std::size_t AttentionDecode<float>::scratch_bytes(const Cuda&) const;
template std::size_t AttentionDecode<bf16>::scratch_bytes(const Cuda&) const;
template void AttentionDecode<float>::run(const Cuda&) const;
template void AttentionDecode<bf16>::run(const Cuda&) const;
template void AppendToCache<float>::run(const Cuda&) const;
template void AppendToCache<bf16>::run(const Cuda&) const;

}  // namespace carousel
