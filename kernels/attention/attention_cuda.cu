#include "kernels/attention/attention.h"
#include "kernels/attention/backward.cuh"
#include "kernels/attention/forward.cuh"
#include "kernels/common/check.h"
#include "kernels/common/cuda/launch.cuh"

namespace carousel {
namespace {

using attention_cuda::BackwardShared;
using attention_cuda::ForwardShared;
using attention_cuda::Keep;
using attention_cuda::kThreads;
using attention_cuda::kTileRows;

/// Calls f with the width of the tiles that hold a head: 64, 128 or 256.
template <class F>
void with_width(std::int64_t head_width, const F& f) {
  if (head_width <= 64) return f(std::integral_constant<int, 64>{});
  if (head_width <= 128) return f(std::integral_constant<int, 128>{});
  f(std::integral_constant<int, 256>{});
}

/// One block for every tile of kTileRows steps of `heads` heads in each row of the batch.
template <int kWidth, class Shared>
Grid tiles(std::int64_t steps, std::int64_t heads, std::int64_t batch) {
  constexpr int kRows = kTileRows<kWidth>;
  return {.blocks = (steps + kRows - 1) / kRows * heads * batch,
          .threads = kThreads<kWidth>,
          .shared_bytes = sizeof(Shared)};
}

/// One warp for every query.
template <class Op>
Grid warps(const Op& op) {
  constexpr unsigned kWarps = 4;
  return {.blocks = (op.q.steps() + kWarps - 1) / kWarps * op.rule.heads * op.q.batch(),
          .threads = kWarp,
          .threads_y = kWarps};
}

/// A copy whose scale is the factor itself.
template <class Op>
Op with_factor(const Op& op) {
  Op result = op;
  result.rule.scale = static_cast<float>(op.rule.factor());
  return result;
}

}  // namespace

template <class T>
void AttentionForward<T>::run(const Cuda& device) const {
  const AttentionForward<T> op = with_factor(*this);
  with_width(rule.head_width, [&]<int kWidth>(std::integral_constant<int, kWidth>) {
    launch(device, tiles<kWidth, ForwardShared<T, kWidth>>(q.steps(), rule.heads, q.batch()),
           attention_cuda::attention_forward_kernel<T, kWidth>, op);
  });
  if (weights.present())
    launch(device, warps(*this), attention_cuda::attention_weights_kernel<T>, op);
}

template <class T>
std::size_t AttentionBackward<T>::scratch_bytes(const Cuda&) const {
  return static_cast<std::size_t>(q.batch() * rule.heads * q.steps()) * sizeof(float);
}

template <class T>
void AttentionBackward<T>::run(const Cuda& device) const {
  expect_at_least("attention: bytes of scratch", scratch.extent[0],
                  static_cast<std::int64_t>(scratch_bytes(device)));
  const AttentionBackward<T> op = with_factor(*this);
  auto* const delta = reinterpret_cast<float*>(scratch.data);
  launch(device, warps(*this), attention_cuda::attention_delta_kernel<T>, op, delta);
  with_width(rule.head_width, [&]<int kWidth>(std::integral_constant<int, kWidth>) {
    using Shared = BackwardShared<T, kWidth>;
    // Keys first: that order is the contract's if two gradients are one tensor.
    const Grid keys = tiles<kWidth, Shared>(k.steps(), rule.groups(), q.batch());
    if constexpr (kWidth > 128) {
      if (d_k.present()) {
        launch(device, keys, attention_cuda::attention_backward_keys_kernel<T, kWidth, Keep::keys>,
               op, delta);
      }
      if (d_v.present()) {
        launch(device, keys,
               attention_cuda::attention_backward_keys_kernel<T, kWidth, Keep::values>, op, delta);
      }
    } else if (d_k.present() || d_v.present()) {
      launch(device, keys, attention_cuda::attention_backward_keys_kernel<T, kWidth, Keep::both>,
             op, delta);
    }
    if (!d_q.present()) return;
    launch(device, tiles<kWidth, Shared>(q.steps(), rule.heads, q.batch()),
           attention_cuda::attention_backward_queries_kernel<T, kWidth>, op, delta);
  });
}

template void AttentionForward<float>::run(const Cuda&) const;
template void AttentionForward<bf16>::run(const Cuda&) const;
template std::size_t AttentionBackward<float>::scratch_bytes(const Cuda&) const;
template std::size_t AttentionBackward<bf16>::scratch_bytes(const Cuda&) const;
template void AttentionBackward<float>::run(const Cuda&) const;
template void AttentionBackward<bf16>::run(const Cuda&) const;

}  // namespace carousel
