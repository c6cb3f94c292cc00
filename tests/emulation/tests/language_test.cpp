#include <numeric>

#include "kernels/common/cuda/ptx.cuh"
#include "kernels/common/cuda/shared.cuh"
#include "tests/emulation/tests/toys.h"

// Correct kernels. They must run under every preset without a report.

namespace carousel {
namespace {

using test::Array256;
using test::device;
using test::Words;

std::vector<unsigned> counting(std::size_t count) {
  std::vector<unsigned> values(count);
  std::iota(values.begin(), values.end(), 0U);
  return values;
}

__global__ void reverse_kernel(unsigned* values) {
  auto& shared = dynamic_shared<Array256<unsigned>>();
  unsigned* const own = values + blockIdx.x * blockDim.x;
  shared.value[threadIdx.x] = own[threadIdx.x];
  __syncthreads();
  own[threadIdx.x] = shared.value[blockDim.x - 1 - threadIdx.x];
}

TEST(Language, ABarrierOrdersABlock) {
  const Words values(counting(64 * 256));
  launch(device(), {.blocks = 64, .threads = 256, .shared_bytes = 1024}, reverse_kernel,
         values.data());
  const std::vector<unsigned> got = values.read();
  for (unsigned i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], i / 256 * 256 + 255 - i % 256);
}

__global__ void indices_kernel(unsigned* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = threadIdx.y * blockDim.x + threadIdx.x;
  out[block * blockDim.x * blockDim.y + thread] += thread * 100 + block;
}

TEST(Language, EveryThreadOfAThreeDimensionalGridRunsOnce) {
  const Words out(std::vector<unsigned>(2 * 3 * 5 * 35));
  launch(device(), {.blocks = 2, .blocks_y = 3, .blocks_z = 5, .threads = 7, .threads_y = 5},
         indices_kernel, out.data());
  const std::vector<unsigned> got = out.read();
  for (unsigned i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], i % 35 * 100 + i / 35);
}

__global__ void warp_kernel(unsigned* out, unsigned long long* wide) {
  const unsigned lane = threadIdx.x;
  out[lane] = __shfl_sync(0xFFFFFFFFU, lane, 5, 16);
  out[32 + lane] = __shfl_xor_sync(0xFFFFFFFFU, lane, 3);
  out[64 + lane] = __shfl_down_sync(0xFFFFFFFFU, lane, 4, 8);
  out[96 + lane] = __shfl_up_sync(0xFFFFFFFFU, lane, 2, 8);
  out[128 + lane] = __ballot_sync(0xFFFFFFFFU, lane % 3 == 0);
  if (lane % 2 == 0) out[160 + lane] = __shfl_xor_sync(0x55555555U, lane, 2);
  out[192 + lane] = static_cast<unsigned>(__any_sync(0xFFFFFFFFU, lane == 7) * 10 +
                                          __all_sync(0xFFFFFFFFU, lane == 7));
  wide[lane] = __shfl_xor_sync(0xFFFFFFFFU, 0x100000000ULL + lane, 1);
}

TEST(Language, LanesExchangeValues) {
  const Words out(std::vector<unsigned>(7 * 32)), wide(64);
  launch(device(), {.threads = 32}, warp_kernel, out.data(),
         reinterpret_cast<unsigned long long*>(wide.data()));
  const std::vector<unsigned> got = out.read(), got_wide = wide.read();
  for (unsigned lane = 0; lane < 32; ++lane) {
    EXPECT_EQ(got[lane], lane / 16 * 16 + 5);
    EXPECT_EQ(got[32 + lane], lane ^ 3U);
    EXPECT_EQ(got[64 + lane], lane % 8 < 4 ? lane + 4 : lane);
    EXPECT_EQ(got[96 + lane], lane % 8 < 2 ? lane : lane - 2);
    EXPECT_EQ(got[128 + lane], 0b01001001001001001001001001001001U);
    EXPECT_EQ(got[160 + lane], lane % 2 == 0 ? lane ^ 2U : 0U);
    EXPECT_EQ(got[192 + lane], 10U);
    EXPECT_EQ(got_wide[lane * 2], lane ^ 1U);
    EXPECT_EQ(got_wide[lane * 2 + 1], 1U);
  }
}

__global__ void syncwarp_kernel(unsigned* out) {
  auto& shared = dynamic_shared<Array256<unsigned>>();
  for (unsigned round = 0; round < 3; ++round) {
    shared.value[threadIdx.x] = threadIdx.x + round;
    __syncwarp();
    out[threadIdx.x] = shared.value[threadIdx.x ^ 1U];
    __syncwarp();
  }
}

TEST(Language, SyncwarpOrdersAWarp) {
  const Words out(256);
  launch(device(), {.threads = 256, .shared_bytes = 1024}, syncwarp_kernel, out.data());
  const std::vector<unsigned> got = out.read();
  for (unsigned i = 0; i < 256; ++i) ASSERT_EQ(got[i], (i ^ 1U) + 2);
}

