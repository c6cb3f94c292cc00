#include "engine/training/scalars.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "kernels/common/check.h"

namespace carousel {
namespace {

/// The whole of `text` as a T.
template <class T>
std::optional<T> parsed(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

std::optional<std::int64_t> parsed_integer(std::string_view text) {
  return parsed<std::int64_t>(text);
}

void Scalars::set(const std::string& name, double value) {
  // std::to_chars writes the shortest text that reads back as the same double.
  char text[32];
  values_[name] = {text, std::to_chars(text, text + sizeof text, value).ptr};
}
void Scalars::set(const std::string& name, std::int64_t value) {
  values_[name] = std::to_string(value);
}
void Scalars::set(const std::string& name, std::uint64_t value) {
  values_[name] = std::to_string(value);
}
void Scalars::set(const std::string& name, std::string_view value) { values_[name] = value; }

double Scalars::real(const std::string& name) const {
  if (const auto value = parsed<double>(text(name))) return *value;
  refuse(name, "a number");
}
std::int64_t Scalars::integer(const std::string& name) const {
  if (const auto value = parsed<std::int64_t>(text(name))) return *value;
  refuse(name, "a whole number");
}
std::int64_t Scalars::count(const std::string& name) const {
  const std::int64_t value = integer(name);
  if (value < 0 || value > std::int64_t{1} << 53) refuse(name, "a whole number from 0 to 2^53");
  return value;
}
std::uint64_t Scalars::natural(const std::string& name) const {
  if (const auto value = parsed<std::uint64_t>(text(name))) return *value;
  refuse(name, "a whole number of at least 0");
}
void Scalars::refuse(const std::string& name, const char* expected) const {
  throw FormatError(fmt::format("{}scalar '{}' is '{}', expected {}",
                                file_.empty() ? "" : file_ + ": ", name, text(name), expected));
}
const std::string& Scalars::text(const std::string& name) const {
  const auto position = values_.find(name);
  if (position == values_.end()) {
    throw FormatError(
        fmt::format("{}scalar '{}' is missing", file_.empty() ? "" : file_ + ": ", name));
  }
  return position->second;
}

std::string Scalars::json() const { return nlohmann::json(values_).dump(); }

Scalars Scalars::from_json(const std::string& json, const std::string& file) {
  try {
    Scalars scalars;
    nlohmann::json::parse(json).get_to(scalars.values_);
    scalars.file_ = file;
    return scalars;
  } catch (const nlohmann::json::exception&) {
    throw FormatError(fmt::format("{}: scalars are not a JSON object of strings", file));
  }
}

}  // namespace carousel
