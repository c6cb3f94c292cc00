#include "tests/support/cudnn.h"

#include <cudnn.h>
#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

#include "kernels/common/bf16.h"

namespace carousel::test {
namespace {

/// One function of the library. A call that fails throws an error with cuDNN's text.
template <class Signature>
struct Call;
template <class... Args>
struct Call<cudnnStatus_t(Args...)> {
  const char* name;
  cudnnStatus_t (*function)(Args...);
  void operator()(Args... args) const;
};

#define CAROUSEL_CUDNN_CALLS(X)    \
  X(cudnnCreate)                   \
  X(cudnnDestroy)                  \
  X(cudnnSetStream)                \
  X(cudnnCreateTensorDescriptor)   \
  X(cudnnSetTensorNdDescriptor)    \
  X(cudnnGetTensorNdDescriptor)    \
  X(cudnnDestroyTensorDescriptor)  \
  X(cudnnCreateDropoutDescriptor)  \
  X(cudnnSetDropoutDescriptor)     \
  X(cudnnDestroyDropoutDescriptor) \
  X(cudnnCreateRNNDescriptor)      \
  X(cudnnSetRNNDescriptor_v8)      \
  X(cudnnDestroyRNNDescriptor)     \
  X(cudnnCreateRNNDataDescriptor)  \
  X(cudnnSetRNNDataDescriptor)     \
  X(cudnnDestroyRNNDataDescriptor) \
  X(cudnnBuildRNNDynamic)          \
  X(cudnnGetRNNTempSpaceSizes)     \
  X(cudnnGetRNNWeightSpaceSize)    \
  X(cudnnGetRNNWeightParams)       \
  X(cudnnRNNForward)               \
  X(cudnnRNNBackwardData_v8)       \
  X(cudnnRNNBackwardWeights_v8)

/// The library, loaded at run time: a build uses only its headers.
struct Library {
  decltype(&::cudnnGetVersion) cudnnGetVersion = nullptr;
  decltype(&::cudnnGetErrorString) cudnnGetErrorString = nullptr;
  decltype(&::cudnnGetLastErrorString) cudnnGetLastErrorString = nullptr;
#define CAROUSEL_CALL(name) Call<std::remove_pointer_t<decltype(&::name)>> name{#name, nullptr};
  CAROUSEL_CUDNN_CALLS(CAROUSEL_CALL)
#undef CAROUSEL_CALL
  std::string missing;

