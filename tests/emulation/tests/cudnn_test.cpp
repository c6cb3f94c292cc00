#include <cudnn.h>
#include <gtest/gtest.h>

#include <array>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "tests/emulation/tests/toys.h"

// What the emulated cuDNN must catch in a program that calls it wrongly. What it computes is judged
// where the LSTM is: tests/kernels/lstm_sequence_cudnn_test.cpp.

namespace carousel {
namespace {

using test::device;
using test::failure_of;

enum Pass { kForward, kData, kWeights };
constexpr int kSteps = 2, kBatch = 3, kInput = 4, kWidth = 5;

/// One layer as a program would have it, every argument of a pass open to be spoilt.
class CudnnEmulation : public testing::Test {
 protected:
  void SetUp() override {
    cudnnCreate(&handle), cudnnCreateRNNDescriptor(&rnn);
    cudnnCreateRNNDataDescriptor(&x_data), cudnnCreateRNNDataDescriptor(&y_data);
    cudnnCreateTensorDescriptor(&state);
    cudnnSetStream(handle, device().stream());
    ASSERT_EQ(describe(CUDNN_RNN_ALGO_STANDARD, CUDNN_DATA_FLOAT), CUDNN_STATUS_SUCCESS);
    ASSERT_EQ(cudnnGetRNNWeightSpaceSize(handle, rnn, &weight_bytes), CUDNN_STATUS_SUCCESS);
    ASSERT_EQ(sizes(), CUDNN_STATUS_SUCCESS);
    for (void** tensor : {&x, &y, &dy, &dx, &weights, &d_weights, &workspace, &reserve, &hx, &hy,
                          &cx, &cy, &dhy, &dhx, &dcy, &dcx}) {
      *tensor = allocate();
    }
  }
  void TearDown() override {
    cudaStreamSynchronize(device().stream());
    for (void* tensor : allocated) cudaFree(tensor);
    cudnnDestroyTensorDescriptor(state);
    cudnnDestroyRNNDataDescriptor(x_data), cudnnDestroyRNNDataDescriptor(y_data);
    cudnnDestroyRNNDescriptor(rnn), cudnnDestroy(handle);
  }

  /// As much as the largest of all tensors here has.
  void* allocate() {
    void* memory = nullptr;
    EXPECT_EQ(cudaMalloc(&memory, kBytes), cudaSuccess);
    allocated.push_back(memory);
    return memory;
  }

  cudnnStatus_t describe(cudnnRNNAlgo_t algorithm, cudnnDataType_t type,
                         cudnnDataType_t precision = CUDNN_DATA_FLOAT,
                         cudnnRNNDataLayout_t layout = CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_UNPACKED,
                         int width = kWidth) {
    const std::array lengths{kSteps, kSteps, kSteps};
    const std::array extents{1, kBatch, width}, strides{kBatch * width, width, 1};
    cudnnSetRNNDataDescriptor(x_data, type, layout, kSteps, kBatch, kInput, lengths.data(),
                              nullptr);
    cudnnSetRNNDataDescriptor(y_data, type, layout, kSteps, kBatch, width, lengths.data(), nullptr);
    cudnnSetTensorNdDescriptor(state, type, 3, extents.data(), strides.data());
    return cudnnSetRNNDescriptor_v8(rnn, algorithm, CUDNN_LSTM, CUDNN_RNN_DOUBLE_BIAS,
                                    CUDNN_UNIDIRECTIONAL, CUDNN_LINEAR_INPUT, type, precision,
                                    CUDNN_DEFAULT_MATH, kInput, width, width, 1, nullptr,
                                    CUDNN_RNN_PADDED_IO_ENABLED);
  }
  cudnnStatus_t sizes() {
    return cudnnGetRNNTempSpaceSizes(handle, rnn, CUDNN_FWD_MODE_TRAINING, x_data, &workspace_bytes,
                                     &reserve_bytes);
  }
  cudnnStatus_t forward() {
    return cudnnRNNForward(handle, rnn, CUDNN_FWD_MODE_TRAINING, nullptr, x_data, x, y_data, y,
                           state, hx, hy, state, cx, cy, weight_bytes, weights, workspace_bytes,
                           workspace, reserve_bytes, reserve);
  }
  cudnnStatus_t backward_data() {
    return cudnnRNNBackwardData_v8(handle, rnn, nullptr, y_data, y, dy, x_data, dx, state, hx, dhy,
                                   dhx, state, cx, dcy, dcx, weight_bytes, weights, workspace_bytes,
                                   workspace, reserve_bytes, reserve);
  }
  cudnnStatus_t backward_weights() {
    return cudnnRNNBackwardWeights_v8(handle, rnn, CUDNN_WGRAD_MODE_ADD, nullptr, x_data, x, state,
                                      hx, y_data, y, weight_bytes, d_weights, workspace_bytes,
                                      workspace, reserve_bytes, reserve);
  }
  /// What the device says of passes that were queued without an objection.
  std::string failure(std::initializer_list<Pass> passes) {
    return failure_of([&] {
      for (const Pass pass : passes) {
        const cudnnStatus_t status = pass == kForward ? forward()
                                     : pass == kData  ? backward_data()
                                                      : backward_weights();
        EXPECT_EQ(status, CUDNN_STATUS_SUCCESS);
      }
    });
  }
  void expect_refused(cudnnStatus_t status, const char* why) {
    EXPECT_NE(status, CUDNN_STATUS_SUCCESS);
    std::array<char, 200> words{};
    cudnnGetLastErrorString(words.data(), words.size());
    EXPECT_CONTAINS(std::string(words.data()), why);
  }

