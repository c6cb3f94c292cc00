#include <array>
#include <initializer_list>

#include "tests/emulation/libraries/cudnn_objects.h"
#include "tests/emulation/runtime/memory.h"

// The passes: what each checks before it is queued.

using emulation::fits;
using emulation::layer;
using emulation::refuse;

namespace {

bool fits(const cudnnRNNStruct& rnn, const cudnnTensorStruct& state, std::size_t batch) {
  const int rows = static_cast<int>(batch), width = static_cast<int>(rnn.hidden_size);
  return state.type == rnn.type && state.dimensions == 3 && state.extents[0] == 1 &&
         state.extents[1] == rows && state.extents[2] == width && state.strides[1] == width &&
         state.strides[2] == 1;
}

/// Device memory a pass is given, and how much of it there must be.
struct Given {
  const void* data;
  std::size_t bytes;
};

/// What all three passes check. `spaces` are parameters, workspace and reserve, with the bytes that
/// the caller says they have.
cudnnStatus_t check_pass(const cudnnContext* handle, const cudnnRNNStruct* rnn,
                         const std::int32_t* lengths, const cudnnRNNDataStruct* x,
                         const cudnnRNNDataStruct* y, bool backward,
                         const std::array<Given, 3>& spaces) {
  if (handle == nullptr || rnn == nullptr || x == nullptr || y == nullptr) {
    return refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "no handle or no descriptor");
  }
  if (lengths != nullptr) return refuse(CUDNN_STATUS_NOT_SUPPORTED, "lengths in device memory");
  if (!rnn->set || !fits(*rnn, *x, rnn->input_size) || !fits(*rnn, *y, rnn->hidden_size) ||
      x->steps != y->steps || x->batch != y->batch) {
    return refuse(CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH, "descriptors of x, y and rnn disagree");
  }
  const emulation::CudnnLstm l = layer(*rnn, *x);
  const std::array needed{l.parameter_bytes(), l.workspace_bytes(), l.reserve_bytes()};
  for (std::size_t i = 0; i < spaces.size(); ++i) {
    if (spaces[i].bytes < needed[i] || (i == 0 && spaces[i].bytes != needed[i])) {
      return refuse(CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT, "weight, work or reserve space");
    }
    if (!emulation::is_allocated(spaces[i].data, spaces[i].bytes)) {
      return refuse(CUDNN_STATUS_BAD_PARAM, "weight, work or reserve space is no device memory");
    }
  }
  return emulation::algorithm_status(*rnn, *x, backward);
}

cudnnStatus_t check_states(const cudnnRNNStruct& rnn, const cudnnRNNDataStruct& x,
                           std::initializer_list<cudnnTensorDescriptor_t> states) {
  for (const cudnnTensorStruct* state : states) {
    if (state == nullptr || !fits(rnn, *state, x.batch)) {
      return refuse(CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH, "descriptors of h, c and rnn disagree");
    }
  }
  return CUDNN_STATUS_SUCCESS;
}

/// Bytes of a layer's tensors.
struct Sizes {
  std::size_t x, y, state;
  explicit Sizes(const emulation::CudnnLstm& l)
      : x(l.T * l.B * l.I * l.element_bytes()),
        y(l.T * l.B * l.H * l.element_bytes()),
        state(l.B * l.H * l.element_bytes()) {}
};

cudnnStatus_t check_memory(std::initializer_list<Given> tensors) {
  for (const Given& tensor : tensors) {
    if (!emulation::is_allocated(tensor.data, tensor.bytes)) {
      return refuse(CUDNN_STATUS_BAD_PARAM, "a tensor is no device memory of its size");
    }
  }
  return CUDNN_STATUS_SUCCESS;
}

}  // namespace

#define CAROUSEL_RETURN_IF_REFUSED(check) \
  if (const cudnnStatus_t status = check; status != CUDNN_STATUS_SUCCESS) return status