  Library() {
    const char* const named = std::getenv("CAROUSEL_CUDNN");
    void* const handle =
        dlopen(named != nullptr ? named : CAROUSEL_CUDNN_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      missing = dlerror();
      return;
    }
    const auto find = [&]<class F>(F*& function, const char* symbol) {
      function = reinterpret_cast<F*>(dlsym(handle, symbol));
      if (function == nullptr) missing = dlerror();
    };
    find(cudnnGetVersion, "cudnnGetVersion");
    find(cudnnGetErrorString, "cudnnGetErrorString");
    find(cudnnGetLastErrorString, "cudnnGetLastErrorString");
#define CAROUSEL_CALL(name) find(name.function, #name);
    CAROUSEL_CUDNN_CALLS(CAROUSEL_CALL)
#undef CAROUSEL_CALL
  }
};

const Library& library() {
  static const Library* const loaded = new Library;  // for the whole process
  return *loaded;
}

/// "<call>: <status>: <cuDNN's explanation>" on one line.
std::string words(const char* call, cudnnStatus_t status) {
  std::array<char, 1024> text{};
  library().cudnnGetLastErrorString(text.data(), text.size() - 1);
  std::string explanation = text.data();
  std::replace(explanation.begin(), explanation.end(), '\n', ' ');
  const char* const separator = explanation.empty() ? "" : ": ";
  return fmt::format("{}: {}{}{}", call, library().cudnnGetErrorString(status), separator,
                     explanation);
}

template <class... Args>
void Call<cudnnStatus_t(Args...)>::operator()(Args... args) const {
  const cudnnStatus_t status = function(args...);
  if (status != CUDNN_STATUS_SUCCESS) throw CudnnError(words(name, status));
}

/// An object of the library, with the functions that create and destroy it.
template <class Object, auto Create, auto Destroy>
class Owned {
 public:
  Owned() { (library().*Create)(&object_); }
  ~Owned() {
    const auto& destroy = library().*Destroy;
    const cudnnStatus_t status = destroy.function(object_);
    if (status == CUDNN_STATUS_SUCCESS) return;
    std::fprintf(stderr, "%s\n", words(destroy.name, status).c_str());
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  operator Object() const { return object_; }

 private:
  Object object_ = nullptr;
};
using Handle = Owned<cudnnHandle_t, &Library::cudnnCreate, &Library::cudnnDestroy>;
using TensorDescriptor = Owned<cudnnTensorDescriptor_t, &Library::cudnnCreateTensorDescriptor,
                               &Library::cudnnDestroyTensorDescriptor>;
using DropoutDescriptor = Owned<cudnnDropoutDescriptor_t, &Library::cudnnCreateDropoutDescriptor,
                                &Library::cudnnDestroyDropoutDescriptor>;
using RnnDescriptor = Owned<cudnnRNNDescriptor_t, &Library::cudnnCreateRNNDescriptor,
                            &Library::cudnnDestroyRNNDescriptor>;
using DataDescriptor = Owned<cudnnRNNDataDescriptor_t, &Library::cudnnCreateRNNDataDescriptor,
                             &Library::cudnnDestroyRNNDataDescriptor>;

cudnnRNNAlgo_t of(CudnnAlgorithm algorithm) {
  switch (algorithm) {
    case CudnnAlgorithm::standard:
      return CUDNN_RNN_ALGO_STANDARD;
    case CudnnAlgorithm::persist_static:
      return CUDNN_RNN_ALGO_PERSIST_STATIC;
    case CudnnAlgorithm::persist_dynamic:
      return CUDNN_RNN_ALGO_PERSIST_DYNAMIC;
    default:
      return CUDNN_RNN_ALGO_PERSIST_STATIC_SMALL_H;
  }
}

cudnnDataType_t of(CudnnType type) {
  if (type == CudnnType::bf16) return CUDNN_DATA_BFLOAT16;
  return type == CudnnType::fp16 ? CUDNN_DATA_HALF : CUDNN_DATA_FLOAT;
}

cudnnMathType_t math_of(CudnnType type) {
  if (type == CudnnType::f32) return CUDNN_FMA_MATH;
  return type == CudnnType::tf32 ? CUDNN_DEFAULT_MATH : CUDNN_TENSOR_OP_MATH;
}

/// Calls `work` with a value of the C++ type that stores numbers of `type`.
template <class Work>
auto with_type(CudnnType type, const Work& work) {
  if (type == CudnnType::bf16) return work(bf16{});
  return type == CudnnType::fp16 ? work(_Float16{}) : work(float{});
}

std::size_t element_bytes(CudnnType type) {
  return with_type(type, []<class T>(T) { return sizeof(T); });
}

}  // namespace

const std::string& cudnn_missing() { return library().missing; }

std::string cudnn_version() {
  const std::size_t version = library().cudnnGetVersion();
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

std::string name(CudnnAlgorithm algorithm) {
  constexpr std::array kNames{"STANDARD", "PERSIST_STATIC", "PERSIST_DYNAMIC",
                              "PERSIST_STATIC_SMALL_H"};
  return kNames[static_cast<std::size_t>(algorithm)];
}

std::string name(CudnnType type) {
  constexpr std::array kNames{"f32", "tf32", "bf16", "fp16"};
  return kNames[static_cast<std::size_t>(type)];
}

std::vector<std::byte> encode(CudnnType type, const std::vector<double>& values) {
  return with_type(type, [&]<class T>(T) {
    std::vector<std::byte> bytes(values.size() * sizeof(T));
    for (std::size_t i = 0; i < values.size(); ++i) {
      const T value = static_cast<T>(values[i]);
      std::memcpy(&bytes[i * sizeof(T)], &value, sizeof(T));
    }
    return bytes;
  });
}

std::vector<double> decode(CudnnType type, const std::vector<std::byte>& bytes) {
  return with_type(type, [&]<class T>(T value) {
    std::vector<double> values(bytes.size() / sizeof(T));
    for (std::size_t i = 0; i < values.size(); ++i) {
      std::memcpy(&value, &bytes[i * sizeof(T)], sizeof(T));
      values[i] = static_cast<double>(value);
    }
    return values;
  });
}

struct Cudnn::Opened {
  Device device;
  Handle handle;
};

Cudnn::Cudnn(const Cuda& device) {
  if (!cudnn_missing().empty()) throw CudnnError("no cuDNN: " + cudnn_missing());
  const std::shared_ptr<const Opened> opened(new Opened{.device = device, .handle = {}});
  library().cudnnSetStream(opened->handle, device.stream());
  opened_ = opened;
}

class CudnnLstm::Layer {
 public:
  Layer(const Cudnn& opened, const CudnnLstmOptions& layer) : cudnn(opened), options(layer) {
    const Library& call = library();
    const auto [steps, batch, input, width] =
        std::array{static_cast<int>(layer.T), static_cast<int>(layer.B), static_cast<int>(layer.I),
                   static_cast<int>(layer.H)};
    const cudnnDataType_t type = of(layer.type);
    call.cudnnSetDropoutDescriptor(dropout, handle, 0, nullptr, 0, 0);  // none
    call.cudnnSetRNNDescriptor_v8(
        rnn, of(layer.algorithm), CUDNN_LSTM, CUDNN_RNN_DOUBLE_BIAS, CUDNN_UNIDIRECTIONAL,
        CUDNN_LINEAR_INPUT, type, CUDNN_DATA_FLOAT, math_of(layer.type), input, width, width, 1,
        dropout, layer.packed ? CUDNN_RNN_PADDED_IO_DISABLED : CUDNN_RNN_PADDED_IO_ENABLED);

    const std::vector<int> lengths(static_cast<std::size_t>(batch), steps);
    const auto layout = layer.packed ? CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_PACKED
                                     : CUDNN_RNN_DATA_LAYOUT_SEQ_MAJOR_UNPACKED;
    call.cudnnSetRNNDataDescriptor(x, type, layout, steps, batch, input, lengths.data(), nullptr);
    call.cudnnSetRNNDataDescriptor(h, type, layout, steps, batch, width, lengths.data(), nullptr);
    const std::array extents{1, batch, width}, strides{batch * width, width, 1};
    call.cudnnSetTensorNdDescriptor(state, type, 3, extents.data(), strides.data());

    if (layer.algorithm == CudnnAlgorithm::persist_dynamic) {
      call.cudnnBuildRNNDynamic(handle, rnn, batch);
    }
    std::size_t parameter_bytes = 0, workspace_bytes = 0, reserve_bytes = 0;
    call.cudnnGetRNNWeightSpaceSize(handle, rnn, &parameter_bytes);
    call.cudnnGetRNNTempSpaceSizes(handle, rnn, CUDNN_FWD_MODE_TRAINING, x, &workspace_bytes,
                                   &reserve_bytes);
    parameters = Memory(device, parameter_bytes);
    gradients = Memory(device, parameter_bytes);
    workspace = Memory(device, workspace_bytes);
    reserve = Memory(device, reserve_bytes);
  }

  /// Where the weights or the bias of a gate are among the parameters: `bytes` from the start, with
  /// element (r, c) at r·row + c·column.
  struct Place {
    std::size_t bytes, rows, columns, row, column;
  };

  /// cuDNN's gates of an LSTM are i, f, g, o, as here: 0–3 for the input, 4–7 for the state.
  std::pair<Place, Place> places(std::size_t gate, bool recurrent) const {
    void *weight = nullptr, *bias = nullptr;
    const TensorDescriptor of_weight, of_bias;
    library().cudnnGetRNNWeightParams(handle, rnn, 0, parameters.bytes(), parameters.data(),
                                      static_cast<std::int32_t>(gate + (recurrent ? 4 : 0)),
                                      of_weight, &weight, of_bias, &bias);
    return {place(of_weight, weight), place(of_bias, bias)};
  }

  /// Calls `visit(value, byte)` for every parameter: its value, and its place in cuDNN's memory.
  template <class Parameters, class Visit>
  void for_each(Parameters& ours, const Visit& visit) const {
    for (const bool recurrent : {false, true}) {
      auto& weight = recurrent ? ours.weight_hh : ours.weight_ih;
      auto& bias = recurrent ? ours.bias_hh : ours.bias_ih;
      const auto width = static_cast<std::size_t>(options.H);
      for (std::size_t gate = 0; gate < 4; ++gate) {
        const auto [of_weight, of_bias] = places(gate, recurrent);
        visit_place(of_weight, weight, gate * width, visit);
        visit_place(of_bias, bias, gate * width, visit);
      }
    }
  }

  std::array<std::size_t, 4> sizes() const {
    const auto n = [](std::int64_t number) { return static_cast<std::size_t>(number); };
    return {n(options.T), n(options.B), n(options.I), n(options.H)};
  }

  const Cudnn cudnn;
  const CudnnLstmOptions options;
  const Device& device = cudnn.opened_->device;
  const cudnnHandle_t handle = cudnn.opened_->handle;
  const DropoutDescriptor dropout;
  const RnnDescriptor rnn;
  const DataDescriptor x, h;
  const TensorDescriptor state;
  Memory parameters, gradients, workspace, reserve;

 private:
  Place place(const TensorDescriptor& tensor, const void* first) const {
    cudnnDataType_t type{};
    int dimensions = 0;
    std::array<int, 3> extents{}, strides{};
    library().cudnnGetTensorNdDescriptor(tensor, 3, &type, &dimensions, extents.data(),
                                         strides.data());
    const auto n = [](auto number) { return static_cast<std::size_t>(number); };
    const auto* const space = static_cast<const std::byte*>(parameters.data());
    return {n(static_cast<const std::byte*>(first) - space), n(extents[1]), n(extents[2]),
            n(strides[1]), n(strides[2])};
  }

  template <class Values, class Visit>
  void visit_place(const Place& at, Values& values, std::size_t first_row,
                   const Visit& visit) const {
    for (std::size_t r = 0; r < at.rows; ++r) {
      for (std::size_t c = 0; c < at.columns; ++c) {
        visit(values.at((first_row + r) * at.columns + c),
              at.bytes + (r * at.row + c * at.column) * element_bytes(options.type));
      }
    }
  }
};

CudnnLstm::CudnnLstm(const Cudnn& cudnn, const CudnnLstmOptions& options)
    : layer_(std::make_unique<Layer>(cudnn, options)) {}
CudnnLstm::~CudnnLstm() = default;

void CudnnLstm::set_parameters(const LstmParameters& parameters) {
  std::vector<std::byte> space(layer_->parameters.bytes());  // gaps, if there are any, hold zeros
  layer_->for_each(parameters, [&](double value, std::size_t at) {
    const std::vector<std::byte> bytes = encode(layer_->options.type, {value});
    std::copy(bytes.begin(), bytes.end(), space.begin() + static_cast<std::ptrdiff_t>(at));
  });
  copy_to_device(layer_->device, layer_->parameters.data(), space.data(), space.size());
}

LstmParameters CudnnLstm::parameter_gradients() const {
  std::vector<std::byte> space(layer_->gradients.bytes());
  copy_to_host(layer_->device, space.data(), layer_->gradients.data(), space.size());
  const auto [steps, batch, input, width] = layer_->sizes();
  LstmParameters result{.weight_ih = std::vector<double>(4 * width * input),
                        .weight_hh = std::vector<double>(4 * width * width),
                        .bias_ih = std::vector<double>(4 * width),
                        .bias_hh = std::vector<double>(4 * width)};
  layer_->for_each(result, [&](double& value, std::size_t at) {
    const auto first = space.begin() + static_cast<std::ptrdiff_t>(at);
    const auto size = static_cast<std::ptrdiff_t>(element_bytes(layer_->options.type));
    value = decode(layer_->options.type, {first, first + size})[0];
  });
  return result;
}

// Lengths are given in the descriptors only: since 8.9.1 cuDNN does not need them in device memory.
void CudnnLstm::forward(const CudnnLstmTensors& t) {
  const Layer& l = *layer_;
  library().cudnnRNNForward(l.handle, l.rnn, CUDNN_FWD_MODE_TRAINING, nullptr, l.x, t.x, l.h, t.h,
                            l.state, t.h0, t.h_last, l.state, t.c0, t.c_last, l.parameters.bytes(),
                            l.parameters.data(), l.workspace.bytes(), l.workspace.data(),
                            l.reserve.bytes(), l.reserve.data());
}

void CudnnLstm::backward(const CudnnLstmTensors& t) {
  const Layer& l = *layer_;
  library().cudnnRNNBackwardData_v8(l.handle, l.rnn, nullptr, l.h, t.h, t.d_h, l.x, t.d_x, l.state,
                                    t.h0, t.d_h_last, t.d_h0, l.state, t.c0, t.d_c_last, t.d_c0,
                                    l.parameters.bytes(), l.parameters.data(), l.workspace.bytes(),
                                    l.workspace.data(), l.reserve.bytes(), l.reserve.data());
  library().cudnnRNNBackwardWeights_v8(l.handle, l.rnn, CUDNN_WGRAD_MODE_ADD, nullptr, l.x, t.x,
                                       l.state, t.h0, l.h, t.h, l.gradients.bytes(),
                                       l.gradients.data(), l.workspace.bytes(), l.workspace.data(),
                                       l.reserve.bytes(), l.reserve.data());
}

void CudnnLstm::clear_parameter_gradients() {
  const std::vector<std::byte> zeros(layer_->gradients.bytes());
  copy_to_device(layer_->device, layer_->gradients.data(), zeros.data(), zeros.size());
}

const Memory& CudnnLstm::parameters() const { return layer_->parameters; }
std::size_t CudnnLstm::workspace_bytes() const { return layer_->workspace.bytes(); }
std::size_t CudnnLstm::reserve_bytes() const { return layer_->reserve.bytes(); }

}  // namespace carousel::test
