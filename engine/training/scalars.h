#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace carousel {

/// The whole of a text as a whole number, if it is one.
std::optional<std::int64_t> parsed_integer(std::string_view text);

/// Named numbers and texts that belong to a training run beside its tensors. They are kept as
/// text; a double comes back bit for bit, infinities included (of NaN, only that it is one).
class Scalars {
 public:
  void set(const std::string& name, double value);
  void set(const std::string& name, std::int64_t value);
  void set(const std::string& name, std::uint64_t value);
  void set(const std::string& name, std::string_view value);

  bool contains(const std::string& name) const { return values_.contains(name); }
  /// FormatError if the name is missing or its text is no such value.
  double real(const std::string& name) const;
  std::int64_t integer(const std::string& name) const;
  std::int64_t count(const std::string& name) const;  ///< an integer from 0 to 2^53
  std::uint64_t natural(const std::string& name) const;
  const std::string& text(const std::string& name) const;

  std::string json() const;  ///< one JSON object, sorted by name
  static Scalars from_json(const std::string& json, const std::string& file);
  bool operator==(const Scalars& other) const { return values_ == other.values_; }
  /// FormatError that the value is another than is expected.
  [[noreturn]] void refuse(const std::string& name, const char* expected) const;

 private:
  std::string file_;  ///< that they were read from, for errors
  std::map<std::string, std::string> values_;
};

}  // namespace carousel
