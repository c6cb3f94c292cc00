#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <variant>

#include "kernels/common/range.h"

struct CUstream_st;  // cudaStream_t is a pointer to it; CUDA's headers stay inside .cu and .cuh

namespace carousel {

/// The CPU path: oneDNN for products, loops that the compiler vectorises, one OpenMP thread pool.
struct Cpu {};

class CudaContext;  // kernels/common/cuda/context.cuh: stream, library handles, properties

/// One CUDA device with its one compute stream. Copies share the context. Defined only in builds
/// with CUDA, real or emulated.
class Cuda {
 public:
  /// Opens device `ordinal`. CudaError if there is none, or one below sm_80.
  explicit Cuda(int ordinal = 0);

  CUstream_st* stream() const;
  const CudaContext& context() const { return *context_; }

  /// Waits until everything queued so far has run. CudaError if any of it failed.
  void synchronize() const;

  /// The device's name, e.g. "NVIDIA H200", or "cuda (emulated)".
  std::string name() const;
  /// The name, what the device has, and the versions of CUDA and its libraries.
  std::string description() const;

  /// How many devices there are; 0 when there is no driver. Never throws.
  static int count();

 private:
  std::shared_ptr<const CudaContext> context_;
};

/// Where an op runs. A build without CUDA has one alternative.
#if CAROUSEL_CUDA
using Device = std::variant<Cpu, Cuda>;
#else
using Device = std::variant<Cpu>;
#endif

constexpr bool is_cpu(const Device& device) { return std::holds_alternative<Cpu>(device); }

/// A line for reports: the GPU or the number of CPU threads, the versions of the libraries, and the
/// environment variables that limit them.
std::string description(const Device& device);

/// Whether an op computes in double. Such ops exist for gradient checks, and on the CPU only.
template <class Op>
inline constexpr bool kInDouble = false;
template <template <class...> class Op, class... T>
inline constexpr bool kInDouble<Op<T...>> = (std::is_same_v<T, double> || ...);

/// ConfigError "<op>: f64 on CUDA, expected f32 or bf16".
[[noreturn]] void refuse_double(const char* op);

/// Calls `pass` with the Cpu or the Cuda that `device` holds. ConfigError for an op in double on
/// CUDA, so that such ops need no pass for CUDA.
template <class Op, class Pass>
auto dispatch(const Device& device, const Pass& pass) {
  using Result = decltype(pass(Cpu{}));
  return std::visit(
      [&]<class D>(const D& d) -> Result {
        if constexpr (kInDouble<Op> && !std::is_same_v<D, Cpu>) {
          refuse_double(kOpName<Op>.data());
        } else {
          return pass(d);
        }
      },
      device);
}

/// Checks an op's arguments and calls its member run(const Cpu&) or run(const Cuda&), in a Range of
/// its name. The only dispatcher.
template <class Op>
void run(const Device& device, const Op& op) {
  op.check();
  const Range range(kOpName<Op>.data());
  dispatch<Op>(device, [&](const auto& d) { op.run(d); });
}

/// Bytes of scratch memory that an op needs on `device`, given all its fields except `scratch`. For
/// the ops that have such a field, and members scratch_bytes(const Cpu&) and (const Cuda&).
template <class Op>
std::size_t scratch_bytes(const Device& device, const Op& op) {
  return dispatch<Op>(device, [&](const auto& d) { return op.scratch_bytes(d); });
}

}  // namespace carousel
