#pragma once

#include <cudnn.h>

#include <array>
#include <cstddef>

#include "tests/emulation/libraries/cudnn_lstm.h"

// What cuDNN's handles point to on the emulated device.

struct cudnnContext {
  cudaStream_t stream = nullptr;
};
struct cudnnTensorStruct {
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  int dimensions = 0;
  std::array<int, 8> extents{}, strides{};
};
struct cudnnDropoutStruct {
  bool set = false;
};
struct cudnnRNNStruct {
  bool set = false;
  cudnnRNNAlgo_t algorithm{};
  cudnnDataType_t type{};
  std::size_t input_size = 0, hidden_size = 0;
  bool padded = false;
  int built_for = 0;  // batch of cudnnBuildRNNDynamic
};
struct cudnnRNNDataStruct {
  cudnnDataType_t type{};
  cudnnRNNDataLayout_t layout{};
  std::size_t steps = 0, batch = 0, vector = 0;  // steps of 0: not set
};

namespace emulation {

/// Returns `status` and keeps why for cudnnGetLastErrorString.
cudnnStatus_t refuse(cudnnStatus_t status, const char* why);

/// The layer that descriptors say, without its memory.
inline CudnnLstm layer(const cudnnRNNStruct& rnn, const cudnnRNNDataStruct& x) {
  return {.T = x.steps, .B = x.batch, .I = rnn.input_size, .H = rnn.hidden_size, .type = rnn.type};
}

/// Whether an algorithm takes a layer; `backward` asks for more than the forward pass.
cudnnStatus_t algorithm_status(const cudnnRNNStruct& rnn, const cudnnRNNDataStruct& x,
                               bool backward);

/// Whether a sequence of vectors is one that the layer reads or writes.
bool fits(const cudnnRNNStruct& rnn, const cudnnRNNDataStruct& data, std::size_t vector);

}  // namespace emulation