cudnnStatus_t cudnnRNNForward(cudnnHandle_t handle, cudnnRNNDescriptor_t rnn,
                              cudnnForwardMode_t mode, const std::int32_t lengths[],
                              cudnnRNNDataDescriptor_t x_descriptor, const void* x,
                              cudnnRNNDataDescriptor_t y_descriptor, void* y,
                              cudnnTensorDescriptor_t h_descriptor, const void* hx, void* hy,
                              cudnnTensorDescriptor_t c_descriptor, const void* cx, void* cy,
                              std::size_t weight_bytes, const void* weights,
                              std::size_t workspace_bytes, void* workspace,
                              std::size_t reserve_bytes, void* reserve) {
  const std::array spaces{Given{weights, weight_bytes}, Given{workspace, workspace_bytes},
                          Given{reserve, reserve_bytes}};
  CAROUSEL_RETURN_IF_REFUSED(
      check_pass(handle, rnn, lengths, x_descriptor, y_descriptor, false, spaces));
  CAROUSEL_RETURN_IF_REFUSED(check_states(*rnn, *x_descriptor, {h_descriptor, c_descriptor}));
  if (mode != CUDNN_FWD_MODE_TRAINING) {
    return refuse(CUDNN_STATUS_NOT_SUPPORTED, "emulated is the training mode");
  }
  emulation::CudnnLstm l = layer(*rnn, *x_descriptor);
  const Sizes size(l);
  CAROUSEL_RETURN_IF_REFUSED(check_memory({{x, size.x},
                                           {y, size.y},
                                           {hx, size.state},
                                           {hy, size.state},
                                           {cx, size.state},
                                           {cy, size.state}}));
  l.x = x, l.y = y, l.h0 = hx, l.h_last = hy, l.c0 = cx, l.c_last = cy;
  l.weights = weights, l.workspace = workspace, l.reserve = reserve;
  l.queue(handle->stream, &emulation::CudnnLstm::forward);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnRNNBackwardData_v8(
    cudnnHandle_t handle, cudnnRNNDescriptor_t rnn, const std::int32_t lengths[],
    cudnnRNNDataDescriptor_t y_descriptor, const void* y, const void* dy,
    cudnnRNNDataDescriptor_t x_descriptor, void* dx, cudnnTensorDescriptor_t h_descriptor,
    const void* hx, const void* dhy, void* dhx, cudnnTensorDescriptor_t c_descriptor,
    const void* cx, const void* dcy, void* dcx, std::size_t weight_bytes, const void* weights,
    std::size_t workspace_bytes, void* workspace, std::size_t reserve_bytes, void* reserve) {
  const std::array spaces{Given{weights, weight_bytes}, Given{workspace, workspace_bytes},
                          Given{reserve, reserve_bytes}};
  CAROUSEL_RETURN_IF_REFUSED(
      check_pass(handle, rnn, lengths, x_descriptor, y_descriptor, true, spaces));
  CAROUSEL_RETURN_IF_REFUSED(check_states(*rnn, *x_descriptor, {h_descriptor, c_descriptor}));
  emulation::CudnnLstm l = layer(*rnn, *x_descriptor);
  const Sizes size(l);
  CAROUSEL_RETURN_IF_REFUSED(check_memory({{y, size.y},
                                           {dy, size.y},
                                           {dx, size.x},
                                           {hx, size.state},
                                           {dhy, size.state},
                                           {dhx, size.state},
                                           {cx, size.state},
                                           {dcy, size.state},
                                           {dcx, size.state}}));
  l.d_y = dy, l.d_x = dx, l.h0 = hx, l.d_h_last = dhy, l.d_h0 = dhx;
  l.c0 = cx, l.d_c_last = dcy, l.d_c0 = dcx;
  l.weights = weights, l.workspace = workspace, l.reserve = reserve;
  l.queue(handle->stream, &emulation::CudnnLstm::backward_data);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnRNNBackwardWeights_v8(cudnnHandle_t handle, cudnnRNNDescriptor_t rnn,
                                         cudnnWgradMode_t add, const std::int32_t lengths[],
                                         cudnnRNNDataDescriptor_t x_descriptor, const void* x,
                                         cudnnTensorDescriptor_t h_descriptor, const void* hx,
                                         cudnnRNNDataDescriptor_t y_descriptor, const void* y,
                                         std::size_t weight_bytes, void* weight_gradients,
                                         std::size_t workspace_bytes, void* workspace,
                                         std::size_t reserve_bytes, void* reserve) {
  const std::array spaces{Given{weight_gradients, weight_bytes}, Given{workspace, workspace_bytes},
                          Given{reserve, reserve_bytes}};
  CAROUSEL_RETURN_IF_REFUSED(
      check_pass(handle, rnn, lengths, x_descriptor, y_descriptor, true, spaces));
  CAROUSEL_RETURN_IF_REFUSED(check_states(*rnn, *x_descriptor, {h_descriptor}));
  if (add != CUDNN_WGRAD_MODE_ADD) {
    return refuse(CUDNN_STATUS_NOT_SUPPORTED, "gradients of weights are only added");
  }
  emulation::CudnnLstm l = layer(*rnn, *x_descriptor);
  const Sizes size(l);
  CAROUSEL_RETURN_IF_REFUSED(check_memory({{x, size.x}, {y, size.y}, {hx, size.state}}));
  l.x = x, l.h0 = hx, l.y = const_cast<void*>(y), l.d_weights = weight_gradients;
  l.workspace = workspace, l.reserve = reserve;
  l.queue(handle->stream, &emulation::CudnnLstm::backward_weights);
  return CUDNN_STATUS_SUCCESS;
}
