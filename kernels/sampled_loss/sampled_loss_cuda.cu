#include <type_traits>

#include "kernels/common/cuda/rows.cuh"
#include "kernels/common/cuda/shared.cuh"
#include "kernels/cross_entropy/row.cuh"
#include "kernels/sampled_loss/steps.h"

namespace carousel {
namespace {

using sampled_loss::Scratch;

constexpr int kThreads = 1024;
constexpr unsigned kBlock = 256;  // no shared memory and few registers: any size fills an SM

struct CountShared {
  BlockReduceStorage<std::int32_t, kThreads> count;
};

// One block: N + S words are few beside the products that follow.
template <class A>
__global__ void __launch_bounds__(kThreads)
    sampled_candidates_kernel(const __grid_constant__ SampledCandidates<A> op) {
  auto& shared = dynamic_shared<CountShared>();
  const std::int64_t rows = op.target.extent[0], words = op.candidate.extent[0] - rows;
  std::int32_t known = 0;
  for (std::int64_t n = threadIdx.x; n < rows; n += kThreads) {
    const std::int32_t word = op.target(n);
    op.candidate(n) = word == kIgnoreTarget ? kNoToken : word;
    known += word == kIgnoreTarget ? 0 : 1;
  }
  known = block_reduce<kThreads>(known, Sum{}, shared.count);
  if (threadIdx.x == 0) op.counted(0) = static_cast<A>(known);
  if (words == 0) return;  // no barrier follows
  const std::int64_t step = op.source.step(0);
  for (std::int64_t s = 2 * threadIdx.x; s < words; s += 2 * kThreads) {
    const auto random = op.source.words(static_cast<std::uint64_t>(s) / 2, step);
    op.candidate(rows + s) = op.table.draw(random[0], random[1]);
    if (s + 1 < words) op.candidate(rows + s + 1) = op.table.draw(random[2], random[3]);
  }
}

// One thread per drawn word.
template <class T>
__global__ void sampled_loss_offset_kernel(const __grid_constant__ SampledLoss<T> op,
                                           const __grid_constant__ Scratch<T> scratch) {
  const std::int64_t rows = op.hidden.extent[0], words = sampled_loss::drawn(op);
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  std::int64_t s = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; s < words; s += stride) {
    scratch.offset[s] = op.bias(rows + s) - sampled_loss::log_expected(op, rows + s);
  }
}

__device__ float log_sigmoid(float x) { return fminf(x, 0.0F) - log1pf(expf(-fabsf(x))); }
__device__ float sigmoid(float x) { return 1.0F / (1.0F + expf(-x)); }

template <int kRowThreads>
struct RowShared {
  BlockReduceStorage<float, kRowThreads> sum;
  BlockReduceStorage<row::Sums, kRowThreads> sums;
};

// Combines the values of a row's threads, a warp or a block.
template <int kRowThreads, class V, class Op, class Storage>
__device__ V row_reduce(const V& value, const Op& op, Storage& storage) {
  if constexpr (kRowThreads == kWarp) {
    return warp_reduce(value, op);
  } else {
    return block_reduce<kRowThreads>(value, op, storage);
  }
}

// A row's loss and the gradient of x.
struct RowResult {
  float loss, d_target;
};

template <int kRowThreads, class T>
__device__ RowResult softmax_row(const float* logits, T* d_logits, std::int64_t words, float x,
                                 const std::int32_t* drawn, std::int32_t target, float scale,
                                 RowShared<kRowThreads>& shared) {
  row::Sums own{-INFINITY, 0.0F, 0.0F};
  for (std::int64_t s = threadIdx.x % kRowThreads; s < words; s += kRowThreads) {
    const float z[1] = {drawn[s] == target ? -INFINITY : logits[s]};
    row::add(own, z);
  }
  const row::Sums all = row_reduce<kRowThreads>(own, row::Merge{}, shared.sums);
  const float max = all.max > x ? all.max : x;
  const float rest = all.sum * row::rescale(all.max, max), sum = expf(x - max) + rest;
  const float factor = 1.0F / sum;
  for (std::int64_t s = threadIdx.x % kRowThreads; s < words; s += kRowThreads) {
    const float p = drawn[s] == target ? 0.0F : expf(logits[s] - max) * factor;
    d_logits[s] = static_cast<T>(scale * p);  // may take the logit's place, read by this thread
  }
  return {(max - x) + logf(sum), -scale * (rest * factor)};
}

template <int kRowThreads, class T>
__device__ RowResult noise_row(const float* logits, T* d_logits, std::int64_t words, float x,
                               float scale, RowShared<kRowThreads>& shared) {
  float sum = 0.0F;
  for (std::int64_t s = threadIdx.x % kRowThreads; s < words; s += kRowThreads) {
    const float z = logits[s];
    sum -= log_sigmoid(-z);
    d_logits[s] = static_cast<T>(scale * sigmoid(z));
  }
  sum = row_reduce<kRowThreads>(sum, Sum{}, shared.sum);
  return {sum - log_sigmoid(x), -scale * sigmoid(-x)};
}

// One thread set per row, as row.cuh has it.
template <class T, int kRowThreads>
__global__ void __launch_bounds__(row::kBlockThreads<kRowThreads>)
    sampled_loss_rows_kernel(const __grid_constant__ SampledLoss<T> op,
                             const __grid_constant__ Scratch<T> scratch) {
  auto& shared = dynamic_shared<RowShared<kRowThreads>>();
  const std::int64_t rows = op.hidden.extent[0], width = op.hidden.extent[1];
  const std::int64_t words = sampled_loss::drawn(op);
  row::for_each_row<kRowThreads>(rows, [&](std::int64_t n) {
    const float* const logits = scratch.logits + n * words;
    T* const d_logits = scratch.d_logits + n * words;
    const std::int32_t target = op.candidate(n);
    const bool ignored = target == kNoToken;
    const T *const h = op.hidden.data + n * width, *const w = op.row.data + n * width;
    float product = 0.0F;
    for (std::int64_t i = threadIdx.x % kRowThreads; i < width; i += kRowThreads) {
      product += static_cast<float>(h[i]) * static_cast<float>(w[i]);
    }
    float x = row_reduce<kRowThreads>(product, Sum{}, shared.sum) + op.bias(n);
    if (!sampled_loss::is_known(op, n)) x = NAN;
    const float scale = ignored ? 0.0F : sampled_loss::gradient_scale(op);
    RowResult result{};
    if (op.kind == SampledKind::softmax) {
      result = softmax_row<kRowThreads>(logits, d_logits, words, x, op.candidate.data + rows,
                                        target, scale, shared);
    } else {
      x -= sampled_loss::log_expected(op, n);
      result = noise_row<kRowThreads>(logits, d_logits, words, x, scale, shared);
    }
    if (!sampled_loss::is_known(op, n)) {  // the threads' own elements again
      for (std::int64_t s = threadIdx.x % kRowThreads; s < words; s += kRowThreads) {
        d_logits[s] = static_cast<T>(ignored ? 0.0F : NAN);
      }
    }
    if (threadIdx.x % kRowThreads != 0) return;  // from the row; no barrier follows
    op.loss(n) = ignored ? 0.0F : result.loss;
    scratch.d_target[n] = ignored ? 0.0F : result.d_target;
  });
}

struct MeanShared {
  BlockReduceStorage<double, kThreads> sum;
};

// One block, in double: a long window's sum keeps float's digits.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sampled_loss_mean_kernel(const __grid_constant__ SampledLoss<T> op) {
  auto& shared = dynamic_shared<MeanShared>();
  double sum = 0;
  for (std::int64_t n = threadIdx.x; n < op.loss.extent[0]; n += kThreads) {
    sum += static_cast<double>(op.loss(n));
  }
  sum = block_reduce<kThreads>(sum, Sum{}, shared.sum);
  if (threadIdx.x != 0) return;
  const auto divisor = static_cast<double>(op.denominator(0));
  op.mean_loss(0) = divisor == 0 ? 0.0F : static_cast<float>(sum / divisor);
}

