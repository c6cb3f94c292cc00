#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/common/bf16.h"
#include "kernels/common/device.h"
#include "kernels/common/memory.h"
#include "kernels/common/view.h"

namespace carousel {

enum class DType : std::uint8_t { f32, bf16, f64, i32, i64 };

std::size_t bytes_per_element(DType dtype);
const char* name(DType dtype);  ///< "f32", "bf16", …

template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>) return DType::f32;
  if constexpr (std::is_same_v<T, bf16>) return DType::bf16;
  if constexpr (std::is_same_v<T, double>) return DType::f64;
  if constexpr (std::is_same_v<T, std::int32_t>) return DType::i32;
  if constexpr (std::is_same_v<T, std::int64_t>) return DType::i64;
}

/// Calls f with std::type_identity<T> for the storage type of an op: float, bf16 or double.
template <class F>
decltype(auto) visit_float(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f32:
      return f(std::type_identity<float>{});
    case DType::bf16:
      return f(std::type_identity<bf16>{});
    case DType::f64:
      return f(std::type_identity<double>{});
    case DType::i32:
    case DType::i64:
      break;
  }
  throw std::invalid_argument(std::string("expected a floating-point tensor, got ") + name(dtype));
}

/// Up to four extents, slowest dimension first.
class Shape {
 public:
  static constexpr int kMaxRank = 4;
  Shape(std::initializer_list<std::int64_t> extents);
  int rank() const { return rank_; }
  std::int64_t operator[](int i) const { return extents_[static_cast<std::size_t>(i)]; }
  std::int64_t back() const { return (*this)[rank_ - 1]; }
  std::int64_t size() const;
  std::int64_t rows() const {
    return rank_ == 0 ? 1 : size_without_last();
  }                                            ///< product of all but the last
  Shape with_last(std::int64_t extent) const;  ///< the same but for the last dimension
  bool operator==(const Shape&) const = default;
  std::string text() const;  ///< "[64, 32, 256]"

 private:
  std::int64_t size_without_last() const;
  std::array<std::int64_t, kMaxRank> extents_{};
  int rank_ = 0;
};

/// Contiguous numbers on a device. Copying shares them. A tensor made with a device owns its
/// memory; one made from an arena lives until the arena is reset.
class Tensor {
 public:
  Tensor() = default;
  Tensor(const Device& device, Shape shape, DType dtype);
  static Tensor at(const Device& device, Shape shape, DType dtype, void* data);

  explicit operator bool() const { return data_ != nullptr; }
  const Device& device() const { return device_; }
  const Shape& shape() const { return shape_; }
  DType dtype() const { return dtype_; }
  std::int64_t size() const { return shape_.size(); }
  std::size_t bytes() const;
  const void* data() const { return data_; }
  void* mutable_data() const { return data_; }

  /// A view of rank R; a tensor of higher rank is seen with its leading dimensions folded into the
  /// first: [T, B, H] is [T·B, H] as rank 2. An empty tensor gives an absent view. ShapeError if
  /// the element type or the rank does not fit.
  template <class T, int R>
  View<const T, R> view() const {
    return mutable_view<T, R>();
  }
  template <class T, int R>
  View<T, R> mutable_view() const {
    if (data_ == nullptr) return {};
    expect(dtype_of<T>(), R);
    std::array<std::int64_t, R> extents{};
    const int folded = shape_.rank() - R;
    extents[0] = 1;
    for (int i = 0; i <= folded; ++i) extents[0] *= shape_[i];
    for (int i = 1; i < R; ++i) extents[static_cast<std::size_t>(i)] = shape_[folded + i];
    return {static_cast<T*>(data_), extents};
  }

  /// The same numbers in another shape of equal size.
  Tensor reshaped(Shape shape) const;
  /// Entries first … first + count − 1 of the slowest dimension.
  Tensor slice(std::int64_t first, std::int64_t count) const;

 private:
  void expect(DType dtype, int rank) const;

  Device device_;
  Shape shape_{};
  DType dtype_ = DType::f32;
  void* data_ = nullptr;
  std::shared_ptr<const Memory> memory_;  ///< null in an arena's tensor
};

/// Calls f with std::type_identity<T> for the storage type of any tensor.
template <class F>
decltype(auto) visit_any(DType dtype, F&& f) {
  if (dtype == DType::i32) return f(std::type_identity<std::int32_t>{});
  if (dtype == DType::i64) return f(std::type_identity<std::int64_t>{});
  return visit_float(dtype, f);
}

/// Queues a copy between tensors of one device, element type and size.
void copy(const Tensor& from, const Tensor& to);
/// Queues zeros over a tensor.
void zero(const Tensor& tensor);
/// Copies from host memory; the values may be reused at once.
void copy_from_host(const Tensor& tensor, const void* values);
/// Copies to host memory and waits for the device.
void copy_to_host(const Tensor& tensor, void* values);
/// A floating-point tensor's numbers on the host, as floats. Waits for the device.
std::vector<float> host_floats(const Tensor& tensor);

/// Memory for the tensors of one training step: handed out in order, taken back all at once. The
/// same sequence of requests gets the same addresses whatever other sequences come between, for
/// memory is only ever added behind what is there: from the second step on nothing is allocated,
/// and a captured step stays true.
class Arena {
 public:
  explicit Arena(const Device& device) : device_(device) {}

  Tensor tensor(Shape shape, DType dtype);
  void reset();                                       ///< every tensor handed out so far is gone
  std::size_t used() const { return used_; }          ///< bytes handed out since the last reset
  std::size_t reserved() const { return reserved_; }  ///< bytes held from the device: the peak
  const Device& device() const { return device_; }

 private:
  struct Block {
    Memory memory;
    std::size_t used = 0;
  };
  struct Pool {
    std::vector<Block> blocks;
    std::size_t current = 0;  ///< block being handed out from
  };
  void* take(Pool& pool, std::size_t bytes, std::size_t block_bytes);
  Device device_;
  Pool small_;  ///< shared blocks: what a tensor leaves over, the next ones fill
  Pool large_;  ///< a block for each tensor
  std::size_t used_ = 0, reserved_ = 0;
};

}  // namespace carousel
