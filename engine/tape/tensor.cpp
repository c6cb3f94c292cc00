#include "engine/tape/tensor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "kernels/common/check.h"
#include "kernels/copy/copy.h"

namespace carousel {

void copy(const Tensor& from, const Tensor& to) {
  visit_any(from.dtype(), [&]<class T>(std::type_identity<T>) {
    run(from.device(), Cast<T, T>{.from = from.view<T, 1>(), .to = to.mutable_view<T, 1>()});
  });
}

void zero(const Tensor& tensor) {
  visit_any(tensor.dtype(), [&]<class T>(std::type_identity<T>) {
    run(tensor.device(), Fill<T>{.to = tensor.mutable_view<T, 1>(), .value = T{}});
  });
}

std::vector<float> host_floats(const Tensor& tensor) {
  return visit_float(tensor.dtype(), [&]<class T>(std::type_identity<T>) {
    std::vector<T> stored(static_cast<std::size_t>(tensor.size()));
    copy_to_host(tensor, stored.data());
    return std::vector<float>(stored.begin(), stored.end());
  });
}

std::size_t bytes_per_element(DType dtype) {
  switch (dtype) {
    case DType::bf16:
      return 2;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::f64:
    case DType::i64:
      return 8;
  }
  return 0;
}

const char* name(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::bf16:
      return "bf16";
    case DType::f64:
      return "f64";
    case DType::i32:
      return "i32";
    case DType::i64:
      return "i64";
  }
  return "?";
}

Shape::Shape(std::initializer_list<std::int64_t> extents)
    : rank_(static_cast<int>(extents.size())) {
  if (extents.size() > kMaxRank) {
    throw ShapeError(
        fmt::format("shape: {} dimensions, at most {} are supported", extents.size(), kMaxRank));
  }
  std::copy(extents.begin(), extents.end(), extents_.begin());
}

std::int64_t Shape::size_without_last() const {
  std::int64_t product = 1;
  for (int i = 0; i + 1 < rank_; ++i) product *= (*this)[i];
  return product;
}

Shape Shape::with_last(std::int64_t extent) const {
  Shape result = *this;
  if (rank_ > 0) result.extents_[static_cast<std::size_t>(rank_ - 1)] = extent;
  return result;
}

std::int64_t Shape::size() const { return rank_ == 0 ? 1 : size_without_last() * back(); }

std::string Shape::text() const {
  return fmt::format("[{}]", fmt::join(extents_.begin(), extents_.begin() + rank_, ", "));
}

Tensor::Tensor(const Device& device, Shape shape, DType dtype)
    : device_(device), shape_(shape), dtype_(dtype) {
  auto memory = std::make_shared<const Memory>(device, bytes());
  data_ = memory->data();
  memory_ = std::move(memory);
}

Tensor Tensor::at(const Device& device, Shape shape, DType dtype, void* data) {
  Tensor tensor;
  tensor.device_ = device;
  tensor.shape_ = shape;
  tensor.dtype_ = dtype;
  tensor.data_ = data;
  return tensor;
}

std::size_t Tensor::bytes() const {
  return static_cast<std::size_t>(size()) * bytes_per_element(dtype_);
}

void Tensor::expect(DType dtype, int rank) const {
  if (dtype != dtype_ || rank > shape_.rank()) {
    throw ShapeError(fmt::format("tensor {} of {} seen as {} of rank {}", shape_.text(),
                                 name(dtype_), name(dtype), rank));
  }
}

Tensor Tensor::reshaped(Shape shape) const {
  if (shape.size() != size()) {
    throw ShapeError(fmt::format("tensor {} reshaped to {}", shape_.text(), shape.text()));
  }
  Tensor result = *this;
  result.shape_ = shape;
  return result;
}

Tensor Tensor::slice(std::int64_t first, std::int64_t count) const {
  if (first < 0 || count < 0 || first + count > shape_[0]) {
    throw ShapeError(fmt::format("tensor {}: slice of {} from {}", shape_.text(), count, first));
  }
  const std::int64_t stride = shape_[0] == 0 ? 0 : size() / shape_[0];
  Tensor result = *this;
  switch (shape_.rank()) {
    case 1:
      result.shape_ = {count};
      break;
    case 2:
      result.shape_ = {count, shape_[1]};
      break;
    case 3:
      result.shape_ = {count, shape_[1], shape_[2]};
      break;
    default:
      result.shape_ = {count, shape_[1], shape_[2], shape_[3]};
  }
  result.data_ = static_cast<std::byte*>(data_) +
                 static_cast<std::size_t>(first * stride) * bytes_per_element(dtype_);
  return result;
}

void copy_from_host(const Tensor& tensor, const void* values) {
  copy_to_device(tensor.device(), tensor.mutable_data(), values, tensor.bytes());
}

void copy_to_host(const Tensor& tensor, void* values) {
  copy_to_host(tensor.device(), values, tensor.data(), tensor.bytes());
}

namespace {
// A gap after every tensor, so that the address checker sees a write past its end.
constexpr std::size_t kAlignment = 256;
constexpr std::size_t kGap =
#if defined(__SANITIZE_ADDRESS__)
    kAlignment;
#else
    0;
#endif
// Small tensors share blocks of this size; one of a quarter of it or more has its own, so that
// what is held from the device is what tensors fill, but for less than one block.
constexpr std::size_t kBlockBytes = std::size_t{1} << 20;

std::size_t padded(std::size_t bytes) {
  return (bytes + kGap + kAlignment - 1) / kAlignment * kAlignment;
}
}  // namespace

void* Arena::take(Pool& pool, std::size_t bytes, std::size_t block_bytes) {
  std::vector<Block>& blocks = pool.blocks;
  while (pool.current < blocks.size() &&
         blocks[pool.current].used + bytes > blocks[pool.current].memory.bytes()) {
    ++pool.current;
  }
  if (pool.current == blocks.size()) {
    blocks.push_back({Memory(device_, block_bytes), 0});
    reserved_ += block_bytes;
    forbid_access(device_, blocks.back().memory.data(), block_bytes);
  }
  Block& block = blocks[pool.current];
  void* data = static_cast<std::byte*>(block.memory.data()) + block.used;
  block.used += bytes;
  used_ += bytes;
  return data;
}

Tensor Arena::tensor(Shape shape, DType dtype) {
  const auto bytes = static_cast<std::size_t>(shape.size()) * bytes_per_element(dtype);
  const std::size_t need = std::max(padded(bytes), kAlignment);
  void* data = need < kBlockBytes / 4 ? take(small_, need, kBlockBytes) : take(large_, need, need);
  allow_access(device_, data, bytes);
  return Tensor::at(device_, shape, dtype, data);
}

void Arena::reset() {
  for (Pool* pool : {&small_, &large_}) {
    for (Block& block : pool->blocks) {
      forbid_access(device_, block.memory.data(), block.memory.bytes());
      block.used = 0;
    }
    pool->current = 0;
  }
  used_ = 0;
}

}  // namespace carousel
