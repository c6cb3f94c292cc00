#include "kernels/common/cuda/launch.cuh"
#include "kernels/scheduled_tokens/scheduled_tokens.h"

namespace carousel {
namespace {

constexpr unsigned kThreads = 128;  // a token a row: fewer than a block, mostly

// One thread per token.
__global__ void scheduled_tokens_kernel(const __grid_constant__ ScheduledTokens op) {
  const std::int64_t step = op.random.step.data[0];
  const double share = given_share(op.forcing, step, [](double x) { return exp(x); });
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.x) * kThreads;
  std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (; n < op.given.extent[0]; n += stride) {
    const auto words = op.random.words(static_cast<std::uint64_t>(op.first + n), step);
    const std::int32_t own = op.own.data[n], given = op.given.data[n];
    op.token.data[n] = static_cast<double>(uniform(words[0])) < share || own < 0 ? given : own;
  }
}

}  // namespace

void ScheduledTokens::run(const Cuda& device) const {
  launch(device, {.blocks = blocks_for(given.extent[0], kThreads), .threads = kThreads},
         scheduled_tokens_kernel, *this);
}

}  // namespace carousel
