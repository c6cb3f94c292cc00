#include "engine/config/config.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <optional>

#include "engine/files/atomic.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

/// What an error shows for a value.
std::string shown(const Setting& setting) {
  struct Visitor {
    std::string operator()(std::int64_t value) const { return fmt::format("{}", value); }
    std::string operator()(double value) const { return fmt::format("{}", value); }
    std::string operator()(bool value) const { return value ? "true" : "false"; }
    std::string operator()(const std::string& value) const { return toml_string(value); }
    std::string operator()(const std::vector<std::string>& values) const {
      return toml_strings(values);
    }
    std::string operator()(const OtherValue& value) const { return value.kind; }
  };
  return std::visit(Visitor{}, setting.value);
}

/// An array of strings and nothing else.
std::optional<std::vector<std::string>> strings_of(const toml::node& node) {
  const toml::array* const array = node.as_array();
  if (array == nullptr || array->empty() || !array->is_homogeneous<std::string>()) return {};
  std::vector<std::string> strings;
  for (const toml::node& element : *array) strings.push_back(element.as_string()->get());
  return strings;
}

Setting setting_of(const toml::node& node) {
  Setting setting;
  if (const auto* integer = node.as_integer()) {
    setting.value = integer->get();
  } else if (const auto* real = node.as_floating_point()) {
    setting.value = real->get();
  } else if (const auto* boolean = node.as_boolean()) {
    setting.value = boolean->get();
  } else if (const auto* string = node.as_string()) {
    setting.value = string->get();
  } else if (auto strings = strings_of(node)) {
    setting.value = *std::move(strings);
  } else {
    setting.value = OtherValue{node.is_array()   ? "an array"
                               : node.is_table() ? "a table"
                                                 : "a date or time"};
  }
  setting.text = shown(setting);
  return setting;
}

std::string location(const std::string& name, const toml::source_region& region) {
  return fmt::format("{}:{}", name, region.begin.line);
}

constexpr std::size_t kMostBytes = std::size_t{1} << 20;
constexpr int kMostParts = 8;  // of a dotted key; ours have two

/// Where the string that begins at `at` is over: behind its last quotation mark.
std::size_t end_of_string(std::string_view text, std::size_t at) {
  const char quote = text[at];
  const bool several_lines = text.substr(at).starts_with(std::string(3, quote));
  const std::string close(several_lines ? 3 : 1, quote);
  for (at += close.size(); at < text.size(); ++at) {
    if (text[at] == '\n' && !several_lines) return at;
    if (text[at] == '\\' && quote == '"') {
      ++at;
    } else if (text.substr(at).starts_with(close)) {
      at += close.size();
      // Two more may belong to the content of a string of several lines.
      while (several_lines && at < text.size() && text[at] == quote) ++at;
      return at;
    }
  }
  return text.size();
}

/// Parses TOML. toml++ builds and frees a table for each part of a dotted key by recursion, and takes
/// for granted that what begins a value is ASCII: what no config of ours has is refused before.
toml::table parsed_toml(std::string_view text, const std::string& name) {
  int line = 1, dots = 0;
  const auto fail = [&](const std::string& what) {
    throw ConfigError(fmt::format("{}:{}: {}", name, line, what));
  };
  if (text.size() > kMostBytes) {
    fail(fmt::format("the text has more than {} bytes; is this a config?", kMostBytes));
  }
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";
  for (std::size_t i = text.starts_with(kByteOrderMark) ? 3 : 0; i < text.size();) {
    const char c = text[i];
    const std::size_t begin = i++;
    if (c == '#') i = std::min(text.find('\n', i), text.size());
    if (c == '"' || c == '\'') i = end_of_string(text, begin);
    if (c == '\n' || c == '=' || c == ',' || c == '[' || c == '{') dots = 0;
    if (c == '.' && ++dots == kMostParts) {
      fail(fmt::format("a key of more than {} parts, expected section.key", kMostParts));
    }
    if (static_cast<unsigned char>(c) >= 0x7F || (c < ' ' && c != '\t' && c != '\n' && c != '\r')) {
      fail("a character outside ASCII, expected it between quotation marks");
    }
    line += static_cast<int>(std::count(text.begin() + static_cast<std::ptrdiff_t>(begin),
                                        text.begin() + static_cast<std::ptrdiff_t>(i), '\n'));
  }
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    throw ConfigError(fmt::format("{}: {}", location(name, error.source()), error.description()));
  }
}

}  // namespace