// Threads along a row, several rows in a block if rows are narrow.
template <class T>
__global__ void sampled_loss_target_kernel(const __grid_constant__ SampledLoss<T> op,
                                           const __grid_constant__ Scratch<T> scratch) {
  const std::int64_t rows = op.hidden.extent[0], width = op.hidden.extent[1];
  for (std::int64_t n = first_item(); n < rows; n += item_stride()) {
    const float d = scratch.d_target[n];
    const bool ignored = op.candidate(n) == kNoToken;
    for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x) {
      const std::int64_t at = n * width + i;
      if (op.d_hidden.present() && !ignored) {
        const float before = static_cast<float>(op.d_hidden.view.data[at]);
        op.d_hidden.view.data[at] =
            static_cast<T>(before + d * static_cast<float>(op.row.data[at]));
      }
      if (!op.d_row.present()) continue;
      const float value = ignored ? 0.0F : d * static_cast<float>(op.hidden.data[at]);
      op.d_row.data[at] = static_cast<T>(value);
    }
    if (op.d_row.present() && threadIdx.x == 0) op.d_bias(n) = d;
  }
}

}  // namespace

template <class A>
void SampledCandidates<A>::run(const Cuda& device) const {
  launch(device, {.threads = kThreads, .shared_bytes = sizeof(CountShared)},
         sampled_candidates_kernel<A>, *this);
}

template <class T>
std::size_t SampledLoss<T>::scratch_bytes(const Cuda& device) const {
  ScratchCutter cut;
  sampled_loss::lay_out(cut, *this, device);
  return cut.bytes();
}

template <class T>
void SampledLoss<T>::run(const Cuda& device) const {
  ScratchCutter cut(device, scratch);
  const Scratch<T> parts = sampled_loss::lay_out(cut, *this, device);
  cut.expect_enough("sampled_loss: scratch bytes");
  const auto [rows, width] = hidden.extent;
  const std::int64_t words = sampled_loss::drawn(*this);
  launch(device, {.blocks = blocks_for(words, kBlock), .threads = kBlock},
         sampled_loss_offset_kernel<T>, *this, parts);
  sampled_loss::multiply_logits(device, *this, parts);
  row::with_row_threads(words, [&]<int kRow>(std::integral_constant<int, kRow>) {
    launch(device, row::grid<kRow, RowShared<kRow>>(hidden.extent[0]),
           sampled_loss_rows_kernel<T, kRow>, *this, parts);
  });
  launch(device, {.threads = kThreads, .shared_bytes = sizeof(MeanShared)},
         sampled_loss_mean_kernel<T>, *this);
  if (!sampled_loss::wants_gradient(*this)) return;
  sampled_loss::multiply_gradients(device, *this, parts);
  const RowGrid grid(width, 1, kBlock);
  launch(device, grid.launch_for(rows), sampled_loss_target_kernel<T>, *this, parts);
}

template void SampledCandidates<float>::run(const Cuda&) const;
template void SampledLoss<float>::run(const Cuda&) const;
template std::size_t SampledLoss<float>::scratch_bytes(const Cuda&) const;
template void SampledLoss<bf16>::run(const Cuda&) const;
template std::size_t SampledLoss<bf16>::scratch_bytes(const Cuda&) const;

}  // namespace carousel