__global__ void vote_kernel(unsigned* out) {
  const int count = __syncthreads_count(threadIdx.x % 5 == 0);
  const int any = __syncthreads_or(threadIdx.x == 99);
  const int all = __syncthreads_and(threadIdx.x != 99);
  if (threadIdx.x == 0) out[0] = static_cast<unsigned>(count * 100 + any * 10 + all);
}

TEST(Language, BarriersCountPredicates) {
  const Words out(1);
  launch(device(), {.threads = 100}, vote_kernel, out.data());
  EXPECT_EQ(out.read()[0], 20U * 100 + 10);
}

/// Blocks pass a sum along the grid: each adds its number to the result of the block before it.
__global__ void relay_kernel(unsigned* sum, unsigned* flags) {
  if (threadIdx.x == 0) {
    if (blockIdx.x > 0) {
      while (ptx::load_acquire(&flags[blockIdx.x - 1]) == 0) {
      }
    }
    *sum += blockIdx.x;
    ptx::store_release(&flags[blockIdx.x], 1);
  }
  __syncthreads();
}

TEST(Language, CooperativeBlocksWaitForEachOther) {
  const Words sum(std::vector<unsigned>{0}), flags(std::vector<unsigned>(28));
  launch(device(), {.blocks = 28, .threads = 64, .cooperative = true}, relay_kernel, sum.data(),
         flags.data());
  EXPECT_EQ(sum.read()[0], 27U * 28 / 2);
}

TEST(Language, ACooperativeLaunchTooLargeForTheDeviceIsRefused) {
  const Words unused(1);
  const std::string text = test::failure_of([&] {
    launch(device(), {.blocks = 8, .threads = 1024, .cooperative = true}, relay_kernel,
           unused.data(), unused.data());
  });
  EXPECT_CONTAINS(text, "too many blocks in cooperative launch");
}

__global__ void cluster_kernel(unsigned* out) {
  auto& shared = dynamic_shared<Array256<unsigned>>();
  shared.value[threadIdx.x] = blockIdx.x * 1000 + threadIdx.x;
  ptx::cluster_sync();
  const unsigned* const peer = ptx::in_cluster(shared.value, ptx::cluster_rank() ^ 1U);
  out[blockIdx.x * blockDim.x + threadIdx.x] = peer[threadIdx.x];
  ptx::cluster_sync();  // no block ends while another reads its memory
}

TEST(Language, BlocksOfAClusterReadEachOthersSharedMemory) {
  const Words out(16 * 64);
  launch(device(), {.blocks = 16, .threads = 64, .shared_bytes = 1024, .cluster = 4},
         cluster_kernel, out.data());
  const std::vector<unsigned> got = out.read();
  for (unsigned i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], (i / 64 ^ 1U) * 1000 + i % 64);
}

__global__ void copy_async_kernel(const unsigned* in, unsigned* out) {
  auto& shared = dynamic_shared<Array256<uint4>>();
  for (unsigned stage = 0; stage < 4; ++stage) {
    ptx::copy_async(&shared.value[stage * 64 + threadIdx.x], in + (stage * 64 + threadIdx.x) * 4,
                    stage < 3);
    ptx::copies_commit();
  }
  ptx::copies_wait<2>();
  const unsigned first = shared.value[64 + threadIdx.x].y;   // has arrived
  const unsigned early = shared.value[128 + threadIdx.x].y;  // may not have arrived
  ptx::copies_wait<0>();
  out[threadIdx.x * 4 + 0] = first;
  out[threadIdx.x * 4 + 1] = early;
  out[threadIdx.x * 4 + 2] = shared.value[128 + threadIdx.x].y;
  out[threadIdx.x * 4 + 3] = shared.value[192 + threadIdx.x].y;
}

TEST(Language, AsynchronousCopiesLandAtTheirWait) {
  const Words in(counting(1024)), out(256);
  launch(device(), {.threads = 64, .shared_bytes = 4096}, copy_async_kernel, in.data(), out.data());
  const std::vector<unsigned> got = out.read();
  for (unsigned i = 0; i < 64; ++i) {
    EXPECT_EQ(got[i * 4 + 0], 256 + i * 4 + 1);
    EXPECT_EQ(got[i * 4 + 1], 0x7FF17FF1U);
    EXPECT_EQ(got[i * 4 + 2], 512 + i * 4 + 1);
    EXPECT_EQ(got[i * 4 + 3], 0U);
  }
}

__global__ void order_kernel(unsigned* next, unsigned* order) {
  __syncthreads();
  order[atomicAdd(next, 1)] = blockIdx.x * blockDim.x + threadIdx.x;
}

std::vector<unsigned> order_of(std::uint64_t seed) {
  const Words next(std::vector<unsigned>{0}), order(8 * 64);
  emulation::set_seed(seed);
  launch(device(), {.blocks = 8, .threads = 64}, order_kernel, next.data(), order.data());
  return order.read();
}

TEST(Language, ASeedRepeatsItsSchedule) {
  EXPECT_EQ(order_of(1), order_of(1));
  EXPECT_NE(order_of(1), order_of(2));
}

}  // namespace
}  // namespace carousel
