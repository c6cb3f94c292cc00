#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/common/cuda/launch.cuh"
#include "kernels/common/cuda/reduce.cuh"
#include "kernels/common/cuda/shared.cuh"
#include "kernels/common/cuda/sort.h"
#include "kernels/common/cuda/vector_io.cuh"
#include "tests/support/buffer.h"
#include "tests/support/device.h"

// The device code that kernels share, each piece in a kernel of its own.
namespace carousel {
namespace {

using test::Buffer;

const Cuda& cuda() { return std::get<Cuda>(*test::cuda_device()); }

/// 2×2 matrices of integers modulo 2³²: their product is associative and exact, but the order
/// matters. As large as a reduction's value may be.
struct Matrix {
  std::uint32_t a, b, c, d;
  bool operator==(const Matrix&) const = default;
};

struct Multiply {
  __host__ __device__ Matrix operator()(const Matrix& x, const Matrix& y) const {
    return {x.a * y.a + x.b * y.c, x.a * y.b + x.b * y.d, x.c * y.a + x.d * y.c,
            x.c * y.b + x.d * y.d};
  }
};

/// Of determinant 1: the product of many others would be 0.
std::vector<Matrix> random_matrices(std::size_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::vector<Matrix> values(count);
  for (Matrix& m : values) {
    const auto x = static_cast<std::uint32_t>(engine()), y = static_cast<std::uint32_t>(engine());
    m = {1, x, y, 1 + x * y};
  }
  return values;
}

/// result[i] = the product of the group of `size` neighbours that i belongs to.
std::vector<Matrix> group_products(const std::vector<Matrix>& values, std::size_t size) {
  std::vector<Matrix> result;
  for (std::size_t first = 0; first < values.size(); first += size) {
    Matrix product = values[first];
    for (std::size_t i = 1; i < size; ++i) product = Multiply{}(product, values[first + i]);
    result.insert(result.end(), size, product);
  }
  return result;
}

template <int kLanes>
__global__ void warp_product_kernel(const Matrix* values, Matrix* result) {
  const std::int64_t i = blockIdx.x * std::int64_t{blockDim.x} + threadIdx.x;
  result[i] = warp_reduce<kLanes>(values[i], Multiply{});
}

template <int kLanes>
void warp_reduces_in_order() {
  const auto values = random_matrices(192, 71);
  const Buffer<Matrix> in(Device(cuda()), values), out(Device(cuda()), values.size());
  launch(cuda(), {.blocks = 3, .threads = 64}, warp_product_kernel<kLanes>, in.view(192).data,
         out.view(192).data);
  EXPECT_EQ(out.read(), group_products(values, kLanes)) << kLanes << " lanes";
}

TEST(WarpReduce, EveryLaneGetsItsGroupsProductInTheOrderOfTheLanes) {
  CAROUSEL_SKIP_WITHOUT_CUDA();
  warp_reduces_in_order<1>();
  warp_reduces_in_order<2>();
  warp_reduces_in_order<4>();
  warp_reduces_in_order<8>();
  warp_reduces_in_order<16>();
  warp_reduces_in_order<32>();
}

constexpr int kRounds = 4;

/// One reduction after the other on the same storage, each of values that depend on the one before:
/// a missing barrier mixes them up.
template <int kThreads>
__global__ void block_product_kernel(const Matrix* values, Matrix* result) {
  using Storage = BlockReduceStorage<Matrix, kThreads>;
  const std::int64_t i = blockIdx.x * std::int64_t{kThreads} + threadIdx.x;
  Matrix value = values[i];
  for (int round = 0; round < kRounds; ++round) {
    const Matrix product = block_reduce<kThreads>(value, Multiply{}, dynamic_shared<Storage>());
    value = Multiply{}(values[i], product);
  }
  result[i] = value;
}

template <int kThreads>
void block_reduces_in_order() {
  constexpr std::size_t kBlocks = 3, kCount = kBlocks * kThreads;
  const auto values = random_matrices(kCount, 72);
  const Buffer<Matrix> in(Device(cuda()), values), out(Device(cuda()), kCount);
  launch(cuda(),
         {.blocks = kBlocks,
          .threads = kThreads,
          .shared_bytes = sizeof(BlockReduceStorage<Matrix, kThreads>)},
         block_product_kernel<kThreads>, in.view(kCount).data, out.view(kCount).data);

  std::vector<Matrix> want = values;
  for (int round = 0; round < kRounds; ++round) {
    const auto products = group_products(want, kThreads);
    for (std::size_t i = 0; i < kCount; ++i) want[i] = Multiply{}(values[i], products[i]);
  }
  EXPECT_EQ(out.read(), want) << kThreads << " threads";
}

TEST(BlockReduce, EveryThreadGetsTheBlocksProductInTheOrderOfTheThreads) {
  CAROUSEL_SKIP_WITHOUT_CUDA();
  block_reduces_in_order<32>();
  block_reduces_in_order<64>();
  block_reduces_in_order<256>();
  block_reduces_in_order<1024>();
}

__global__ void max_and_sum_kernel(const float* values, float* result) {
  result[2 * threadIdx.x] = warp_reduce(values[threadIdx.x], Max{});
  result[2 * threadIdx.x + 1] = warp_reduce(values[threadIdx.x], Sum{});
}

TEST(WarpReduce, MaxAndSumKeepNaN) {
  CAROUSEL_SKIP_WITHOUT_CUDA();
  for (int nan = -1; nan < 32; ++nan) {
    std::vector<float> values(32);
    for (std::size_t i = 0; i < 32; ++i) values[i] = static_cast<float>(i) - 40.0F;
    if (nan >= 0) values[static_cast<std::size_t>(nan)] = NAN;
    const Buffer<float> in(Device(cuda()), values), out(Device(cuda()), 64);
    launch(cuda(), {.threads = 32}, max_and_sum_kernel, in.view(32).data, out.view(64).data);
    const auto got = out.read();
    for (std::size_t i = 0; i < 64; i += 2) {
      if (nan >= 0) {
        EXPECT_TRUE(std::isnan(got[i]) && std::isnan(got[i + 1])) << "NaN in lane " << nan;
      } else {
        EXPECT_EQ(got[i], -9.0F);
        EXPECT_EQ(got[i + 1], -784.0F);
      }
    }
  }
}

constexpr int kWidth = 16;

/// Moves `count` values, and what a load filled the rest with, by one thread.
template <class T>
__global__ void move_kernel(const T* from, std::int64_t count, T* to, float* loaded) {
  float values[kWidth];
  load<kWidth>(from, count, values, -7.0F);
  store<kWidth>(to, count, values);
  store<kWidth>(loaded, values);
}

template <class T>
void moves_whole_and_cut_vectors() {
  constexpr std::size_t kSize = 40;
  std::vector<T> values(kSize);
  for (std::size_t i = 0; i < kSize; ++i) values[i] = T(static_cast<float>(i) + 1.0F);
  for (std::size_t shift = 0; shift <= 8; ++shift) {
    for (std::size_t count = 0; count <= kWidth + 2; ++count) {
      const Buffer<T> in(Device(cuda()), values),
          out(Device(cuda()), std::vector<T>(kSize, T(0.5F)));
      const Buffer<float> loaded(Device(cuda()), kWidth);
      launch(cuda(), {}, move_kernel<T>, in.view(kSize).data + shift,
             static_cast<std::int64_t>(count), out.view(kSize).data + shift,
             loaded.view(kWidth).data);
      const auto got = out.read();
      const auto seen = loaded.read();
      for (std::size_t i = 0; i < kSize; ++i) {
        const bool moved = i >= shift && i < shift + std::min<std::size_t>(count, kWidth);
        EXPECT_EQ(static_cast<float>(got[i]), moved ? static_cast<float>(values[i]) : 0.5F)
            << "element " << i << ", shift " << shift << ", count " << count;
      }
      for (std::size_t i = 0; i < kWidth; ++i) {
        EXPECT_EQ(seen[i], i < count ? static_cast<float>(values[shift + i]) : -7.0F)
            << "value " << i << ", shift " << shift << ", count " << count;
      }
    }
  }
}

TEST(VectorIo, MovesWholeAndCutVectorsFromAndToAnyAddress) {
  CAROUSEL_SKIP_WITHOUT_CUDA();
  moves_whole_and_cut_vectors<float>();
  moves_whole_and_cut_vectors<bf16>();
}

template <class T>
__global__ void load_kernel(const T* from, float* loaded) {
  float values[kVector<T>];
  load<kVector<T>>(from, values);
  store<kVector<T>>(loaded, values);
}

/// An address checker reports a read beyond the end of the one vector there is.
TEST(VectorIo, ReadsOneVectorAndNoMore) {
  CAROUSEL_SKIP_WITHOUT_CUDA();
  std::vector<bf16> values;
  for (int i = 0; i < kVector<bf16>; ++i) values.emplace_back(static_cast<float>(i));
  const Buffer<bf16> in(Device(cuda()), values);
  const Buffer<float> out(Device(cuda()), values.size());
  launch(cuda(), {}, load_kernel<bf16>, in.view(kVector<bf16>).data, out.view(kVector<bf16>).data);
  EXPECT_EQ(out.read(), std::vector<float>(values.begin(), values.end()));
}

TEST(SortPairs, IsStableAndComparesTheLowBitsAlone) {
  CAROUSEL_SKIP_WITHOUT_CUDA();
  std::mt19937 engine(73);
  for (const std::size_t count : {0, 1, 33, 5000}) {
    for (const int bits : {1, 9, 32}) {
      std::vector<std::uint32_t> keys(count);
      std::vector<std::int32_t> values(count);
      for (std::size_t i = 0; i < count; ++i) {
        keys[i] = static_cast<std::uint32_t>(engine()) | 0x80000000U;
        values[i] = static_cast<std::int32_t>(i);
      }
      const Device device = cuda();
      const Buffer<std::uint32_t> keys_in(device, keys), keys_out(device, count);
      const Buffer<std::int32_t> values_in(device, values), values_out(device, count);
      const Memory scratch(device, sort_scratch_bytes(cuda(), static_cast<std::int64_t>(count)));
      sort_pairs(cuda(), {.keys_in = keys_in.view(count).data,
                          .values_in = values_in.view(count).data,
                          .keys_out = keys_out.view(count).data,
                          .values_out = values_out.view(count).data,
                          .count = static_cast<std::int64_t>(count),
                          .bits = bits,
                          .scratch = scratch.data()});
      const std::uint32_t mask = bits == 32 ? ~0U : (1U << bits) - 1;
      const auto before = [&](std::int32_t a, std::int32_t b) {
        const auto key = [&](std::int32_t v) { return keys[static_cast<std::size_t>(v)] & mask; };
        return key(a) != key(b) ? key(a) < key(b) : a < b;
      };
      const auto sorted_keys = keys_out.read();
      const auto sorted = values_out.read();
      EXPECT_EQ(sorted_keys.size(), count);
      std::vector<bool> seen(count);
      for (std::size_t i = 0; i < count; ++i) {
        const auto value = static_cast<std::size_t>(sorted[i]);
        ASSERT_LT(value, count);
        seen[value] = true;
        EXPECT_EQ(sorted_keys[i], keys[value]);
        EXPECT_TRUE(i == 0 || before(sorted[i - 1], sorted[i])) << i << " of " << count;
      }
      EXPECT_EQ(seen, std::vector<bool>(count, true));
    }
  }
}

TEST(DeviceMemory, FreedMemoryIsKeptOverAWait) {
  CAROUSEL_SKIP_WITHOUT_CUDA();
  constexpr std::size_t kBytes = std::size_t{8} << 20;
  { const Memory freed(Device(cuda()), kBytes); }
  cuda().synchronize();
  cudaMemPool_t pool = nullptr;
  std::uint64_t reserved = 0;
  ASSERT_EQ(cudaDeviceGetDefaultMemPool(&pool, 0), cudaSuccess);
  ASSERT_EQ(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &reserved),
            cudaSuccess);
  EXPECT_GE(reserved, kBytes);
}

/// An output that an op leaves unwritten must not show what the same memory held before.
TEST(DeviceMemory, AFreshBufferShowsNoOldNumbers) {
  for (const Device& device : test::devices()) {
    for (const std::size_t count : {1, 3, 1000}) {
      { const Buffer<float> old(device, std::vector<float>(count, 1)); }
      const Buffer<float> fresh(device, count);
      for (const float x : fresh.read()) EXPECT_TRUE(std::isnan(x));
      const Buffer<std::uint8_t> bytes(device, count);
      EXPECT_EQ(bytes.read()[0], 0xF1);
    }
  }
}

}  // namespace
}  // namespace carousel
