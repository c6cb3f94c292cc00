#include "kernels/binary_choices/binary_choices.h"
#include "kernels/common/check.h"
#include "kernels/common/cuda/shared.cuh"
#include "kernels/common/cuda/vector_io.cuh"
#include "kernels/embedding/embedding_scratch.h"
#include "kernels/reduce/row_threads.cuh"

// A row of hidden belongs to a warp, or to a block of 256 where it is wide. The row and its gradient
// stay in the registers of its threads for all choices, and a row of weight from its product with
// hidden to its share of the gradient: each is read once.
namespace carousel {
namespace {

constexpr int kSumThreads = 1024;

template <class V, int kThreads>
struct Shared {
  BlockReduceStorage<V, kThreads> storage;
};

/// How many rows count.
__global__ void __launch_bounds__(kSumThreads)
    binary_choices_count_kernel(const __grid_constant__ View<const std::int32_t, 2> choice,
                                const __grid_constant__ View<std::int32_t, 1> count) {
  auto& shared = dynamic_shared<Shared<std::int32_t, kSumThreads>>();
  std::int32_t mine = 0;
  for (std::int64_t n = threadIdx.x; n < choice.extent[0]; n += kSumThreads) {
    mine += choice(n, 0) != kNoToken ? 1 : 0;
  }
  mine = block_reduce<kSumThreads>(mine, Sum{}, shared.storage);
  if (threadIdx.x == 0) count.data[0] = mine;
}

template <class T>
__global__ void __launch_bounds__(kSumThreads)
    binary_choices_mean_kernel(const __grid_constant__ BinaryChoices<T> op) {
  auto& shared = dynamic_shared<Shared<float, kSumThreads>>();
  float sum = 0;
  for (std::int64_t n = threadIdx.x; n < op.loss.extent[0]; n += kSumThreads) sum += op.loss(n);
  sum = block_reduce<kSumThreads>(sum, Sum{}, shared.storage);
  const float by = op.divisor();
  if (threadIdx.x == 0) op.mean_loss.data[0] = by == 0 ? 0.0F : sum / by;
}

/// The part of a row that a thread holds: kPieces times kVector<T> neighbouring columns.
template <class T, int kRowThreads, int kPieces>
struct Part {
  static constexpr int N = kVector<T>;
  float value[kPieces][N];

  __device__ static std::int64_t column(int piece) {
    return (static_cast<std::int64_t>(piece) * kRowThreads + threadIdx.x % kRowThreads) * N;
  }
  __device__ void read(const T* row, std::int64_t width) {
#pragma unroll
    for (int p = 0; p < kPieces; ++p) load(row + column(p), width - column(p), value[p]);
  }
  __device__ void write(T* row, std::int64_t width) const {
#pragma unroll
    for (int p = 0; p < kPieces; ++p) store(row + column(p), width - column(p), value[p]);
  }
  __device__ float dot(const Part& other) const {
    float sum = 0;
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
#pragma unroll
      for (int i = 0; i < N; ++i) sum = fmaf(value[p][i], other.value[p][i], sum);
    }
    return sum;
  }
  __device__ void add(float times, const Part& other) {
#pragma unroll
    for (int p = 0; p < kPieces; ++p) {
#pragma unroll
      for (int i = 0; i < N; ++i) value[p][i] = fmaf(times, other.value[p][i], value[p][i]);
    }
  }
};

template <class T, int kRowThreads, int kPieces>
__global__ void __launch_bounds__(row::kBlockThreads<kRowThreads>)
    binary_choices_kernel(const __grid_constant__ BinaryChoices<T> op) {
  auto& shared = dynamic_shared<Shared<float, kRowThreads>>();
  const auto [rows, width] = op.hidden.extent;
  const std::int64_t choices = op.choice.extent[1], vocab = op.weight.extent[0];
  const bool is_first = threadIdx.x % kRowThreads == 0;
  const float scale = op.scale();
  row::for_each_row<kRowThreads>(rows, [&](std::int64_t n) {
    const bool counts = op.choice(n, 0) != kNoToken;
    Part<T, kRowThreads, kPieces> hidden, weight, gradient{};
    if (counts) hidden.read(op.hidden.data + n * width, width);
    float loss = 0;
    for (std::int64_t c = 0; c < choices; ++c) {
      const std::int32_t id = counts ? op.choice(n, c) : kNoToken;
      float d_logit = 0;
      if (id != kNoToken) {  // the same in all threads of the row
        const bool known = known_token(id, vocab);
        weight.read(op.weight.data + (known ? id * width : 0), known ? width : 0);
        float logit = hidden.dot(weight);
        if constexpr (kRowThreads == kWarp) {
          logit = warp_reduce(logit, Sum{});
        } else {
          logit = block_reduce<kRowThreads>(logit, Sum{}, shared.storage);
        }
        const float sign = op.answer(n, c) != 0 ? 1.0F : -1.0F;
        const float right = known ? sign * logit : NAN;
        // −log σ(x) = max(−x, 0) + log(1 + exp(−|x|)), written so that NaN stays
        loss += (right > 0 ? 0.0F : -right) + log1pf(expf(-fabsf(right)));
        d_logit = -sign * scale / (1.0F + expf(right));
        gradient.add(d_logit, weight);
      }
      if (is_first && op.d_logit.present()) op.d_logit(n, c) = d_logit;
    }
    if (is_first) op.loss(n) = loss;
    if (!op.d_hidden.present()) return;
    T* const to = op.d_hidden.view.data + n * width;
    if (op.d_hidden.accumulate) {
      hidden.read(to, width);
      gradient.add(1.0F, hidden);
    }
    gradient.write(to, width);
  });
}

template <class T, int kRowThreads, int kPieces>
void launch_rows(const Cuda& device, const BinaryChoices<T>& op) {
  launch(device, row::grid<kRowThreads, Shared<float, kRowThreads>>(op.hidden.extent[0]),
         binary_choices_kernel<T, kRowThreads, kPieces>, op);
}

}  // namespace

template <class T>
void BinaryChoices<T>::run(const Cuda& device) const {
  constexpr std::int64_t kColumns = kWarp * kVector<T>;  // of one piece
  const std::int64_t width = hidden.extent[1];
  note_row_width<T>("E", width);
  launch(device,
         {.threads = kSumThreads, .shared_bytes = sizeof(Shared<std::int32_t, kSumThreads>)},
         binary_choices_count_kernel, choice, count);
  if (width <= kColumns) {
    launch_rows<T, kWarp, 1>(device, *this);
  } else if (width <= 2 * kColumns) {
    launch_rows<T, kWarp, 2>(device, *this);
  } else if (width <= 4 * kColumns) {
    launch_rows<T, kWarp, 4>(device, *this);
  } else {
    launch_rows<T, 256, 32 / kVector<T>>(device, *this);
  }
  launch(device, {.threads = kSumThreads, .shared_bytes = sizeof(Shared<float, kSumThreads>)},
         binary_choices_mean_kernel<T>, *this);
}

template void BinaryChoices<float>::run(const Cuda&) const;
template void BinaryChoices<bf16>::run(const Cuda&) const;

}  // namespace carousel
