#pragma once

#include <concepts>
#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <variant>

#include "kernels/common/range.h"

struct CUstream_st;  // cudaStream_t is a pointer to it; CUDA's headers stay inside .cu and .cuh

namespace carousel {

/// The CPU path: oneDNN for products, loops a compiler can vectorise, one OpenMP thread pool.
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

  /// Waits until everything queued so far has run; reports what went wrong in it.
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

/// What computes, for people: the device or the CPU's threads, and the libraries with what holds
/// them back.
std::string description(const Device& device);

/// Ops whose passes are members, run(const Cpu&) and run(const Cuda&).
template <class D, class Op>
requires requires(const D& device, const Op& op) { op.run(device); }
void run(const D& device, const Op& op) { op.run(device); }
template <class D, class Op>
requires requires(const D& device, const Op& op) { op.scratch_bytes(device); }
std::size_t scratch_bytes(const D& device, const Op& op) { return op.scratch_bytes(device); }

/// Whether an op works on doubles. These exist to check gradients, and only the CPU has them.
template <class Op>
inline constexpr bool kInDouble = false;
template <template <class...> class Op, class... T>
inline constexpr bool kInDouble<Op<T...>> = (std::is_same_v<T, double> || ...);

/// ConfigError "<op>: f64 on CUDA, expected f32 or bf16".
[[noreturn]] void refuse_double(const char* op);

/// pass(device), the device as the type it is; ConfigError where an op in double is to run on CUDA,
/// so that it need not define such a pass.
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

/// Checks an op's arguments and runs it where `device` says, in a Range of its name. The only
/// dispatcher there is.
/// (D is deduced, so that an op lacking one device is a compile error and not a call to itself.)
template <std::same_as<Device> D, class Op>
void run(const D& device, const Op& op) {
  op.check();
  const Range range(kOpName<Op>.data());
  dispatch<Op>(device, [&](const auto& d) { run(d, op); });
}

/// Bytes of scratch memory an op needs where `device` says, given all its fields but `scratch`. For
/// the ops that have such a field.
template <std::same_as<Device> D, class Op>
std::size_t scratch_bytes(const D& device, const Op& op) {
  return dispatch<Op>(device, [&](const auto& d) { return scratch_bytes(d, op); });
}

}  // namespace carousel