Config Config::read(const std::filesystem::path& path) {
  return parse(read_file(path, kMostBytes + 1), path.string(),
               std::filesystem::absolute(path).parent_path());
}

Config Config::parse(std::string_view text, const std::string& name,
                     const std::filesystem::path& folder) {
  const toml::table root = parsed_toml(text, name);
  Config config;
  config.folder_ = folder;
  const auto add = [&](const std::string& section, const toml::key& key, const toml::node& node) {
    Setting setting = setting_of(node);
    setting.section = section;
    setting.key = key.str();
    setting.source = location(name, key.source());
    config.settings_.push_back(std::move(setting));
  };
  for (const auto& [key, node] : root) {
    const toml::table* table = node.as_table();
    if (table == nullptr) {
      add("", key, node);
      continue;
    }
    config.sections_.emplace_back(key.str(), location(name, key.source()));
    for (const auto& [inner, value] : *table) add(std::string(key.str()), inner, value);
  }
  // toml++ keeps tables sorted; errors are wanted in the order of the file.
  std::stable_sort(config.settings_.begin(), config.settings_.end(),
                   [](const Setting& a, const Setting& b) {
                     const auto line = [](const Setting& s) {
                       return std::stol(s.source.substr(s.source.rfind(':') + 1));
                     };
                     return line(a) < line(b);
                   });
  return config;
}

void Config::set(std::string_view assignment, std::string typed) {
  const std::size_t equals = assignment.find('=');
  const std::size_t dot = assignment.substr(0, equals).find('.');
  if (equals == std::string_view::npos || dot == std::string_view::npos || dot == 0 ||
      dot + 1 == equals) {
    throw ConfigError(fmt::format("--set {}: expected section.key=value", assignment));
  }
  const std::string_view text = assignment.substr(equals + 1);
  Setting setting;
  setting.value = OtherValue{"text"};
  try {
    const toml::table parsed = parsed_toml(fmt::format("value = {}", text), "--set");
    if (parsed.size() == 1) setting = setting_of(*parsed.get("value"));
  } catch (const ConfigError&) {
    // Bare words, which an option that takes text will read.
  }
  setting.section = assignment.substr(0, dot);
  setting.key = assignment.substr(dot + 1, equals - dot - 1);
  setting.source = typed.empty() ? fmt::format("--set {}", assignment) : std::move(typed);
  setting.text = text;
  setting.from_command_line = true;
  std::erase_if(settings_, [&](const Setting& old) { return old.name() == setting.name(); });
  settings_.push_back(std::move(setting));
}

const Setting* Config::find(std::string_view section, std::string_view key) const {
  for (const Setting& setting : settings_) {
    if (setting.section == section && setting.key == key) return &setting;
  }
  return nullptr;
}

std::string Config::text(std::string_view section, std::string_view key,
                         std::string fallback) const {
  const Setting* setting = find(section, key);
  if (setting == nullptr) return fallback;
  if (const std::string* text = text_of(*setting)) return *text;
  throw ConfigError(fmt::format("{} in {} is {}, expected a string", setting->name(),
                                setting->source, setting->text));
}

const std::string* text_of(const Setting& setting) {
  if (const auto* text = std::get_if<std::string>(&setting.value)) return text;
  return setting.from_command_line ? &setting.text : nullptr;
}

std::string toml_string(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (byte < 0x20 || byte == 0x7F) {
      result += fmt::format("\\u{:04X}", byte);
    } else {
      result += c;
    }
  }
  return result + '"';
}

std::string toml_strings(const std::vector<std::string>& texts) {
  if (texts.size() == 1) return toml_string(texts.front());
  std::string array;
  for (const std::string& text : texts) array += (array.empty() ? "[" : ", ") + toml_string(text);
  return array + "]";
}

}  // namespace carousel
