#include "tests/support/device.h"

namespace carousel::test {

const Device* cuda_device() {
#if CAROUSEL_CUDA
  static const Device* const device = Cuda::count() > 0 ? new Device(Cuda()) : nullptr;
  return device;
#else
  return nullptr;
#endif
}

bool has_gpu() {
#if CAROUSEL_CUDA
  return cuda_device() != nullptr && std::get<Cuda>(*cuda_device()).name() != "cuda (emulated)";
#else
  return false;
#endif
}

const std::vector<Device>& devices() {
  static const std::vector<Device> all = [] {
    std::vector<Device> list{Cpu{}};
    if (cuda_device() != nullptr) list.push_back(*cuda_device());
    return list;
  }();
  return all;
}

std::string device_name(const Device& device) { return is_cpu(device) ? "cpu" : "cuda"; }

}  // namespace carousel::test
