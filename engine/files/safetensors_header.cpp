#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "engine/files/safetensors.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

using Json = nlohmann::json;

/// One tensor's entry while its fields arrive, in any order.
struct Entry {
  std::optional<std::string> dtype;
  std::optional<std::vector<std::uint64_t>> shape, offsets;
};

/// Accepts exactly the published grammar, event by event. It stores no values that the format does
/// not have, so that a header of deeply nested values costs no memory.
class HeaderParser final : public nlohmann::json_sax<Json> {
 public:
  explicit HeaderParser(const std::string& file) : file_(file) {}

  Metadata metadata;
  std::map<std::string, Entry> entries;

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_integer(Json::number_integer_t value) override {
    return unexpected(fmt::format("{}", value));
  }
  bool number_float(Json::number_float_t, const std::string& text) override {
    return unexpected(text);
  }
  bool binary(Json::binary_t&) override { return unexpected("binary data"); }
  bool number_unsigned(Json::number_unsigned_t value) override {
    if (place_ != Place::numbers) return unexpected(fmt::format("{}", value));
    numbers_.push_back(value);
    return true;
  }
  bool string(std::string& value) override {
    if (place_ == Place::metadata) {
      if (!metadata.emplace(field_, std::move(value)).second) return duplicate(field_);
      return true;
    }
    if (place_ != Place::tensor || field_ != "dtype") return unexpected("a string");
    if (entry_->dtype) return duplicate(field_);
    entry_->dtype = std::move(value);
    return true;
  }
  bool key(std::string& value) override {
    if (place_ == Place::top) {
      name_ = std::move(value);
    } else {
      field_ = std::move(value);
      if (place_ == Place::tensor && field_ != "dtype" && field_ != "shape" &&
          field_ != "data_offsets") {
        fail(fmt::format("unknown field '{}'", field_));
      }
    }
    return true;
  }
  bool start_object(std::size_t) override {
    if (place_ == Place::outside) {
      place_ = Place::top;
    } else if (place_ != Place::top) {
      return unexpected("an object");
    } else if (name_ == "__metadata__") {
      if (std::exchange(has_metadata_, true)) return duplicate(name_);
      place_ = Place::metadata;
    } else {
      const auto [position, is_new] = entries.try_emplace(name_);
      if (!is_new) return duplicate(name_);
      entry_ = &position->second;
      place_ = Place::tensor;
    }
    return true;
  }
  bool end_object() override {
    if (place_ == Place::tensor && !(entry_->dtype && entry_->shape && entry_->offsets)) {
      fail("dtype, shape or data_offsets is missing");
    }
    place_ = place_ == Place::top ? Place::outside : Place::top;
    return true;
  }
  bool start_array(std::size_t) override {
    if (place_ != Place::tensor || field_ == "dtype") return unexpected("an array");
    place_ = Place::numbers;
    numbers_.clear();
    return true;
  }
  bool end_array() override {
    place_ = Place::tensor;
    auto& target = field_ == "shape" ? entry_->shape : entry_->offsets;
    if (target) return duplicate(field_);
    target = std::exchange(numbers_, {});
    return true;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    throw FormatError(fmt::format("{}: header is not JSON at byte {}", file_, 8 + position));
  }

 private:
  enum class Place { outside, top, metadata, tensor, numbers };

  [[noreturn]] void fail(const std::string& problem) const {
    throw FormatError(place_ == Place::outside
                          ? fmt::format("{}: {}", file_, problem)
                          : fmt::format("{}: '{}': {}", file_, name_, problem));
  }
  [[noreturn]] bool unexpected(const std::string& found) const {
    switch (place_) {
      case Place::outside:
        fail(fmt::format("header is {}, expected an object", found));
      case Place::top:
        fail(fmt::format("is {}, expected an object", found));
      case Place::metadata:
        fail(fmt::format("'{}' is {}, expected a string", field_, found));
      case Place::tensor:
        fail(fmt::format("{} is {}, expected {}", field_, found,
                         field_ == "dtype" ? "a string" : "an array"));
      case Place::numbers:
        break;
    }
    fail(fmt::format("{} holds {}, expected whole numbers of at least 0", field_, found));
  }
  [[noreturn]] bool duplicate(const std::string& what) const {
    fail(fmt::format("'{}' is there twice", what));
  }

  const std::string& file_;
  Place place_ = Place::outside;
  std::string name_, field_;
  Entry* entry_ = nullptr;
  std::vector<std::uint64_t> numbers_;
  bool has_metadata_ = false;
};

/// Bytes of a tensor of this shape, or nothing if they do not fit 63 bits.
std::optional<std::uint64_t> product(const std::vector<std::uint64_t>& shape, std::uint64_t bytes) {
  for (const std::uint64_t extent : shape) {
    if (__builtin_mul_overflow(bytes, extent, &bytes) || bytes >> 63 != 0) return std::nullopt;
  }
  return bytes;
}

