#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "kernels/common/device.h"
#include "kernels/common/memory.h"

namespace carousel::test {

/// A call of cuDNN failed: "cudnnRNNForward: CUDNN_STATUS_NOT_SUPPORTED: <its text>".
struct CudnnError : Error {
  using Error::Error;
};

/// Why cuDNN cannot be called, in one line; empty if it can. The library is libcudnn.so.9 as the
/// loader finds it, or the file that CAROUSEL_CUDNN of the environment names.
const std::string& cudnn_missing();

/// "9.19.0"
std::string cudnn_version();

enum class CudnnAlgorithm { standard, persist_static, persist_dynamic, persist_static_small_h };
inline constexpr std::array kCudnnAlgorithms{
    CudnnAlgorithm::standard, CudnnAlgorithm::persist_static, CudnnAlgorithm::persist_dynamic,
    CudnnAlgorithm::persist_static_small_h};

/// How numbers are stored and multiplied; sums are float. tf32 is f32 with products on tensor cores.
enum class CudnnType { f32, tf32, bf16, fp16 };

std::string name(CudnnAlgorithm algorithm);  ///< as cuDNN's: "PERSIST_STATIC"
std::string name(CudnnType type);            ///< "f32"

/// Numbers as a type stores them, and back.
std::vector<std::byte> encode(CudnnType type, const std::vector<double>& values);
std::vector<double> decode(CudnnType type, const std::vector<std::byte>& bytes);

/// A cuDNN handle on a device's stream. Copies share it.
class Cudnn {
 public:
  /// CudnnError if the library is missing or cannot work.
  explicit Cudnn(const Cuda& device);

 private:
  friend class CudnnLstm;
  struct Opened;
  std::shared_ptr<const Opened> opened_;
};

struct CudnnLstmOptions {
  std::int64_t T = 0, B = 0, I = 0, H = 0;  ///< none of them 0: cuDNN takes no empty tensor
  CudnnAlgorithm algorithm = CudnnAlgorithm::standard;
  CudnnType type = CudnnType::f32;
  /// The layout's name, packed or padded. All lengths are T, so [T, B, …] has both layouts, but an
  /// algorithm may accept only one of the names.
  bool packed = false;
};

/// Device memory of a layer's tensors, each contiguous and of the layer's type: first the inputs.
struct CudnnLstmTensors {
  const void* x = nullptr;                              ///< [T, B, I]
  const void *h0 = nullptr, *c0 = nullptr;              ///< [B, H]
  const void* d_h = nullptr;                            ///< [T, B, H]
  const void *d_h_last = nullptr, *d_c_last = nullptr;  ///< [B, H]
  /// Outputs. The backward pass reads h.
  void* h = nullptr;                          ///< [T, B, H]
  void *h_last = nullptr, *c_last = nullptr;  ///< [B, H]
  void* d_x = nullptr;                        ///< [T, B, I]
  void *d_h0 = nullptr, *d_c0 = nullptr;      ///< [B, H]
};

/// A layer's parameters, or their gradients, as in RecurrentSequenceForward: the rows are H each of
/// i, f, g, o.
struct LstmParameters {
  std::vector<double> weight_ih, weight_hh, bias_ih, bias_hh;
};

/// One LSTM layer of cuDNN and the memory that it needs for itself.
///
/// Errors   CudnnError with the call, the status and cuDNN's explanation if cuDNN refuses, in the
///          constructor or in a pass; CudaError for device memory.
class CudnnLstm {
 public:
  CudnnLstm(const Cudnn& cudnn, const CudnnLstmOptions& options);
  ~CudnnLstm();

  void set_parameters(const LstmParameters& parameters);
  LstmParameters parameter_gradients() const;

  /// In training mode. Each backward pass needs its own forward pass before it.
  void forward(const CudnnLstmTensors& tensors);
  /// Gradients of data and parameters. Those of the parameters are added: cuDNN has no other mode.
  void backward(const CudnnLstmTensors& tensors);
  void clear_parameter_gradients();

  /// All parameters in cuDNN's order, to be filled with any numbers.
  const Memory& parameters() const;
  std::size_t workspace_bytes() const;  ///< needed while a pass runs
  std::size_t reserve_bytes() const;    ///< kept from the forward to the backward pass

 private:
  class Layer;
  std::unique_ptr<Layer> layer_;
};

}  // namespace carousel::test
