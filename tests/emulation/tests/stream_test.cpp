#include <algorithm>
#include <cstring>
#include <functional>

#include "tests/emulation/tests/toys.h"

// Streams, copies, graphs, and when the host may access which memory.

namespace carousel {
namespace {

using test::device;
using test::failure_of;
using test::kAddressSanitizer;
using test::Words;

class Streams : public testing::Test {
 protected:
  void SetUp() override { testing::FLAGS_gtest_death_test_style = "threadsafe"; }
};

__global__ void add_kernel(unsigned* values, unsigned amount) {
  values[blockIdx.x * blockDim.x + threadIdx.x] += amount;
}

TEST_F(Streams, TheHostCannotReadDeviceMemory) {
  const Words values(std::vector<unsigned>(4));
  device().synchronize();
  EXPECT_DEATH(
      {
        volatile const unsigned value = *values.data();
        (void)value;
      },
      "host code touched device memory at .* outside a kernel or copy");
}

TEST_F(Streams, NothingRunsBeforeSomethingWaits) {
  bool ran = false;
  emulation::enqueue(device().stream(), [&] { ran = true; });
  EXPECT_FALSE(ran);
  device().synchronize();
  EXPECT_TRUE(ran);
}

TEST_F(Streams, AnExceptionInTheStreamIsTheDevicesFailure) {
  const std::string text = failure_of([] {
    emulation::enqueue(device().stream(), [] { throw std::runtime_error("a product went wrong"); });
  });
  EXPECT_CONTAINS(text, "waiting for the device: a product went wrong");
}

TEST_F(Streams, AHostBufferReusedBeforeItsCopyIsReported) {
  const Words to(4);
  const PinnedMemory from(device(), 16);
  std::memset(from.data(), 1, 16);
  EXPECT_CONTAINS(failure_of([&] {
                    copy_to_device(device(), to.data(), from.data(), 16);
                    std::memset(from.data(), 2, 16);
                  }),
                  "host buffer reused before its asynchronous copy");
  EXPECT_EQ(failure_of([&] {
              copy_to_device(device(), to.data(), from.data(), 16);
              device().synchronize();
              std::memset(from.data(), 3, 16);
            }),
            "nothing");
  EXPECT_EQ(to.read()[3], 0x02020202U);
}

TEST_F(Streams, APageableBufferMayBeReusedAtOnce) {
  std::vector<unsigned> from{1, 2, 3};
  const Words to(3);
  copy_to_device(device(), to.data(), from.data(), 12);
  std::fill(from.begin(), from.end(), 9U);
  EXPECT_EQ(to.read(), (std::vector<unsigned>{1, 2, 3}));
}

TEST_F(Streams, AnAsynchronousCopyToTheHostLandsAtItsWait) {
  const Words from(std::vector<unsigned>{5, 6});
  const PinnedMemory to(device(), 8);
  const auto* const landed = static_cast<const unsigned*>(to.data());
  check_cuda(cudaMemcpyAsync(to.data(), from.data(), 8, cudaMemcpyDeviceToHost, device().stream()),
             "copy");
  if (kAddressSanitizer) {
    EXPECT_DEATH(static_cast<void>(*static_cast<const volatile unsigned*>(landed)),
                 "use-after-poison");
  } else {
    EXPECT_EQ(landed[0], 0x7FF17FF1U);
  }
  device().synchronize();
  EXPECT_EQ(landed[0], 5U);
  EXPECT_EQ(landed[1], 6U);
}

TEST_F(Streams, ACopyOutsideAnAllocationIsRefused) {
  const Words to(4);
  std::vector<unsigned> from(8);
  EXPECT_THROW(copy_to_device(device(), to.data(), from.data(), 20), CudaError);
  EXPECT_THROW(copy_to_host(device(), from.data(), to.data() + 1, 16), CudaError);
}

TEST_F(Streams, AStreamWaitsForAnEventOfAnother) {
  cudaStream_t other = nullptr;
  cudaEvent_t event = nullptr;
  check_cuda(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking), "stream");
  check_cuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "event");
  std::string order;
  emulation::enqueue(other, [&] { order += 'a'; });
  check_cuda(cudaEventRecord(event, other), "record");
  emulation::enqueue(other, [&] { order += 'c'; });
  check_cuda(cudaStreamWaitEvent(device().stream(), event), "wait");
  emulation::enqueue(device().stream(), [&] { order += 'b'; });
  EXPECT_EQ(cudaEventQuery(event), cudaErrorNotReady);
  device().synchronize();
  EXPECT_EQ(order, "ab");
  EXPECT_EQ(cudaEventQuery(event), cudaSuccess);
  check_cuda(cudaStreamDestroy(other), "destroy");
  check_cuda(cudaEventDestroy(event), "destroy");
  EXPECT_EQ(order, "abc");
}

