#include <algorithm>
#include <type_traits>

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
using attention_cuda::Tile;

/// Calls f with the op's tile and whether it has a bias: kernels of their own, for reading one takes
/// registers. Short sequences get a warp and not four, most of whose rows would be empty. A head of 256 in
/// float needs few rows for the 163 KiB of shared memory of sm_80.
template <class Op, class F>
void with_tile(const Op& op, const F& f) {
  const std::int64_t width = op.rule.head_width, steps = std::max(op.q.steps(), op.k.steps());
  const auto call = [&]<class Tile>(Tile tile) {
    return op.bias.present() ? f(tile, std::true_type{}) : f(tile, std::false_type{});
  };
  if (width <= 64 && steps <= 16 && !op.bias.present()) {
    return f(Tile<64, 16, 16>{}, std::false_type{});
  }
  if (width <= 64) return call(Tile<64, 64, 64>{});
  if (width <= 128) return call(Tile<128, 64, 32>{});
  call(Tile<256, 32, 32>{});
}

/// One block for every tile of `steps` steps of `heads` heads in each row of the batch.
template <class Tile, class Shared>
Grid blocks(std::int64_t steps, std::int64_t heads, std::int64_t batch) {
  return {.blocks = (steps + Tile::kRows - 1) / Tile::kRows * heads * batch,
          .threads = Tile::kThreads,
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
  with_tile(op, [&]<class Tile, bool kBiased>(Tile, std::bool_constant<kBiased>) {
    launch(device, blocks<Tile, ForwardShared<T, Tile>>(q.steps(), rule.heads, q.batch()),
           attention_cuda::attention_forward_kernel<T, Tile, kBiased>, op);
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
  with_tile(op, [&]<class Tile, bool kBiased>(Tile, std::bool_constant<kBiased>) {
    using Shared = BackwardShared<T, Tile>;
    // Keys first: that order is the contract's if two gradients are one tensor.
    const Grid keys = blocks<Tile, Shared>(k.steps(), rule.groups(), q.batch());
    if constexpr (Tile::kWidth > 128) {
      if (d_k.present()) {
        launch(device, keys,
               attention_cuda::attention_backward_keys_kernel<T, Tile, Keep::keys, kBiased>, op,
               delta);
      }
      if (d_v.present()) {
        launch(device, keys,
               attention_cuda::attention_backward_keys_kernel<T, Tile, Keep::values, kBiased>, op,
               delta);
      }
    } else if (d_k.present() || d_v.present()) {
      launch(device, keys,
             attention_cuda::attention_backward_keys_kernel<T, Tile, Keep::both, kBiased>, op,
             delta);
    }
    if (!d_q.present()) return;
    launch(device, blocks<Tile, Shared>(q.steps(), rule.heads, q.batch()),
           attention_cuda::attention_backward_queries_kernel<T, Tile, kBiased>, op, delta);
  });
}

template void AttentionForward<float>::run(const Cuda&) const;
template void AttentionForward<bf16>::run(const Cuda&) const;
template std::size_t AttentionBackward<float>::scratch_bytes(const Cuda&) const;
template std::size_t AttentionBackward<bf16>::scratch_bytes(const Cuda&) const;
template void AttentionBackward<float>::run(const Cuda&) const;
template void AttentionBackward<bf16>::run(const Cuda&) const;

}  // namespace carousel
