#include "tests/support/golden.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "tests/support/buffer.h"

namespace carousel::test {
namespace {

/// The recordings in the source tree, found relative to the program: the tree can be moved.
std::filesystem::path file_of(const std::string& name) {
  const auto program = std::filesystem::read_symlink("/proc/self/exe");
  return program.parent_path() / CAROUSEL_GOLDEN_FOLDER / (name + ".json");
}

std::map<std::string, Recorded> section(const nlohmann::json& recording, const char* key) {
  std::map<std::string, Recorded> result;
  if (!recording.contains(key)) return result;
  for (const auto& [name, tensor] : recording.at(key).items()) {
    result[name] = {.extents = tensor.at("shape"), .values = tensor.at("values")};
  }
  return result;
}

template <class T>
void write_as(const Tensor& tensor, const std::vector<double>& values) {
  copy_from_host(tensor, stored<T>(values).data());
}

template <class T>
std::vector<double> read_as(const Tensor& tensor) {
  std::vector<T> values(static_cast<std::size_t>(tensor.size()));
  copy_to_host(tensor, values.data());
  return as_double(values);
}

}  // namespace

Shape Recorded::shape() const {
  const auto& e = extents;
  switch (e.size()) {
    case 0:
      return {1};
    case 1:
      return {e[0]};
    case 2:
      return {e[0], e[1]};
    case 3:
      return {e[0], e[1], e[2]};
    default:
      throw std::runtime_error("golden: a tensor of more than three dimensions");
  }
}

Golden::Golden(const std::string& name) {
  std::ifstream file(file_of(name));
  if (!file) throw std::runtime_error("golden: there is no " + file_of(name).string());
  const nlohmann::json recording = nlohmann::json::parse(file);
  if (recording.contains("options")) options = recording.at("options");
  given = section(recording, "given");
  values = section(recording, "values");
  gradients = section(recording, "gradients");
}

Tensor Golden::tensor(const std::string& name, const Device& device, DType dtype) const {
  const Recorded& recorded = given.at(name);
  Tensor tensor(device, recorded.shape(), dtype);
  write(tensor, recorded.values);
  if (as_double(tensor) != recorded.values) {
    throw std::runtime_error("golden: " + name + " is not exact as " + carousel::name(dtype));
  }
  return tensor;
}

void write(const Tensor& tensor, const std::vector<double>& values) {
  if (tensor.size() != static_cast<std::int64_t>(values.size())) {
    throw std::runtime_error("golden: " + std::to_string(values.size()) + " numbers for " +
                             tensor.shape().text());
  }
  if (tensor.dtype() == DType::i32) return write_as<std::int32_t>(tensor, values);
  if (tensor.dtype() == DType::bf16) return write_as<bf16>(tensor, values);
  write_as<float>(tensor, values);
}

std::vector<double> as_double(const Tensor& tensor) {
  if (tensor.dtype() == DType::i32) return read_as<std::int32_t>(tensor);
  if (tensor.dtype() == DType::bf16) return read_as<bf16>(tensor);
  return read_as<float>(tensor);
}

std::vector<double> part(const std::vector<double>& values, std::size_t index, std::size_t count) {
  const std::size_t size = values.size() / count;
  const auto first = values.begin() + static_cast<std::ptrdiff_t>(index * size);
  return {first, first + static_cast<std::ptrdiff_t>(size)};
}

std::vector<double> scaled(std::vector<double> values, double factor) {
  for (double& v : values) v *= factor;
  return values;
}

double to_unit(const std::vector<double>& values) {
  double largest = 0;
  for (const double v : values) largest = std::max(largest, std::abs(v));
  return 1 / largest;
}

}  // namespace carousel::test
