#include "engine/files/safetensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "kernels/common/check.h"

namespace carousel {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian");
constexpr std::size_t kLengthBytes = 8;
constexpr std::size_t kMaxHeaderBytes = 100'000'000;  // the published limit

const char* stored_name(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "F32";
    case DType::bf16:
      return "BF16";
    case DType::f64:
      return "F64";
    case DType::i32:
      return "I32";
    case DType::i64:
      return "I64";
  }
  return "?";
}

/// The order of element types in the published writer, reversed: 8 bytes, then 4, then 2, so that
/// every tensor is aligned.
int rank_on_disk(DType dtype) {
  switch (dtype) {
    case DType::i64:
      return 0;
    case DType::f64:
      return 1;
    case DType::f32:
      return 2;
    case DType::i32:
      return 3;
    case DType::bf16:
      return 4;
  }
  return 5;
}

std::vector<std::int64_t> extents(const Shape& shape) {
  std::vector<std::int64_t> result;
  for (int i = 0; i < shape.rank(); ++i) result.push_back(shape[i]);
  return result;
}

std::vector<const NamedTensor*> in_disk_order(std::span<const NamedTensor> tensors,
                                              const std::string& file) {
  std::vector<const NamedTensor*> order;
  for (const NamedTensor& t : tensors) {
    if (!t.tensor) throw FormatError(fmt::format("{}: '{}' has no memory to write", file, t.name));
    if (t.name == "__metadata__") {
      throw FormatError(fmt::format("{}: no tensor can be named '{}'", file, t.name));
    }
    order.push_back(&t);
  }
  std::sort(order.begin(), order.end(), [](const NamedTensor* a, const NamedTensor* b) {
    return std::pair(rank_on_disk(a->tensor.dtype()), std::string_view(a->name)) <
           std::pair(rank_on_disk(b->tensor.dtype()), std::string_view(b->name));
  });
  return order;
}

void expect_distinct_names(std::span<const NamedTensor> tensors, const std::string& file) {
  std::vector<std::string_view> names;
  for (const NamedTensor& t : tensors) names.push_back(t.name);
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  if (twice != names.end()) throw FormatError(fmt::format("{}: '{}' is given twice", file, *twice));
}

template <class To, class From>
std::vector<To> converted(std::span<const std::byte> bytes) {
  std::vector<To> result(bytes.size() / sizeof(From));
  for (std::size_t i = 0; i < result.size(); ++i) {
    From value;  // a foreign file's data need not be aligned
    std::memcpy(&value, bytes.data() + i * sizeof(From), sizeof(From));
    result[i] = static_cast<To>(static_cast<float>(value));
  }
  return result;
}

/// torch.save() writes a zip archive, or as it did before PyTorch 1.6 a pickle. Read as the length
/// of a header, the first bytes of both are far beyond its limit.
void expect_not_pytorchs(std::uint64_t first_bytes, const std::filesystem::path& file) {
  char first[sizeof first_bytes];
  std::memcpy(first, &first_bytes, sizeof first_bytes);
  const bool is_zip = std::memcmp(first, "PK\x03\x04", 4) == 0,
             is_pickle = first[0] == '\x80' && first[1] >= 2 && first[1] <= 5;  // the protocol
  if (first_bytes <= kMaxHeaderBytes || !(is_zip || is_pickle)) return;
  throw FormatError(
      fmt::format("{} is PyTorch's own format; save it as safetensors: "
                  "safetensors.torch.save_file(model.state_dict(), \"{}.safetensors\")",
                  file.string(), file.stem().string()));
}

/// Everything of a file that comes before the tensors' bytes, and those in the order they follow.
struct Beginning {
  std::string header;
  std::vector<const NamedTensor*> order;
  std::size_t data_bytes = 0;
};

Beginning beginning_of(const std::string& path, std::span<const NamedTensor> tensors,
                       const Metadata& metadata) {
  expect_distinct_names(tensors, path);
  Beginning result{.header = {}, .order = in_disk_order(tensors, path)};
  std::vector<std::pair<std::string, StoredTensor>> stored;
  for (const NamedTensor* t : result.order) {
    const std::size_t begin = result.data_bytes;
    result.data_bytes += t->tensor.bytes();
    stored.emplace_back(t->name, StoredTensor{.dtype = stored_name(t->tensor.dtype()),
                                              .shape = extents(t->tensor.shape()),
                                              .begin = begin,
                                              .end = result.data_bytes});
  }
  result.header = safetensors_beginning(stored, metadata, path);
  return result;
}

}  // namespace