  static constexpr std::size_t kBytes = 4096;
  cudnnHandle_t handle = nullptr;
  cudnnRNNDescriptor_t rnn = nullptr;
  cudnnRNNDataDescriptor_t x_data = nullptr, y_data = nullptr;
  cudnnTensorDescriptor_t state = nullptr;
  std::size_t weight_bytes = 0, workspace_bytes = 0, reserve_bytes = 0;
  void *x, *y, *dy, *dx, *weights, *d_weights, *workspace, *reserve;
  void *hx, *hy, *cx, *cy, *dhy, *dhx, *dcy, *dcx;
  std::vector<void*> allocated;
};

TEST_F(CudnnEmulation, ThreePassesInOrderRunAndCanBeRepeated) {
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(failure({kForward, kData, kWeights}), "nothing");
  }
}

TEST_F(CudnnEmulation, PassesInAnotherOrder) {
  EXPECT_CONTAINS(failure({kData}), "not as a forward pass left it");
  EXPECT_CONTAINS(failure({kForward, kWeights}), "not as cudnnRNNBackwardData_v8 left it");
  EXPECT_CONTAINS(failure({kForward, kData, kData}), "not as a forward pass left it");
  EXPECT_CONTAINS(failure({kForward, kData, kWeights, kWeights}),
                  "not as cudnnRNNBackwardData_v8 left it");
}

TEST_F(CudnnEmulation, AReserveThatIsNotTheForwardPasss) {
  EXPECT_EQ(failure({kForward}), "nothing");
  reserve = allocate();
  EXPECT_CONTAINS(failure({kData}), "not as a forward pass left it");
}

TEST_F(CudnnEmulation, SpacesThatAreTooSmall) {
  for (std::size_t* bytes : {&weight_bytes, &workspace_bytes, &reserve_bytes}) {
    --*bytes;
    expect_refused(forward(), "weight, work or reserve space");
    expect_refused(backward_data(), "weight, work or reserve space");
    expect_refused(backward_weights(), "weight, work or reserve space");
    ++*bytes;
  }
  reserve_bytes = kBytes + 1;  // more than there is
  expect_refused(forward(), "no device memory");
}

TEST_F(CudnnEmulation, AddressesThatAreNoDeviceMemoryOfTheirSize) {
  std::array<char, kBytes> host{};
  for (void** tensor : {&x, &y, &hx, &hy, &cx, &cy}) {
    void* const good = *tensor;
    for (void* const bad : {static_cast<void*>(nullptr), static_cast<void*>(host.data()),
                            static_cast<void*>(static_cast<char*>(good) + kBytes - 4)}) {
      *tensor = bad;
      expect_refused(forward(), "no device memory of its size");
    }
    *tensor = good;
  }
  for (void** tensor : {&dy, &dx, &dhy, &dhx, &dcy, &dcx}) {
    void* const good = std::exchange(*tensor, host.data());
    expect_refused(backward_data(), "no device memory of its size");
    *tensor = good;
  }
  x = host.data();
  expect_refused(backward_weights(), "no device memory of its size");
  workspace = host.data();
  expect_refused(backward_weights(), "no device memory");
}

TEST_F(CudnnEmulation, DescriptorsThatDisagree) {
  const std::array<int, kBatch> lengths{kSteps, kSteps, kSteps};
  const auto set = [&](cudnnRNNDataDescriptor_t data, cudnnDataType_t type, int steps, int width) {
    const std::vector<int> same(kBatch, steps);
    return cudnnSetRNNDataDescriptor(data, type, CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_UNPACKED, steps,
                                     kBatch, width, same.data(), nullptr);
  };
  set(y_data, CUDNN_DATA_FLOAT, kSteps + 1, kWidth);
  expect_refused(forward(), "descriptors of x, y and rnn disagree");
  set(y_data, CUDNN_DATA_HALF, kSteps, kWidth);
  expect_refused(forward(), "descriptors of x, y and rnn disagree");
  set(y_data, CUDNN_DATA_FLOAT, kSteps, kWidth);
  set(x_data, CUDNN_DATA_FLOAT, kSteps, kInput + 1);
  expect_refused(forward(), "descriptors of x, y and rnn disagree");
  expect_refused(sizes(), "descriptors of x and rnn disagree");
  set(x_data, CUDNN_DATA_FLOAT, kSteps, kInput);
  const std::array extents{1, kBatch + 1, kWidth}, strides{(kBatch + 1) * kWidth, kWidth, 1};
  cudnnSetTensorNdDescriptor(state, CUDNN_DATA_FLOAT, 3, extents.data(), strides.data());
  expect_refused(forward(), "descriptors of h, c and rnn disagree");
  EXPECT_EQ(set(x_data, CUDNN_DATA_FLOAT, 0, kInput), CUDNN_STATUS_BAD_PARAM);
  EXPECT_EQ(
      cudnnSetRNNDataDescriptor(x_data, CUDNN_DATA_FLOAT, CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_UNPACKED,
                                kSteps + 1, kBatch, kInput, lengths.data(), nullptr),
      CUDNN_STATUS_NOT_SUPPORTED);
}

TEST_F(CudnnEmulation, WhatAnAlgorithmDoesNotTake) {
  constexpr auto kPacked = CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_PACKED;
  EXPECT_EQ(describe(CUDNN_RNN_ALGO_STANDARD, CUDNN_DATA_BFLOAT16, CUDNN_DATA_BFLOAT16),
            CUDNN_STATUS_NOT_SUPPORTED);
  describe(CUDNN_RNN_ALGO_PERSIST_STATIC, CUDNN_DATA_BFLOAT16);
  expect_refused(sizes(), "PERSIST_STATIC: not half");
  describe(CUDNN_RNN_ALGO_PERSIST_STATIC, CUDNN_DATA_HALF);
  EXPECT_EQ(sizes(), CUDNN_STATUS_SUCCESS);
  describe(CUDNN_RNN_ALGO_PERSIST_DYNAMIC, CUDNN_DATA_FLOAT);
  expect_refused(sizes(), "padded");
  describe(CUDNN_RNN_ALGO_PERSIST_DYNAMIC, CUDNN_DATA_FLOAT, CUDNN_DATA_FLOAT, kPacked);
  expect_refused(sizes(), "not built for this batch");
  cudnnBuildRNNDynamic(handle, rnn, kBatch);
  EXPECT_EQ(sizes(), CUDNN_STATUS_SUCCESS);
  EXPECT_EQ(forward(), CUDNN_STATUS_SUCCESS);
  cudnnBuildRNNDynamic(handle, rnn, kBatch + 1);
  expect_refused(forward(), "not built for this batch");
  describe(CUDNN_RNN_ALGO_PERSIST_STATIC_SMALL_H, CUDNN_DATA_FLOAT, CUDNN_DATA_FLOAT, kPacked, 193);
  expect_refused(sizes(), "too wide");
}

}  // namespace
}  // namespace carousel
