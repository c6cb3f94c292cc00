#include "kernels/common/fence.h"

#include <utility>

namespace carousel {

#if CAROUSEL_CUDA
// kernels/common/cuda/fence.cu
CUevent_st* make_event(const Cuda& device);
void destroy_event(CUevent_st* event) noexcept;
void record_event(const Cuda& device, CUevent_st* event);
void wait_for_event(CUevent_st* event);

Fence::Fence(const Device& device) : device_(device) {
  if (const Cuda* cuda = std::get_if<Cuda>(&device_)) event_ = make_event(*cuda);
}
Fence::~Fence() {
  if (event_ != nullptr) destroy_event(event_);
}
void Fence::record() {
  if (event_ != nullptr) record_event(std::get<Cuda>(device_), event_);
}
void Fence::wait() const {
  if (event_ != nullptr) wait_for_event(event_);
}
#else
Fence::Fence(const Device& device) : device_(device) {}
Fence::~Fence() = default;
void Fence::record() {}
void Fence::wait() const {}
#endif

Fence::Fence(Fence&& other) noexcept { *this = std::move(other); }

Fence& Fence::operator=(Fence&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(event_, other.event_);
  return *this;
}

}  // namespace carousel
