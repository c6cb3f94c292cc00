#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "kernels/common/memory.h"
#include "kernels/common/view.h"

namespace carousel::test {

/// Numbers on a device, made from a vector and read back as one, for the op calls of a test.
template <class T>
class Buffer {
 public:
  /// For outputs an op must write in full: NaN in every floating-point type, so that an unwritten
  /// element shows, where reused memory might hold the right answer of another case. With
  /// CAROUSEL_TEST_FILL=0 in the environment, as initcheck needs it, the memory is left unwritten.
  Buffer(const Device& device, std::size_t count)
      : device_(device), count_(count), memory_(device, count * sizeof(T)) {
    static const char* const fill = std::getenv("CAROUSEL_TEST_FILL");
    if (fill != nullptr && *fill == '0') return;
    const std::vector<std::uint16_t> words((count * sizeof(T) + 1) / 2, 0x7FF1);
    copy_to_device(device_, memory_.data(), words.data(), count * sizeof(T));
  }
  Buffer(const Device& device, const std::vector<T>& values)
      : device_(device), count_(values.size()), memory_(device, values.size() * sizeof(T)) {
    copy_to_device(device_, memory_.data(), values.data(), count_ * sizeof(T));
  }

  std::vector<T> read() const {
    std::vector<T> values(count_);
    copy_to_host(device_, values.data(), memory_.data(), count_ * sizeof(T));
    return values;
  }

  std::size_t size() const { return count_; }

  /// A view of the given extents, whose product is the buffer's size.
  template <class... Extent>
  View<T, sizeof...(Extent)> view(Extent... extents) const {
    return {static_cast<T*>(memory_.data()), {static_cast<std::int64_t>(extents)...}};
  }

 private:
  Device device_;
  std::size_t count_;
  Memory memory_;
};

/// Gives `op` the scratch memory it needs; the result owns it.
template <class Op>
[[nodiscard]] Buffer<std::byte> give_scratch(const Device& device, Op& op) {
  const std::size_t bytes = scratch_bytes(device, op);
  Buffer<std::byte> memory(device, bytes);
  op.scratch = memory.view(bytes);
  return memory;
}

/// Rounds through the storage type: what a float becomes when stored as T.
template <class T>
std::vector<T> stored(const std::vector<double>& values) {
  std::vector<T> result;
  result.reserve(values.size());
  for (const double v : values) result.push_back(static_cast<T>(v));
  return result;
}

/// The stored values as the oracle sees them.
template <class T>
std::vector<double> as_double(const std::vector<T>& values) {
  std::vector<double> result;
  result.reserve(values.size());
  for (const T v : values) result.push_back(static_cast<double>(v));
  return result;
}

}  // namespace carousel::test
