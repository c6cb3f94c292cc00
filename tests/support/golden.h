#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/tape/tensor.h"

namespace carousel::test {

/// Numbers that tests/golden/record.py recorded.
struct Recorded {
  std::vector<std::int64_t> extents;
  std::vector<double> values;
  Shape shape() const;
};

/// What PyTorch was given in a case and what it computed from that, tests/golden/<name>.json. Names
/// are PyTorch's.
struct Golden {
  explicit Golden(const std::string& name);

  nlohmann::json options;
  std::map<std::string, Recorded> given, values, gradients;

  /// A given tensor, as f32, bf16 or i32; an error if that type does not hold its numbers exactly.
  Tensor tensor(const std::string& name, const Device& device, DType dtype) const;
};

/// Numbers stored as f32, bf16 or i32.
void write(const Tensor& tensor, const std::vector<double>& values);
/// A tensor of any of these types as double, for comparison under a tolerance.
std::vector<double> as_double(const Tensor& tensor);

/// Part `index` of `count` equal parts: a step of a trajectory, a layer of a state.
std::vector<double> part(const std::vector<double>& values, std::size_t index, std::size_t count);
/// values × factor.
std::vector<double> scaled(std::vector<double> values, double factor);
/// 1 / the largest |value|. Tolerances are for numbers of about 1 and are too wide for small ones.
double to_unit(const std::vector<double>& values);

}  // namespace carousel::test
