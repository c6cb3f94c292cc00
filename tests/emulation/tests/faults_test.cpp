#include <cstdlib>
#include <set>

#include "kernels/common/cuda/ptx.cuh"
#include "kernels/common/cuda/shared.cuh"
#include "tests/emulation/tests/toys.h"

// Kernels with one fault each. AddressSanitizer or ThreadSanitizer must report it where the build has
// them, and otherwise the emulation itself, if it can.

namespace carousel {
namespace {

using test::Array256;
using test::contains;
using test::device;
using test::failure_of;
using test::kAddressSanitizer;
using test::kThreadSanitizer;
using test::Words;

class Faults : public testing::Test {
 protected:
  void SetUp() override { testing::FLAGS_gtest_death_test_style = "threadsafe"; }
};

/// Expects that ThreadSanitizer reports a race in `work`, which changes the exit status.
template <class F>
void expect_race(const F& work) {
  EXPECT_EXIT(
      {
        work();
        std::exit(0);
      },
      testing::ExitedWithCode(66), "data race");
}

/// Expects that the result depends on the schedule.
template <class F>
void expect_results_to_vary(const F& result) {
  std::set<std::vector<unsigned>> seen;
  for (std::uint64_t seed = 1; seed <= 50 && seen.size() < 2; ++seed) {
    emulation::set_seed(seed);
    seen.insert(result());
  }
  EXPECT_GE(seen.size(), 2U);
}

__global__ void write_at_kernel(unsigned* out, long index) { out[index] = 1; }

template <class F>
void expect_reported(const F& work, const char* address_sanitizer, const char* otherwise) {
  if (kAddressSanitizer) {
    EXPECT_DEATH(work(), address_sanitizer);
  } else {
    EXPECT_CONTAINS(failure_of(work), otherwise);
  }
}

TEST_F(Faults, AWritePastAnAllocation) {
  const Words out(10);
  expect_reported(
      [&] {
        launch(device(), {}, write_at_kernel, out.data(), 10L);
        device().synchronize();
      },
      "use-after-poison", "write_at_kernel wrote past the end of the 40 bytes at");
}

TEST_F(Faults, AWriteWhereNothingIsAllocated) {
  const Words out(10);
  EXPECT_DEATH(
      {
        launch(device(), {}, write_at_kernel, out.data(), 1L << 29);
        device().synchronize();
      },
      "device code touched memory at .* that no allocation ever held");
}

TEST_F(Faults, AWriteToFreedMemory) {
  if (!kAddressSanitizer) GTEST_SKIP() << "only AddressSanitizer watches freed memory";
  unsigned* freed = nullptr;
  { freed = Words(10).data(); }
  device().synchronize();
  EXPECT_DEATH(
      {
        launch(device(), {}, write_at_kernel, freed, 0L);
        device().synchronize();
      },
      "use-after-poison");
}

TEST_F(Faults, AWriteToWhatAnArenaTookBack) {
  const Words out(std::vector<unsigned>(256));
  forbid_access(device(), out.data() + 64, 256);
  if (kAddressSanitizer) {
    EXPECT_DEATH(
        {
          launch(device(), {}, write_at_kernel, out.data(), 64L);
          device().synchronize();
        },
        "use-after-poison");
  }
  allow_access(device(), out.data() + 64, 256);
  launch(device(), {}, write_at_kernel, out.data(), 64L);
  const std::vector<unsigned> got = out.read();
  EXPECT_EQ(got[63], 0U);
  EXPECT_EQ(got[64], 1U);
  EXPECT_EQ(got[65], 0x7FF17FF1U);
  EXPECT_EQ(got[128], 0U);
}

__global__ void shared_at_kernel(unsigned* out, unsigned index) {
  auto& shared = dynamic_shared<Array256<unsigned>>();
  // UBSan must not see the array's extent: this test is about memory.
  unsigned* const first = shared.value;
  first[index] = 1;
  out[0] = first[index];
}

TEST_F(Faults, AWritePastSharedMemory) {
  const Words out(1);
  expect_reported(
      [&] {
        launch(device(), {.shared_bytes = 1024}, shared_at_kernel, out.data(), 256U);
        device().synchronize();
      },
      "heap-buffer-overflow", "wrote past the end of its 1024 bytes of shared memory");
}

TEST_F(Faults, MoreSharedMemoryThanTheLaunchGave) {
  const Words out(1);
  EXPECT_CONTAINS(failure_of([&] {
                    launch(device(), {.shared_bytes = 512}, shared_at_kernel, out.data(), 0U);
                  }),
                  "uses 1024 bytes of shared memory, its launch gave 512");
}

__global__ void sparse_kernel(unsigned* out) {
  if (threadIdx.x != 3) out[threadIdx.x] = 0;
}

TEST_F(Faults, AnUnwrittenOutputIsNaN) {
  const Words out(8);
  launch(device(), {.threads = 8}, sparse_kernel, out.data());
  const std::vector<unsigned> got = out.read();
  EXPECT_EQ(got[2], 0U);
  EXPECT_TRUE(std::isnan(std::bit_cast<float>(got[3])));
}

__global__ void rotate_kernel(unsigned* out) {
  auto& shared = dynamic_shared<Array256<unsigned>>();
  shared.value[threadIdx.x] = threadIdx.x;
  // A __syncthreads() is missing here.
  out[threadIdx.x] = shared.value[(threadIdx.x + 1) % blockDim.x];
}

TEST_F(Faults, AMissingBarrier) {
  const Words out(64);
  const auto rotate = [&] {
    launch(device(), {.threads = 64, .shared_bytes = 1024}, rotate_kernel, out.data());
    return out.read();
  };
  if (kThreadSanitizer) {
    expect_race(rotate);
  } else {
    expect_results_to_vary(rotate);
  }
}

__global__ void clash_kernel(unsigned* out) { *out = blockIdx.x; }

TEST_F(Faults, ARaceBetweenBlocks) {
  const Words out(1);
  const auto clash = [&] {
    launch(device(), {.blocks = 40}, clash_kernel, out.data());
    return out.read();
  };
  if (kThreadSanitizer) {
    expect_race(clash);
  } else {
    expect_results_to_vary(clash);
  }
}

/// Block 0 passes a value to block 1 through a flag, which is acquired or read relaxed.
__global__ void hand_over_kernel(unsigned* value, unsigned* flag, bool acquire) {
  if (blockIdx.x == 0) {
    *value = 7;
    ptx::store_release(flag, 1);
  } else {
    while ((acquire ? ptx::load_acquire(flag) : ptx::load_relaxed(flag)) == 0) {
    }
    value[1] = value[0];
  }
}

TEST_F(Faults, ARelaxedFlagBetweenBlocks) {
  if (!kThreadSanitizer) GTEST_SKIP() << "only ThreadSanitizer sees the order of memory";
  const Words value(2), flag(std::vector<unsigned>{0});
  const auto hand_over = [&](bool acquire) {
    launch(device(), {.blocks = 2, .cooperative = true}, hand_over_kernel, value.data(),
           flag.data(), acquire);
    return value.read();
  };
  expect_race([&] { hand_over(false); });
  EXPECT_EQ(hand_over(true)[1], 7U);
}

__global__ void two_barriers_kernel() {
  if (threadIdx.x < 16) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void early_exit_kernel() {
  if (threadIdx.x == 5) return;
  __syncthreads();
}

TEST_F(Faults, ADivergentBarrier) {
  const std::string two =
      failure_of([] { launch(device(), {.threads = 32}, two_barriers_kernel); });
  EXPECT_CONTAINS(two, "two_barriers_kernel: divergent __syncthreads: thread (");
  EXPECT_CONTAINS(two, "waits for __syncthreads at");
  EXPECT_CONTAINS(two, "came to");
  const std::string one = failure_of([] { launch(device(), {.threads = 32}, early_exit_kernel); });
  EXPECT_CONTAINS(one, "divergent __syncthreads");
  EXPECT_CONTAINS(one, "thread (5, 0, 0) of block (0, 0, 0)");
}

__global__ void two_shuffles_kernel(unsigned* out) {
  if (threadIdx.x < 16) {
    out[threadIdx.x] = __shfl_xor_sync(0xFFFFFFFFU, threadIdx.x, 1);
  } else {
    out[threadIdx.x] = __shfl_xor_sync(0xFFFFFFFFU, threadIdx.x, 2);
  }
}
__global__ void foreign_mask_kernel() { __syncwarp(0xFFFFU); }

TEST_F(Faults, ADivergentWarp) {
  const Words out(32);
  EXPECT_CONTAINS(
      failure_of([&] { launch(device(), {.threads = 32}, two_shuffles_kernel, out.data()); }),
      "divergent warp");
  EXPECT_CONTAINS(failure_of([] { launch(device(), {.threads = 32}, foreign_mask_kernel); }),
                  "is not in the mask 0xffff it gives __syncwarp");
}

__global__ void spin_kernel(const unsigned* flag) {
  if (threadIdx.x == 0) {
    while (ptx::load_acquire(flag) == 0) {
    }
  }
  __syncthreads();
}
__global__ void half_warp_kernel() {
  if (threadIdx.x < 16) __syncwarp();
  if (threadIdx.x >= 16) __syncthreads();
}

TEST_F(Faults, AStuckBlock) {
  const Words flag(std::vector<unsigned>{0});
  const std::string spins =
      failure_of([&] { launch(device(), {.threads = 64}, spin_kernel, flag.data()); });
  EXPECT_CONTAINS(spins, "spin_kernel: stuck: thread (0, 0, 0) of block (0, 0, 0)");
  EXPECT_CONTAINS(spins, "faults_test.cpp");
  const std::string waits = failure_of([] { launch(device(), {.threads = 32}, half_warp_kernel); });
  EXPECT_CONTAINS(waits, "none of the 32 threads left can run");
}

TEST_F(Faults, AfterAFailureEveryCallReportsIt) {
  const Words out(32);
  EXPECT_CONTAINS(failure_of([&] {
                    launch(device(), {.threads = 32}, early_exit_kernel);
                    try {
                      device().synchronize();
                    } catch (const CudaError&) {
                    }
                    launch(device(), {.threads = 8}, sparse_kernel, out.data());
                  }),
                  "early_exit_kernel: divergent");
  EXPECT_EQ(failure_of([&] { launch(device(), {.threads = 8}, sparse_kernel, out.data()); }),
            "nothing");
}

}  // namespace
}  // namespace carousel