/// Queues every kind of work that a training step queues.
void queue_step(const Words& values, const Words& copy, const PinnedMemory& batch) {
  check_cuda(cudaMemcpyAsync(values.data(), batch.data(), 8 * 4, cudaMemcpyHostToDevice,
                             device().stream()),
             "copy");
  launch(device(), {.blocks = 2, .threads = 8}, add_kernel, values.data(), 3U);
  emulation::enqueue(device().stream(), [to = values.data()] { to[0] *= 2; });
  check_cuda(cudaMemcpyAsync(copy.data(), values.data(), 16 * 4, cudaMemcpyDeviceToDevice,
                             device().stream()),
             "copy");
  check_cuda(cudaMemsetAsync(values.data() + 15, 0, 4, device().stream()), "clear");
}

TEST_F(Streams, AGraphDoesWhatItsCaptureWouldHaveDone) {
  const PinnedMemory batch(device(), 8 * 4);
  auto* const numbers = static_cast<unsigned*>(batch.data());
  const auto run_twice = [&](const auto& step, const Words& copy) {
    std::vector<unsigned> result;
    for (const unsigned start : {10U, 20U}) {
      for (unsigned i = 0; i < 8; ++i) numbers[i] = start + i;
      step();
      const std::vector<unsigned> got = copy.read();
      result.insert(result.end(), got.begin(), got.end());
    }
    return result;
  };

  const Words eager(std::vector<unsigned>(16)), eager_copy(16);
  const auto want = run_twice([&] { queue_step(eager, eager_copy, batch); }, eager_copy);

  const Words values(std::vector<unsigned>(16)), copy(16);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  check_cuda(cudaStreamBeginCapture(device().stream(), cudaStreamCaptureModeThreadLocal), "begin");
  queue_step(values, copy, batch);
  check_cuda(cudaStreamEndCapture(device().stream(), &graph), "end");
  check_cuda(cudaGraphInstantiate(&executable, graph, 0), "instantiate");
  check_cuda(cudaGraphDestroy(graph), "destroy");
  EXPECT_EQ(values.read(), std::vector<unsigned>(16)) << "a capture runs nothing";
  const auto got = run_twice(
      [&] { check_cuda(cudaGraphLaunch(executable, device().stream()), "launch"); }, copy);
  check_cuda(cudaGraphExecDestroy(executable), "destroy");
  EXPECT_EQ(got, want);
}

TEST_F(Streams, WhatCannotBeCapturedLosesTheCapture) {
  const Words values(std::vector<unsigned>(4));
  std::vector<unsigned> pageable(4);
  cudaEvent_t event = nullptr;
  check_cuda(cudaEventCreate(&event), "event");
  const cudaStream_t stream = device().stream();
  void* memory = nullptr;
  const std::vector<std::function<cudaError_t()>> calls{
      [&] { return cudaStreamSynchronize(stream); },
      [&] { return cudaStreamWaitEvent(stream, event); },
      [&] { return cudaEventRecord(event, stream); },
      [&] { return cudaMallocAsync(&memory, 4, stream); },
      [&] { return cudaFreeAsync(values.data(), stream); },
      [&] {
        return cudaMemcpyAsync(values.data(), pageable.data(), 16, cudaMemcpyHostToDevice, stream);
      },
      [&] {
        return cudaMemcpyAsync(pageable.data(), values.data(), 16, cudaMemcpyDeviceToHost, stream);
      }};
  for (std::size_t i = 0; i < calls.size(); ++i) {
    check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "begin");
    EXPECT_EQ(calls[i](), cudaErrorStreamCaptureUnsupported) << i;
    launch(device(), {.blocks = 1, .threads = 4}, add_kernel, values.data(), 3U);
    cudaStreamCaptureStatus capturing{};
    check_cuda(cudaStreamIsCapturing(stream, &capturing), "status");
    EXPECT_EQ(capturing, cudaStreamCaptureStatusInvalidated) << i;
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated) << i;
    EXPECT_EQ(graph, nullptr) << i;
    EXPECT_EQ(values.read(), std::vector<unsigned>(4)) << i;
  }
  check_cuda(cudaEventDestroy(event), "destroy");
}

TEST_F(Streams, MemoryIsCountedAlignedAndFreshEachTime) {
  const MemoryUse before = memory_use(device());
  {
    const Memory a(device(), 1000), b(device(), 0), c(device(), 0);
    EXPECT_NE(b.data(), c.data());
    for (const Memory* m : {&a, &b, &c}) {
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(m->data()) % 256, 0U);
    }
    EXPECT_EQ(memory_use(device()).current, before.current + 1000);
    EXPECT_EQ(memory_use(device()).allocations, before.allocations + 3);
  }
  EXPECT_EQ(memory_use(device()).current, before.current);
  EXPECT_GE(memory_use(device()).peak, before.current + 1000);
  const Words fresh(100);
  EXPECT_EQ(fresh.read(), std::vector<unsigned>(100, 0x7FF17FF1U));
}

TEST_F(Streams, MoreMemoryThanThereIsIsRefused) {
  const std::size_t much = std::size_t{9} << 30;
  EXPECT_THROW(Memory(device(), much), CudaError);
}

}  // namespace
}  // namespace carousel
