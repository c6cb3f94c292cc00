#pragma once

#include <gtest/gtest.h>

#include <vector>

#include "engine/tape/parameters.h"
#include "kernels/copy/copy.h"

namespace carousel::test {

/// A tensor of the given values.
template <class T>
Tensor tensor_of(const Device& device, Shape shape, const std::vector<T>& values) {
  const Tensor result(device, shape, dtype_of<T>());
  copy_from_host(result, values.data());
  return result;
}

/// A tensor's values, on the host.
template <class T>
std::vector<T> read(const Tensor& tensor) {
  std::vector<T> values(static_cast<std::size_t>(tensor.size()));
  copy_to_host(tensor, values.data());
  return values;
}

/// A materialised parameter "weight" of `size` zeros.
inline Parameters one_parameter(const Device& device, std::size_t size,
                                DType compute = DType::f32) {
  Parameters parameters;
  parameters.declare("weight", {static_cast<std::int64_t>(size)}, {});
  parameters.materialize(device, compute, /*seed=*/1);
  return parameters;
}

/// A loss Σ x, the first to reach x: writes 1 to every element of its gradient.
inline void sum(const Var& x) {
  const GradientTarget d = x.gradient();
  ASSERT_FALSE(d.accumulate);
  run(x.tape().device(), Fill<float>{.to = d.tensor.mutable_view<float, 1>(), .value = 1});
}

}  // namespace carousel::test
