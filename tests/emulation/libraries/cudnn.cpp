#include <cudnn.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "tests/emulation/libraries/cudnn_objects.h"

// The statuses are those that cuDNN 9.19 gave where it can be asked without a GPU (descriptors),
// and else what its documentation and its users say: which algorithm takes which type and width.
// A GPU has the last word on those. Stricter than cuDNN, which believes what it is told: every
// address must be device memory of the size that its descriptor says.

using emulation::refuse;

namespace {

thread_local std::string last_error;

template <class Object>
cudnnStatus_t create(Object** object) {
  if (object == nullptr) return refuse(CUDNN_STATUS_BAD_PARAM_NULL_POINTER, "nowhere to put it");
  *object = new Object;
  return CUDNN_STATUS_SUCCESS;
}

template <class Object>
cudnnStatus_t destroy(Object* object) {
  delete object;
  return CUDNN_STATUS_SUCCESS;
}

}  // namespace

namespace emulation {

cudnnStatus_t refuse(cudnnStatus_t status, const char* why) {
  last_error = why;
  return status;
}

cudnnStatus_t algorithm_status(const cudnnRNNStruct& rnn, const cudnnRNNDataStruct& x,
                               bool backward) {
  const auto no = [](const char* why) { return refuse(CUDNN_STATUS_NOT_SUPPORTED, why); };
  switch (rnn.algorithm) {
    case CUDNN_RNN_ALGO_STANDARD:
      return CUDNN_STATUS_SUCCESS;
    case CUDNN_RNN_ALGO_PERSIST_STATIC:
      return rnn.type == CUDNN_DATA_HALF ? CUDNN_STATUS_SUCCESS : no("PERSIST_STATIC: not half");
    case CUDNN_RNN_ALGO_PERSIST_DYNAMIC:
      if (x.layout != CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_PACKED) return no("PERSIST_DYNAMIC: padded");
      if (rnn.type == CUDNN_DATA_BFLOAT16) return no("PERSIST_DYNAMIC: bfloat16");
      if (rnn.built_for == static_cast<int>(x.batch)) return CUDNN_STATUS_SUCCESS;
      return refuse(CUDNN_STATUS_NOT_INITIALIZED, "PERSIST_DYNAMIC: not built for this batch");
    default:
      return rnn.hidden_size <= (backward ? 128 : 192) ? CUDNN_STATUS_SUCCESS
                                                       : no("PERSIST_STATIC_SMALL_H: too wide");
  }
}

bool fits(const cudnnRNNStruct& rnn, const cudnnRNNDataStruct& data, std::size_t vector) {
  const bool packed = data.layout == CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_PACKED;
  return data.steps != 0 && data.type == rnn.type && data.vector == vector &&
         (packed || rnn.padded);
}

}  // namespace emulation

std::size_t cudnnGetVersion() { return 91900; }

const char* cudnnGetErrorString(cudnnStatus_t status) {
  switch (status) {
    case CUDNN_STATUS_SUCCESS:
      return "CUDNN_STATUS_SUCCESS";
    case CUDNN_STATUS_NOT_INITIALIZED:
      return "CUDNN_STATUS_NOT_INITIALIZED";
    case CUDNN_STATUS_BAD_PARAM:
      return "CUDNN_STATUS_BAD_PARAM";
    case CUDNN_STATUS_BAD_PARAM_NULL_POINTER:
      return "CUDNN_STATUS_BAD_PARAM_NULL_POINTER";
    case CUDNN_STATUS_BAD_PARAM_OUT_OF_BOUND:
      return "CUDNN_STATUS_BAD_PARAM_OUT_OF_BOUND";
    case CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT:
      return "CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT";
    case CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH:
      return "CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH";
    case CUDNN_STATUS_NOT_SUPPORTED:
      return "CUDNN_STATUS_NOT_SUPPORTED";
    default:
      return "an unknown status";
  }
}

void cudnnGetLastErrorString(char* message, std::size_t size) {
  std::snprintf(message, size, "%s", last_error.c_str());
}

cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) { return create(handle); }
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) { return destroy(handle); }
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnCreateTensorDescriptor(cudnnTensorDescriptor_t* tensor) {
  return create(tensor);
}
cudnnStatus_t cudnnDestroyTensorDescriptor(cudnnTensorDescriptor_t tensor) {
  return destroy(tensor);
}
cudnnStatus_t cudnnSetTensorNdDescriptor(cudnnTensorDescriptor_t tensor, cudnnDataType_t type,
                                         int dimensions, const int extents[], const int strides[]) {
  if (dimensions < 3 || dimensions > 8 ||
      std::any_of(extents, extents + dimensions, [](int extent) { return extent <= 0; })) {
    return refuse(CUDNN_STATUS_BAD_PARAM, "extents of a tensor");
  }
  *tensor = {.type = type, .dimensions = dimensions, .extents = {}, .strides = {}};
  std::copy_n(extents, dimensions, tensor->extents.begin());
  std::copy_n(strides, dimensions, tensor->strides.begin());
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnGetTensorNdDescriptor(const cudnnTensorDescriptor_t tensor, int requested,
                                         cudnnDataType_t* type, int* dimensions, int extents[],
                                         int strides[]) {
  *type = tensor->type;
  *dimensions = tensor->dimensions;
  std::copy_n(tensor->extents.begin(), std::min(requested, tensor->dimensions), extents);
  std::copy_n(tensor->strides.begin(), std::min(requested, tensor->dimensions), strides);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnCreateDropoutDescriptor(cudnnDropoutDescriptor_t* dropout) {
  return create(dropout);
}
cudnnStatus_t cudnnDestroyDropoutDescriptor(cudnnDropoutDescriptor_t dropout) {
  return destroy(dropout);
}
cudnnStatus_t cudnnSetDropoutDescriptor(cudnnDropoutDescriptor_t dropout, cudnnHandle_t,
                                        float probability, void*, std::size_t, unsigned long long) {
  if (probability != 0) return refuse(CUDNN_STATUS_NOT_SUPPORTED, "dropout is not emulated");
  dropout->set = true;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnCreateRNNDescriptor(cudnnRNNDescriptor_t* rnn) { return create(rnn); }
cudnnStatus_t cudnnDestroyRNNDescriptor(cudnnRNNDescriptor_t rnn) { return destroy(rnn); }
cudnnStatus_t cudnnSetRNNDescriptor_v8(cudnnRNNDescriptor_t rnn, cudnnRNNAlgo_t algorithm,
                                       cudnnRNNMode_t mode, cudnnRNNBiasMode_t bias,
                                       cudnnDirectionMode_t direction, cudnnRNNInputMode_t input,
                                       cudnnDataType_t type, cudnnDataType_t precision,
                                       cudnnMathType_t, std::int32_t input_size,
                                       std::int32_t hidden_size, std::int32_t projection_size,
                                       std::int32_t layers, cudnnDropoutDescriptor_t dropout,
                                       std::uint32_t flags) {
  if (input_size <= 0 || hidden_size <= 0 || (dropout != nullptr && !dropout->set)) {
    return refuse(CUDNN_STATUS_BAD_PARAM, "sizes or dropout of a layer");
  }
  const bool stored =
      type == CUDNN_DATA_FLOAT || type == CUDNN_DATA_HALF || type == CUDNN_DATA_BFLOAT16;
  if (!stored || precision != CUDNN_DATA_FLOAT) {
    return refuse(CUDNN_STATUS_NOT_SUPPORTED, "a precision that this type does not take");
  }
  if (mode != CUDNN_LSTM || bias != CUDNN_RNN_DOUBLE_BIAS || direction != CUDNN_UNIDIRECTIONAL ||
      input != CUDNN_LINEAR_INPUT || projection_size != hidden_size || layers != 1) {
    return refuse(CUDNN_STATUS_NOT_SUPPORTED, "emulated is one LSTM layer with both biases");
  }
  *rnn = {.set = true,
          .algorithm = algorithm,
          .type = type,
          .input_size = static_cast<std::size_t>(input_size),
          .hidden_size = static_cast<std::size_t>(hidden_size),
          .padded = (flags & CUDNN_RNN_PADDED_IO_ENABLED) != 0};
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBuildRNNDynamic(cudnnHandle_t, cudnnRNNDescriptor_t rnn, int batch) {
  rnn->built_for = batch;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnCreateRNNDataDescriptor(cudnnRNNDataDescriptor_t* data) { return create(data); }
cudnnStatus_t cudnnDestroyRNNDataDescriptor(cudnnRNNDataDescriptor_t data) { return destroy(data); }
cudnnStatus_t cudnnSetRNNDataDescriptor(cudnnRNNDataDescriptor_t data, cudnnDataType_t type,
                                        cudnnRNNDataLayout_t layout, int steps, int batch,
                                        int vector, const int lengths[], void*) {
  if (steps <= 0 || batch <= 0 || vector <= 0 || lengths == nullptr) {
    return refuse(CUDNN_STATUS_BAD_PARAM, "sizes of a sequence");
  }
  if (std::any_of(lengths, lengths + batch, [&](int length) { return length != steps; })) {
    return refuse(CUDNN_STATUS_NOT_SUPPORTED, "emulated are sequences of equal length");
  }
  const auto n = [](int number) { return static_cast<std::size_t>(number); };
  *data = {
      .type = type, .layout = layout, .steps = n(steps), .batch = n(batch), .vector = n(vector)};
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnGetRNNTempSpaceSizes(cudnnHandle_t, cudnnRNNDescriptor_t rnn,
                                        cudnnForwardMode_t mode, cudnnRNNDataDescriptor_t x,
                                        std::size_t* workspace, std::size_t* reserve) {
  if (!rnn->set || !emulation::fits(*rnn, *x, rnn->input_size)) {
    return refuse(CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH, "descriptors of x and rnn disagree");
  }
  const cudnnStatus_t status = emulation::algorithm_status(*rnn, *x, false);
  if (status != CUDNN_STATUS_SUCCESS) return status;
  *workspace = emulation::layer(*rnn, *x).workspace_bytes();
  *reserve = mode == CUDNN_FWD_MODE_TRAINING ? emulation::layer(*rnn, *x).reserve_bytes() : 0;
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnGetRNNWeightSpaceSize(cudnnHandle_t, cudnnRNNDescriptor_t rnn,
                                         std::size_t* bytes) {
  *bytes = emulation::layer(*rnn, {}).parameter_bytes();
  return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnGetRNNWeightParams(cudnnHandle_t, cudnnRNNDescriptor_t rnn, std::int32_t number,
                                      std::size_t bytes, const void* weights, std::int32_t product,
                                      cudnnTensorDescriptor_t matrix, void** matrix_data,
                                      cudnnTensorDescriptor_t bias, void** bias_data) {
  const emulation::CudnnLstm l = emulation::layer(*rnn, {});
  if (number != 0 || product < 0 || product > 7) {
    return refuse(CUDNN_STATUS_BAD_PARAM_OUT_OF_BOUND, "a layer or product that is not there");
  }
  if (bytes < l.parameter_bytes()) {
    return refuse(CUDNN_STATUS_BAD_PARAM_SIZE_INSUFFICIENT, "weight space");
  }
  const auto p = static_cast<std::size_t>(product);
  const int rows = static_cast<int>(l.H), columns = static_cast<int>(p < 4 ? l.I : l.H);
  *matrix = {.type = rnn->type,
             .dimensions = 3,
             .extents = {1, rows, columns},
             .strides = {rows * columns, columns, 1}};
  *bias = {.type = rnn->type, .dimensions = 3, .extents = {1, rows, 1}, .strides = {rows, 1, 1}};
  char* const space = const_cast<char*>(static_cast<const char*>(weights));
  *matrix_data = space + l.weight_at(p);
  *bias_data = space + l.bias_at(p);
  return CUDNN_STATUS_SUCCESS;
}
