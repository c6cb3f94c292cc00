#include <cudnn.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "tests/emulation/runtime/memory.h"

// A stand-in for cuDNN, loaded as the real library is. It rehearses the programs that call cuDNN:
// sizes, refusals, the order of the passes, device memory of the right size. It computes no LSTM:
// outputs are zeros, and the gradient of the parameters is the parameters.

struct cudnnContext {
  cudaStream_t stream = nullptr;
};
struct cudnnTensorStruct {
  int rows = 0, columns = 0;
};
struct cudnnDropoutStruct {};
struct cudnnRNNStruct {
  cudnnRNNAlgo_t algorithm{};
  std::size_t element_bytes = 0, input = 0, width = 0;
  std::size_t bytes() const { return 4 * width * (input + width + 2) * element_bytes; }
};
struct cudnnRNNDataStruct {
  bool packed = false;
  std::size_t steps = 0, batch = 0, bytes = 0;
};

namespace {

thread_local std::string last_error;

cudnnStatus_t refuse(const char* why) {
  last_error = why;
  return CUDNN_STATUS_NOT_SUPPORTED;
}
template <class Object>
cudnnStatus_t create(Object** object) {
  *object = new Object;
  return CUDNN_STATUS_SUCCESS;
}
template <class Object>
cudnnStatus_t destroy(Object* object) {
  delete object;
  return CUDNN_STATUS_SUCCESS;
}
std::size_t size(int number) { return static_cast<std::size_t>(number); }

/// What the reserve holds: which pass used it last, and with which parameters.
struct Reserve {
  enum Pass : std::uint64_t { forward = 1, data, weights } last;
  const void* parameters;
};

template <class Void>
struct Tensor {
  Void* data;
  std::size_t bytes;
};

/// Queues a pass. It requires the pass before it and device memory of the right size; it writes
/// zeros to `outputs`, or, as the last pass, the parameters to its one output.
cudnnStatus_t queue(cudnnHandle_t handle, Reserve::Pass pass, void* reserve, const void* parameters,
                    const std::vector<Tensor<const void>>& inputs,
                    const std::vector<Tensor<void>>& outputs) {
  emulation::enqueue(handle->stream, [=] {
    const auto exists = [](auto& t) { return emulation::is_allocated(t.data, t.bytes); };
    if (!std::ranges::all_of(inputs, exists) || !std::ranges::all_of(outputs, exists)) {
      throw std::runtime_error("cuDNN: a tensor is not device memory of its size");
    }
    auto& state = *static_cast<Reserve*>(reserve);
    if (pass != Reserve::forward && state.last + 1 != pass) {
      throw std::runtime_error("cuDNN: a pass without the pass before it");
    }
    if (pass == Reserve::forward) state.parameters = parameters;
    state.last = pass;
    for (const auto& output : outputs) {
      std::memset(output.data, 0, output.bytes);
      if (pass == Reserve::weights) std::memcpy(output.data, state.parameters, output.bytes);
    }
  });
  return CUDNN_STATUS_SUCCESS;
}

}  // namespace

std::size_t cudnnGetVersion() { return 91900; }
const char* cudnnGetErrorString(cudnnStatus_t) { return "CUDNN_STATUS_NOT_SUPPORTED"; }
void cudnnGetLastErrorString(char* message, std::size_t size) {
  std::snprintf(message, size, "%s", last_error.c_str());
}

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) { return create(handle); }
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) { return destroy(handle); }
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t* made) { return create(made); }
cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t gone) { return destroy(gone); }
cudnnStatus_t cudnnCreateDropoutDescriptor(cudnnDropoutDescriptor_t* made) { return create(made); }
cudnnStatus_t cudnnDestroyDropoutDescriptor(cudnnDropoutDescriptor_t gone) { return destroy(gone); }
cudnnStatus_t cudnnCreateRNNDescriptor(cudnnRNNDescriptor_t* made) { return create(made); }
cudnnStatus_t cudnnDestroyRNNDescriptor(cudnnRNNDescriptor_t gone) { return destroy(gone); }
cudnnStatus_t cudnnCreateRNNDataDescriptor(cudnnRNNDataDescriptor_t* made) { return create(made); }
cudnnStatus_t cudnnDestroyRNNDataDescriptor(cudnnRNNDataDescriptor_t gone) { return destroy(gone); }

