#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace carousel {

/// A value of a kind that no option takes: an array, a table, a date, or text that is no TOML.
struct OtherValue {
  std::string kind;  ///< "an array"
};

/// One `key = value` as somebody wrote it.
struct Setting {
  std::string section, key;
  std::variant<std::int64_t, double, bool, std::string, std::vector<std::string>, OtherValue> value;
  std::string source;  ///< "char_lstm.toml:12", or "--set train.batch=8"
  std::string text;    ///< of the value: as an error shows it
  bool from_command_line = false;

  std::string name() const { return section.empty() ? key : section + "." + key; }
};

/// A config file and the command line's changes to it, read but not yet understood: Options says
/// what the keys mean.
class Config {
 public:
  Config() = default;
  /// ConfigError with file and line if the file is not TOML, IoError if it cannot be read.
  static Config read(const std::filesystem::path& path);
  /// The same from text; `name` stands for the file in errors, relative paths start at `folder`.
  static Config parse(std::string_view text, const std::string& name,
                      const std::filesystem::path& folder);

  /// Applies "section.key=value" over what is there. The value is TOML; where a string or a path
  /// is wanted, it needs no quotation marks. `typed` is what errors show of the command line, if it
  /// is not "--set <assignment>".
  void set(std::string_view assignment, std::string typed = {});

  /// Null if nobody set the key.
  const Setting* find(std::string_view section, std::string_view key) const;
  /// A key that decides which options there are, such as model.kind. ConfigError if it is not text.
  std::string text(std::string_view section, std::string_view key, std::string fallback) const;

  const std::vector<Setting>& settings() const { return settings_; }
  /// The file's sections, empty ones included: name and source.
  const std::vector<std::pair<std::string, std::string>>& sections() const { return sections_; }
  const std::filesystem::path& folder() const { return folder_; }

 private:
  std::vector<Setting> settings_;
  std::vector<std::pair<std::string, std::string>> sections_;
  std::filesystem::path folder_;
};

/// The setting's value where text is wanted: a TOML string, or whatever the command line says; null
/// if it is neither.
const std::string* text_of(const Setting& setting);

/// A string as TOML writes it, with quotation marks and escapes.
std::string toml_string(std::string_view text);
/// One of them as a string, several as an array.
std::string toml_strings(const std::vector<std::string>& texts);

}  // namespace carousel
