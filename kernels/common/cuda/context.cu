#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>
#include <string_view>

#include "kernels/common/cuda/context.cuh"
#include "kernels/common/cuda/gemm.h"
#include "kernels/common/device.h"

// (Text without fmt: nvcc 13 cannot evaluate fmt 9's checked format strings.)

namespace carousel {

void check_cuda(cudaError_t status, const char* what, Where at) {
  if (status == cudaSuccess) return;
  throw CudaError(std::string(at.file) + ":" + std::to_string(at.line) + ": " + what + ": " +
                  cudaGetErrorString(status));
}

namespace {

/// By default the driver takes freed memory back whenever the host waits for the device.
void keep_freed_memory(int device) {
  cudaMemPool_t pool = nullptr;
  check_cuda(cudaDeviceGetDefaultMemPool(&pool, device), "the device's memory pool");
  std::uint64_t most = std::numeric_limits<std::uint64_t>::max();
  check_cuda(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &most),
             "the memory pool's threshold");
}

}  // namespace

CudaContext::CudaContext(int device) : ordinal(device) {
  check_cuda(cudaSetDevice(ordinal), "opening the device");
  check_cuda(cudaGetDeviceProperties(&properties, ordinal), "device properties");
  if (properties.major < 8) {
    throw CudaError(std::string(properties.name) + " has compute capability " +
                    std::to_string(properties.major) + "." + std::to_string(properties.minor) +
                    ", expected 8.0 or later");
  }
  const char* const sync = std::getenv("CAROUSEL_SYNC");
  synchronous = sync != nullptr && std::string_view(sync) == "1";
  check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "creating the stream");
  cublas = create_gemm_handle();
  check_cuda(cudaMalloc(&workspace, kWorkspaceBytes), "product workspace");
  keep_freed_memory(ordinal);
}

CudaContext::~CudaContext() {
  for (const cudaError_t status :
       {cudaStreamSynchronize(stream), cudaFree(workspace), cudaStreamDestroy(stream)}) {
    if (status == cudaSuccess) continue;
    std::fprintf(stderr, "closing the device: %s\n", cudaGetErrorString(status));
    break;  // one warning is enough
  }
  destroy_gemm_handle(cublas);
}

Cuda::Cuda(int ordinal) : context_(std::make_shared<const CudaContext>(ordinal)) {}

CUstream_st* Cuda::stream() const { return context_->stream; }

void Cuda::synchronize() const {
  check_cuda(cudaStreamSynchronize(context_->stream), "waiting for the device");
}

std::string Cuda::name() const { return context_->properties.name; }

std::string Cuda::description() const {
  const cudaDeviceProp& p = context_->properties;
  int runtime = 0, driver = 0;
  check_cuda(cudaRuntimeGetVersion(&runtime), "CUDA's version");
  check_cuda(cudaDriverGetVersion(&driver), "the driver's version");
  const auto version = [](int number) {  // 13010 is 13.1
    return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
  };
  return name() + ", compute capability " + std::to_string(p.major) + "." +
         std::to_string(p.minor) + ", " + std::to_string(p.multiProcessorCount) +
         " multiprocessors, " + std::to_string(p.totalGlobalMem / 1000000) + " MB; CUDA " +
         version(runtime) + " on a driver for " + version(driver) + ", " + gemm_library();
}

int Cuda::count() {
  int devices = 0;
  return cudaGetDeviceCount(&devices) == cudaSuccess ? devices : 0;
}

}  // namespace carousel