cudnnStatus_t cudnnSetTensorNdDescriptor(cudnnTensorDescriptor_t, cudnnDataType_t, int, const int*,
                                         const int*) {
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnGetTensorNdDescriptor(cudnnTensorDescriptor_t tensor, int, cudnnDataType_t*,
                                         int*, int* extents, int* strides) {
  extents[1] = tensor->rows;
  extents[2] = strides[1] = tensor->columns;
  strides[2] = 1;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetDropoutDescriptor(cudnnDropoutDescriptor_t, cudnnHandle_t, float, void*,
                                        std::size_t, unsigned long long) {
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetRNNDescriptor_v8(cudnnRNNDescriptor_t rnn, cudnnRNNAlgo_t algorithm,
                                       cudnnRNNMode_t, cudnnRNNBiasMode_t, cudnnDirectionMode_t,
                                       cudnnRNNInputMode_t, cudnnDataType_t type, cudnnDataType_t,
                                       cudnnMathType_t, int input, int width, int, int,
                                       cudnnDropoutDescriptor_t, unsigned) {
  *rnn = {.algorithm = algorithm,
          .element_bytes = type == CUDNN_DATA_FLOAT ? 4U : 2U,
          .input = size(input),
          .width = size(width)};
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBuildRNNDynamic(cudnnHandle_t, cudnnRNNDescriptor_t, int) {
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetRNNDataDescriptor(cudnnRNNDataDescriptor_t data, cudnnDataType_t type,
                                        cudnnRNNDataLayout_t layout, int steps, int batch,
                                        int vector, const int*, void*) {
  *data = {.packed = layout == CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_PACKED,
           .steps = size(steps),
           .batch = size(batch),
           .bytes = size(steps) * size(batch) * size(vector) * (type == CUDNN_DATA_FLOAT ? 4 : 2)};
  return CUDNN_STATUS_SUCCESS;
}

// Refusals that a program meets: of an algorithm and of a layout here, of a backward pass below.
cudnnStatus_t cudnnGetRNNTempSpaceSizes(cudnnHandle_t, cudnnRNNDescriptor_t rnn, cudnnForwardMode_t,
                                        cudnnRNNDataDescriptor_t x, std::size_t* workspace,
                                        std::size_t* reserve) {
  if (rnn->algorithm == CUDNN_RNN_ALGO_PERSIST_STATIC) return refuse("PERSIST_STATIC");
  if (rnn->algorithm == CUDNN_RNN_ALGO_PERSIST_DYNAMIC && !x->packed) {
    return refuse("PERSIST_DYNAMIC: padded");
  }
  *workspace = x->batch * 4 * rnn->width * sizeof(float);
  *reserve = sizeof(Reserve) + x->steps * *workspace;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnGetRNNWeightSpaceSize(cudnnHandle_t, cudnnRNNDescriptor_t rnn,
                                         std::size_t* bytes) {
  *bytes = rnn->bytes();
  return CUDNN_STATUS_SUCCESS;
}
/// Products 0-3 are of the input, 4-7 of the state, in the order i, f, g, o. They are stored in the
/// opposite order, each weight before its bias: a program must ask where they are.
cudnnStatus_t cudnnGetRNNWeightParams(cudnnHandle_t, cudnnRNNDescriptor_t rnn, int, std::size_t,
                                      const void* space, int product,
                                      cudnnTensorDescriptor_t matrix, void** matrix_data,
                                      cudnnTensorDescriptor_t bias, void** bias_data) {
  const std::size_t of_state = size(std::min(4, 7 - product)),
                    of_input = size(7 - product) - of_state;
  const std::size_t columns = product < 4 ? rnn->input : rnn->width;
  const std::size_t before =
      rnn->width * (of_state * (rnn->width + 1) + of_input * (rnn->input + 1));
  auto* const first = static_cast<char*>(const_cast<void*>(space)) + before * rnn->element_bytes;
  *matrix_data = first;
  *bias_data = first + rnn->width * columns * rnn->element_bytes;
  *matrix = {.rows = static_cast<int>(rnn->width), .columns = static_cast<int>(columns)};
  *bias = {.rows = static_cast<int>(rnn->width), .columns = 1};
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnRNNForward(cudnnHandle_t handle, cudnnRNNDescriptor_t rnn, cudnnForwardMode_t,
                              const int*, cudnnRNNDataDescriptor_t of_x, const void* x,
                              cudnnRNNDataDescriptor_t of_y, void* y, cudnnTensorDescriptor_t,
                              const void* hx, void* hy, cudnnTensorDescriptor_t, const void* cx,
                              void* cy, std::size_t, const void* weights, std::size_t, void*,
                              std::size_t, void* reserve) {
  const std::size_t state = of_y->bytes / of_y->steps;
  return queue(handle, Reserve::forward, reserve, weights,
               {{x, of_x->bytes}, {hx, state}, {cx, state}, {weights, rnn->bytes()}},
               {{y, of_y->bytes}, {hy, state}, {cy, state}});
}
cudnnStatus_t cudnnRNNBackwardData_v8(cudnnHandle_t handle, cudnnRNNDescriptor_t rnn, const int*,
                                      cudnnRNNDataDescriptor_t of_y, const void* y, const void* dy,
                                      cudnnRNNDataDescriptor_t of_x, void* dx,
                                      cudnnTensorDescriptor_t, const void* hx, const void* dhy,
                                      void* dhx, cudnnTensorDescriptor_t, const void* cx,
                                      const void* dcy, void* dcx, std::size_t, const void* weights,
                                      std::size_t, void*, std::size_t, void* reserve) {
  if (rnn->algorithm == CUDNN_RNN_ALGO_PERSIST_STATIC_SMALL_H && rnn->width > 128) {
    return refuse("PERSIST_STATIC_SMALL_H: too wide");
  }
  const std::size_t state = of_y->bytes / of_y->steps, all = of_y->bytes;
  return queue(handle, Reserve::data, reserve, weights,
               {{y, all}, {dy, all}, {hx, state}, {dhy, state}, {cx, state}, {dcy, state}},
               {{dx, of_x->bytes}, {dhx, state}, {dcx, state}});
}
cudnnStatus_t cudnnRNNBackwardWeights_v8(cudnnHandle_t handle, cudnnRNNDescriptor_t rnn,
                                         cudnnWgradMode_t, const int*,
                                         cudnnRNNDataDescriptor_t of_x, const void* x,
                                         cudnnTensorDescriptor_t, const void* hx,
                                         cudnnRNNDataDescriptor_t of_y, const void* y, std::size_t,
                                         void* gradients, std::size_t, void*, std::size_t,
                                         void* reserve) {
  return queue(handle, Reserve::weights, reserve, nullptr,
               {{x, of_x->bytes}, {hx, of_y->bytes / of_y->steps}, {y, of_y->bytes}},
               {{gradients, rnn->bytes()}});
}