StoredTensor checked(const Entry& entry, const std::string& where) {
  const std::size_t element = bytes_per_element(std::string_view(*entry.dtype));
  if (element == 0)
    throw FormatError(fmt::format("{}: dtype is unknown: '{}'", where, *entry.dtype));
  const auto bytes = product(*entry.shape, element);
  if (!bytes) throw FormatError(fmt::format("{}: shape {} overflows", where, *entry.shape));
  if (entry.offsets->size() != 2) {
    throw FormatError(
        fmt::format("{}: data_offsets holds {} numbers, expected 2", where, entry.offsets->size()));
  }
  const std::uint64_t begin = (*entry.offsets)[0], end = (*entry.offsets)[1];
  if (end < begin || end - begin != *bytes) {
    throw FormatError(fmt::format("{}: data_offsets are [{}, {}], expected {} bytes for {} {}",
                                  where, begin, end, *bytes, *entry.dtype, *entry.shape));
  }
  StoredTensor tensor{.dtype = *entry.dtype, .shape = {}, .begin = begin, .end = end};
  for (const std::uint64_t extent : *entry.shape) {
    // A tensor without bytes may still have an extent that 63 bits cannot hold.
    if (extent >> 63 != 0) throw FormatError(fmt::format("{}: extent {} overflows", where, extent));
    tensor.shape.push_back(static_cast<std::int64_t>(extent));
  }
  return tensor;
}

/// No overlap, no gap, nothing outside.
void expect_tiling(const std::map<std::string, StoredTensor>& tensors, std::size_t data_bytes,
                   const std::string& file) {
  std::vector<std::pair<const std::string*, const StoredTensor*>> order;
  for (const auto& [name, tensor] : tensors) order.emplace_back(&name, &tensor);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second->begin, a.second->end) < std::pair(b.second->begin, b.second->end);
  });
  std::size_t next = 0;
  for (const auto& [name, tensor] : order) {
    if (tensor->begin != next) {
      throw FormatError(fmt::format("{}: '{}' begins at byte {} of the data, expected {}: {}", file,
                                    *name, tensor->begin, next,
                                    tensor->begin < next ? "tensors overlap" : "there is a gap"));
    }
    next = tensor->end;
    if (next > data_bytes) {
      throw FormatError(
          fmt::format("{}: '{}' ends at byte {} of the data, which has {}: truncated?", file, *name,
                      next, data_bytes));
    }
  }
  if (next != data_bytes) {
    throw FormatError(fmt::format("{}: {} bytes of data, expected {}", file, data_bytes, next));
  }
}

}  // namespace

std::size_t bytes_per_element(std::string_view stored_dtype) {
  static constexpr std::array<std::pair<std::string_view, std::size_t>, 15> kTypes{{
      {"BOOL", 1},
      {"U8", 1},
      {"I8", 1},
      {"F8_E5M2", 1},
      {"F8_E4M3", 1},
      {"I16", 2},
      {"U16", 2},
      {"F16", 2},
      {"BF16", 2},
      {"I32", 4},
      {"U32", 4},
      {"F32", 4},
      {"F64", 8},
      {"I64", 8},
      {"U64", 8},
  }};
  for (const auto& [name, bytes] : kTypes) {
    if (name == stored_dtype) return bytes;
  }
  return 0;
}

std::string StoredTensor::text() const {
  return fmt::format("{} [{}]", dtype, fmt::join(shape, ", "));
}

SafetensorsHeader parse_safetensors_header(std::string_view text, std::size_t data_bytes,
                                           const std::string& file) {
  if (!text.starts_with('{')) {
    throw FormatError(fmt::format("{}: header does not begin with '{{'", file));
  }
  HeaderParser parser(file);
  Json::sax_parse(text.begin(), text.end(), &parser);
  SafetensorsHeader header{.metadata = std::move(parser.metadata), .tensors = {}};
  for (const auto& [name, entry] : parser.entries) {
    header.tensors.emplace(name, checked(entry, fmt::format("{}: '{}'", file, name)));
  }
  expect_tiling(header.tensors, data_bytes, file);
  return header;
}

std::string safetensors_header_text(
    const std::vector<std::pair<std::string, StoredTensor>>& tensors, const Metadata& metadata) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (!metadata.empty()) json["__metadata__"] = metadata;
  for (const auto& [name, tensor] : tensors) {
    json[name] = {{"dtype", tensor.dtype},
                  {"shape", tensor.shape},
                  {"data_offsets", {tensor.begin, tensor.end}}};
  }
  std::string text = json.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace carousel
