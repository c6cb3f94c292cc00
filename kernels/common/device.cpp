#include "kernels/common/device.h"

#include "kernels/common/onednn.h"

namespace carousel {
namespace {

std::string description(const Cpu&) { return onednn::description(); }
#if CAROUSEL_CUDA
std::string description(const Cuda& device) { return device.description(); }
#endif

}  // namespace

std::string description(const Device& device) {
  return std::visit([](const auto& d) { return description(d); }, device);
}

}  // namespace carousel
