#include "engine/files/matrix_file.h"

#include <fmt/format.h>

#include <bit>
#include <utility>
#include <vector>

#include "kernels/common/check.h"

namespace carousel {
namespace {

static_assert(std::endian::native == std::endian::little, "both formats are little-endian");
constexpr std::size_t kNumpyHeaderBytes = 128;  // a multiple of 64, which its readers may map
constexpr std::size_t kMoreDigits = 128;  // than a safetensors header of no rows has; at most 93

template <class T>
std::string bytes_of(T value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

void expect_new_matrix(const std::filesystem::path& path) {
  const std::string ending = path.extension().string();
  if (ending != ".npy" && ending != ".safetensors") {
    throw ConfigError(
        fmt::format("{}: expected a name that ends in .safetensors or .npy", path.string()));
  }
  expect_new_file(path);
}

}  // namespace

void expect_new_file(const std::filesystem::path& path) {
  if (std::filesystem::exists(path)) {
    throw ConfigError(fmt::format("{} exists already, expected a new file", path.string()));
  }
  // The temporary file beside it could not be opened, and its name would say nothing.
  if (path.has_parent_path() && !std::filesystem::is_directory(path.parent_path())) {
    throw ConfigError(
        fmt::format("{}: there is no folder {}", path.string(), path.parent_path().string()));
  }
}

bool MatrixFile::is_numpy(const std::filesystem::path& path) { return path.extension() == ".npy"; }

MatrixFile::MatrixFile(std::filesystem::path path, std::int64_t columns, Names names,
                       SystemCalls& calls)
    : path_(std::move(path)), columns_(columns), names_(std::move(names)), calls_(calls) {
  expect_new_matrix(path_);
  header_bytes_ =
      is_numpy(path_) ? kNumpyHeaderBytes : safetensors_header(/*steps=*/1).size() + kMoreDigits;
  file_.emplace(path_, calls_);
  file_->file().write(std::string(header_bytes_, ' '));
}

void MatrixFile::append(std::span<const float> rows) {
  const auto columns = static_cast<std::size_t>(columns_);
  if (rows.size() % columns != 0) {
    throw ShapeError(fmt::format("{}: {} numbers, expected whole rows of {}", path_.string(),
                                 rows.size(), columns_));
  }
  file_->file().write(rows.data(), rows.size_bytes());
  rows_ += static_cast<std::int64_t>(rows.size() / columns);
}

void MatrixFile::finish(std::span<const std::int32_t> steps) {
  if (!is_numpy(path_)) file_->file().write(steps.data(), steps.size_bytes());
  OutputFile beginning(file_->file().path(), OutputFile::Mode::overwrite, calls_);
  beginning.write(is_numpy(path_) ? numpy_header() : safetensors_header(steps.size()));
  beginning.finish();
  file_->commit();
}

std::string MatrixFile::numpy_header() const {
  std::string text = fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}",
                                 rows_, columns_);
  const std::string beginning("\x93NUMPY\x01\x00", 8);
  const std::size_t bytes = kNumpyHeaderBytes - beginning.size() - sizeof(std::uint16_t);
  text.resize(bytes - 1, ' ');
  return beginning + bytes_of(static_cast<std::uint16_t>(bytes)) + text + '\n';
}

std::string MatrixFile::safetensors_header(std::size_t steps) const {
  const std::size_t matrix_bytes = static_cast<std::size_t>(rows_) *
                                   static_cast<std::size_t>(columns_) * sizeof(float),
                    all_bytes = matrix_bytes + steps * sizeof(std::int32_t);
  std::vector<std::pair<std::string, StoredTensor>> tensors{
      {names_.matrix,
       {.dtype = "F32", .shape = {rows_, columns_}, .begin = 0, .end = matrix_bytes}}};
  if (steps > 0) {
    tensors.push_back({"steps",
                       {.dtype = "I32",
                        .shape = {static_cast<std::int64_t>(steps)},
                        .begin = matrix_bytes,
                        .end = all_bytes}});
  }
  return safetensors_beginning(tensors, names_.metadata, path_.string(), header_bytes_);
}

}  // namespace carousel