std::string safetensors_beginning(const std::vector<std::pair<std::string, StoredTensor>>& tensors,
                                  const Metadata& metadata, const std::string& file,
                                  std::size_t least) {
  std::string text;
  try {
    text = safetensors_header_text(tensors, metadata);
  } catch (const nlohmann::json::type_error&) {
    throw FormatError(fmt::format("{}: a name or metadata is not UTF-8", file));
  }
  if (text.size() + kLengthBytes < least) text.resize(least - kLengthBytes, ' ');
  if (text.size() > kMaxHeaderBytes) {
    throw FormatError(
        fmt::format("{}: header of {} bytes, at most {} are allowed; a smaller "
                    "vocabulary takes less",
                    file, text.size(), kMaxHeaderBytes));
  }
  const auto length = static_cast<std::uint64_t>(text.size());
  return text.insert(0, reinterpret_cast<const char*>(&length), kLengthBytes);
}

void write_safetensors(OutputFile& file, std::span<const NamedTensor> tensors,
                       const Metadata& metadata) {
  const Beginning beginning = beginning_of(file.path().string(), tensors, metadata);
  file.write(beginning.header);
  std::vector<std::byte> host;
  for (const NamedTensor* t : beginning.order) {
    const std::size_t bytes = t->tensor.bytes();
    if (is_cpu(t->tensor.device())) {
      file.write(t->tensor.data(), bytes);
    } else {
      host.resize(std::max(host.size(), bytes));
      copy_to_host(t->tensor, host.data());
      file.write(host.data(), bytes);
    }
  }
}

std::size_t safetensors_bytes(const std::filesystem::path& path,
                              std::span<const NamedTensor> tensors, const Metadata& metadata) {
  const Beginning beginning = beginning_of(path.string(), tensors, metadata);
  return beginning.header.size() + beginning.data_bytes;
}

void write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                       const Metadata& metadata, SystemCalls& calls) {
  NewFile file(path, calls);
  write_safetensors(file.file(), tensors, metadata);
  file.commit();
}

SafetensorsFile::SafetensorsFile(std::filesystem::path path)
    : file_(std::make_shared<const InputFile>(std::move(path))) {
  const std::string name = file_->path().string();
  const std::size_t size = file_->size();
  if (size < kLengthBytes) {
    throw FormatError(fmt::format("{}: {} bytes, expected at least {}", name, size, kLengthBytes));
  }
  std::uint64_t length = 0;
  file_->read(0, &length, kLengthBytes);
  expect_not_pytorchs(length, file_->path());
  if (length > kMaxHeaderBytes || length > size - kLengthBytes) {
    throw FormatError(
        fmt::format("{} is no safetensors file: header length is {}, expected at most {}", name,
                    length, std::min(kMaxHeaderBytes, size - kLengthBytes)));
  }
  std::string text(length, '\0');
  file_->read(kLengthBytes, text.data(), length);
  data_ = kLengthBytes + length;
  header_ = parse_safetensors_header(text, size - data_, name);
}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> result;
  for (const auto& [name, tensor] : header_.tensors) result.push_back(name);
  return result;
}

const StoredTensor& SafetensorsFile::info(const std::string& name) const {
  const auto position = header_.tensors.find(name);
  if (position == header_.tensors.end()) {
    throw FormatError(fmt::format("{}: there is no tensor '{}'", path().string(), name));
  }
  return position->second;
}

std::vector<std::byte> SafetensorsFile::bytes(const std::string& name) const {
  const StoredTensor& tensor = info(name);
  std::vector<std::byte> result(tensor.end - tensor.begin);
  file_->read(data_ + tensor.begin, result.data(), result.size());
  return result;
}

void SafetensorsFile::expect_shape(const std::string& name, const Shape& shape) const {
  const StoredTensor& stored = info(name);
  if (stored.shape == extents(shape)) return;
  throw FormatError(fmt::format("{}: '{}' is {}, expected {}", path().string(), name, stored.text(),
                                shape.text()));
}

SafetensorsFile::Fit SafetensorsFile::fit(const std::string& name, const Tensor& tensor) const {
  const StoredTensor& stored = info(name);
  const std::string wanted = tensor ? stored_name(tensor.dtype()) : "nothing";
  if (tensor && stored.shape == extents(tensor.shape())) {
    if (stored.dtype == wanted) return Fit::exact;
    if (stored.dtype == "BF16" && tensor.dtype() == DType::f32) return Fit::widened;
    if (stored.dtype == "F32" && tensor.dtype() == DType::bf16) return Fit::narrowed;
  }
  throw FormatError(fmt::format("{}: '{}' is {}, expected {} {}", path().string(), name,
                                stored.text(), wanted, tensor.shape().text()));
}

SafetensorsFile::Fit SafetensorsFile::read_into(const std::string& name,
                                                const Tensor& tensor) const {
  const Fit kind = fit(name, tensor);
  const std::vector<std::byte> stored = bytes(name);
  switch (kind) {
    case Fit::exact:
      copy_from_host(tensor, stored.data());
      break;
    case Fit::widened:
      copy_from_host(tensor, converted<float, bf16>(stored).data());
      break;
    case Fit::narrowed:
      copy_from_host(tensor, converted<bf16, float>(stored).data());
      break;
  }
  return kind;
}

}  // namespace carousel
