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

}  // namespace

Config Config::read(const std::filesystem::path& path) {
  return parse(read_file(path), path.string(), std::filesystem::absolute(path).parent_path());
}

Config Config::parse(std::string_view text, const std::string& name,
                     const std::filesystem::path& folder) {
  toml::table root;
  try {
    root = toml::parse(text);
  } catch (const toml::parse_error& error) {
    throw ConfigError(fmt::format("{}: {}", location(name, error.source()), error.description()));
  }
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
    const toml::table parsed = toml::parse(fmt::format("value = {}", text));
    if (parsed.size() == 1) setting = setting_of(*parsed.get("value"));
  } catch (const toml::parse_error&) {
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
