#include "tests/emulation/runtime/runtime.h"

#include <algorithm>
#include <map>
#include <stdexcept>

#include "tests/emulation/language/kernel.h"
#include "tests/emulation/runtime/memory.h"
#include "tests/emulation/runtime/stream.h"

// CUDA's device properties, errors and launches.

namespace emulation {
namespace {

std::map<const void*, std::size_t>& shared_limits() {
  static auto& all = *new std::map<const void*, std::size_t>;
  return all;
}

void run_launch(const Kernel& kernel) {
  std::string failure = run_kernel(kernel);
  const std::string damaged = damage();
  if (failure.empty() && !damaged.empty()) failure = symbol_name(kernel.address) + " " + damaged;
  if (!failure.empty()) throw std::runtime_error(failure);
}

bool fits(const cudaLaunchConfig_t& config, const void* kernel) {
  const auto threads = std::uint64_t{config.blockDim.x} * config.blockDim.y * config.blockDim.z;
  const auto found = shared_limits().find(kernel);
  const std::size_t limit = found == shared_limits().end() ? 48 << 10 : found->second;
  return threads >= 1 && threads <= 1024 && config.blockDim.z <= 64 && config.gridDim.x >= 1 &&
         config.gridDim.y >= 1 && config.gridDim.z >= 1 && config.gridDim.x <= 0x7FFFFFFFU &&
         config.gridDim.y <= 65535 && config.gridDim.z <= 65535 && config.dynamicSmemBytes <= limit;
}

}  // namespace

cudaError_t set_shared_limit(const void* kernel, int bytes) {
  const std::lock_guard lock(runtime_mutex());
  if (bytes < 0 || static_cast<std::size_t>(bytes) > kSharedLimit) return cudaErrorInvalidValue;
  shared_limits()[kernel] = static_cast<std::size_t>(bytes);
  return status();
}

int occupancy(int threads, std::size_t shared_bytes) {
  if (threads < 1 || threads > 1024 || shared_bytes > kSharedLimit) return 0;
  const unsigned warps = (static_cast<unsigned>(threads) + 31) / 32;
  const auto by_shared = kSharedPerMultiprocessor / (shared_bytes + 1024);
  return static_cast<int>(
      std::min<std::size_t>(kThreadsPerMultiprocessor / (warps * 32), by_shared));
}

cudaError_t launch(const cudaLaunchConfig_t& config, const void* address,
                   std::function<void()> thread) {
  const std::lock_guard lock(runtime_mutex());
  const auto stream = find_stream(config.stream);
  if (stream == nullptr) return cudaErrorInvalidResourceHandle;
  if (!fits(config, address)) return cudaErrorInvalidConfiguration;
  Kernel kernel{.address = address,
                .grid = config.gridDim,
                .block = config.blockDim,
                .shared_bytes = config.dynamicSmemBytes,
                .thread = std::move(thread)};
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    const cudaLaunchAttribute& attribute = config.attrs[i];
    if (attribute.id == cudaLaunchAttributeCooperative) {
      kernel.cooperative = attribute.val.cooperative != 0;
    } else if (attribute.id == cudaLaunchAttributeClusterDimension) {
      kernel.cluster = attribute.val.clusterDim.x;
      if (attribute.val.clusterDim.y != 1 || attribute.val.clusterDim.z != 1 ||
          kernel.cluster < 1 || kernel.cluster > 8 || kernel.grid.x % kernel.cluster != 0) {
        return cudaErrorInvalidClusterSize;
      }
    }
  }
  const auto blocks = std::uint64_t{kernel.grid.x} * kernel.grid.y * kernel.grid.z;
  const auto threads = static_cast<int>(kernel.block.x * kernel.block.y * kernel.block.z);
  const auto per_multiprocessor = static_cast<unsigned>(occupancy(threads, kernel.shared_bytes));
  if (kernel.cooperative && blocks > std::uint64_t{kMultiprocessors} * per_multiprocessor) {
    return cudaErrorCooperativeLaunchTooLarge;
  }
  const auto queued = std::make_shared<const Kernel>(std::move(kernel));
  submit(*stream, [queued]() -> Work { return [queued] { run_launch(*queued); }; });
  return status();
}

}  // namespace emulation

using emulation::status;

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return status();
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? status() : cudaErrorInvalidDevice; }
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return status();
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device != 0) return cudaErrorInvalidDevice;
  *properties = {.name = "cuda (emulated)",
                 .major = 9,
                 .minor = 0,
                 .multiProcessorCount = emulation::kMultiprocessors,
                 .warpSize = 32,
                 .l2CacheSize = 50 << 20,
                 .maxThreadsPerBlock = 1024,
                 .maxThreadsPerMultiProcessor = emulation::kThreadsPerMultiprocessor,
                 .maxBlocksPerMultiProcessor = 32,
                 .regsPerMultiprocessor = 65536,
                 .totalGlobalMem = emulation::kDeviceBytes,
                 .sharedMemPerBlock = 48 << 10,
                 .sharedMemPerBlockOptin = emulation::kSharedLimit,
                 .sharedMemPerMultiprocessor = emulation::kSharedPerMultiprocessor};
  return status();
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp properties{};
  const cudaError_t error = cudaGetDeviceProperties(&properties, device);
  *value = attribute == cudaDevAttrMultiProcessorCount
               ? properties.multiProcessorCount
               : static_cast<int>(properties.sharedMemPerBlockOptin);
  return error;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return status();
}
cudaError_t cudaDriverGetVersion(int* version) { return cudaRuntimeGetVersion(version); }
cudaError_t cudaFuncGetName(const char** name, const void* function) {
  *name = emulation::mangled_name(function).c_str();
  return status();
}

cudaError_t cudaGetLastError() { return status(); }
cudaError_t cudaPeekAtLastError() { return status(); }

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle:
      return "invalid resource handle";
    case cudaErrorNotReady:
      return "device not ready";
    case cudaErrorLaunchFailure:
      return emulation::failure_text().c_str();
    case cudaErrorCooperativeLaunchTooLarge:
      return "too many blocks in cooperative launch";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
      return "operation failed due to a previous error during capture";
    case cudaErrorInvalidClusterSize:
      return "cluster misconfiguration";
  }
  return "unrecognized error code";
}
