#include "kernels/common/device.h"

#include "kernels/common/check.h"
#include "kernels/common/onednn.h"

namespace carousel {
namespace {

std::string description(const Cpu&) { return onednn::description(); }
#if CAROUSEL_CUDA
std::string description(const Cuda& device) { return device.description(); }
#endif

}  // namespace

void refuse_double(const char* op) {
  throw ConfigError(std::string(op) + ": f64 on CUDA, expected f32 or bf16");
}

std::string description(const Device& device) {
  return std::visit([](const auto& d) { return description(d); }, device);
}

}  // namespace carousel
