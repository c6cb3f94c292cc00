#include "engine/config/options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <optional>

#include "engine/config/nearest.h"
#include "kernels/common/check.h"

namespace carousel {
namespace fs = std::filesystem;

namespace {

std::string expected(const IntegerRange& range) {
  constexpr IntegerRange kAny;
  const bool below = range.least > kAny.least, above = range.most < kAny.most;
  if (below && above) return fmt::format("an integer of {} to {}", range.least, range.most);
  if (below) return fmt::format("an integer of at least {}", range.least);
  if (above) return fmt::format("an integer of at most {}", range.most);
  return "an integer";
}

std::string expected(const RealRange& range) {
  constexpr RealRange kAny;
  std::string text = "a number";
  if (range.least > kAny.least) {
    text += fmt::format(" {} {}", range.above_least ? "above" : "of at least", range.least);
  }
  if (range.most < kAny.most) {
    text += fmt::format("{} {} {}", range.least > kAny.least ? " and" : "",
                        range.below_most ? "below" : "at most", range.most);
  }
  return text;
}

template <class Range>
OptionInfo info(std::string key, std::string help, const Range& range) {
  constexpr Range kAny;
  OptionInfo result{std::move(key), std::move(help),
                    std::is_same_v<Range, IntegerRange> ? "integer" : "number", expected(range)};
  if (range.least > kAny.least) result.least = static_cast<double>(range.least);
  if (range.most < kAny.most) result.most = static_cast<double>(range.most);
  if constexpr (std::is_same_v<Range, RealRange>) {
    result.above_least = range.above_least;
    result.below_most = range.below_most;
  }
  return result;
}

/// An integer, or a float that is one (2e3).
std::optional<std::int64_t> integer_of(const Setting& setting) {
  if (const auto* integer = std::get_if<std::int64_t>(&setting.value)) return *integer;
  const auto* real = std::get_if<double>(&setting.value);
  if (real == nullptr || *real != std::floor(*real) || !(std::abs(*real) < 0x1p63)) {
    return std::nullopt;
  }
  return static_cast<std::int64_t>(*real);
}

std::optional<double> real_of(const Setting& setting) {
  if (const auto* real = std::get_if<double>(&setting.value)) return *real;
  if (const auto* integer = std::get_if<std::int64_t>(&setting.value)) {
    return static_cast<double>(*integer);
  }
  return std::nullopt;
}

[[noreturn]] void refuse_value(const Setting& setting, const std::string& expected_values) {
  throw ConfigError(fmt::format("{} in {} is {}, expected {}", setting.name(), setting.source,
                                setting.text.empty() ? "empty" : setting.text, expected_values));
}

template <class T>
Option::Assign assign_integer(T& value, const IntegerRange& range) {
  return [&value, range](const Setting& setting, const fs::path&) {
    const auto read = integer_of(setting);
    if (!read || *read < range.least || *read > range.most) return false;
    if (!std::in_range<T>(*read)) {  // allowed by the range as described, but no T
      refuse_value(setting, expected(IntegerRange{.least = std::numeric_limits<T>::min(),
                                                  .most = std::numeric_limits<T>::max()}));
    }
    value = static_cast<T>(*read);
    return true;
  };
}

template <class T>
Option::Assign assign_real(T& value, const RealRange& range) {
  return [&value, range](const Setting& setting, const fs::path&) {
    const auto read = real_of(setting);
    if (!read || !(*read >= range.least && *read <= range.most)) return false;  // NaN fails
    // A strict bound must hold after rounding to T too: 0.99999999 is no float below 1.
    const T stored = static_cast<T>(*read);
    if (!std::isfinite(stored)) return false;
    if (range.above_least && !(stored > static_cast<T>(range.least))) return false;
    if (range.below_most && !(stored < static_cast<T>(range.most))) return false;
    value = stored;
    return true;
  };
}

/// The shortest text that reads back as the same number, and that TOML takes for a float.
template <class T>
std::string toml_real(T value) {
  std::string text = fmt::format("{}", value);
  if (static_cast<T>(std::strtod(text.c_str(), nullptr)) != value)
    text = fmt::format("{}", static_cast<double>(value));
  return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
}

std::string suggestion(const std::string& name) {
  return name.empty() ? "" : fmt::format("; did you mean '{}'?", name);
}

}  // namespace

Option& Option::of(const std::string& kind, const std::vector<std::string>& kinds) {
  return when([&kind, kinds] { return std::find(kinds.begin(), kinds.end(), kind) != kinds.end(); },
              fmt::format("the kind is not {}", fmt::join(kinds, " or ")));
}

Option& OptionSection::add_option(OptionInfo info, Option::Assign assign,
                                  std::function<std::string()> written) {
  if (find(info.key) != nullptr) {
    throw ConfigError(fmt::format("option {}.{} is described twice", name_, info.key));
  }
  Option& option = options_.emplace_back();
  option.info_ = std::move(info);
  option.assign_ = std::move(assign);
  option.written_ = std::move(written);
  option.default_ = option.written_();
  return option;
}

Option& OptionSection::add(std::string key, int& value, std::string help, IntegerRange range) {
  return add_option(info(std::move(key), std::move(help), range), assign_integer(value, range),
                    [&value] { return fmt::format("{}", value); });
}

Option& OptionSection::add(std::string key, std::int64_t& value, std::string help,
                           IntegerRange range) {
  return add_option(info(std::move(key), std::move(help), range), assign_integer(value, range),
                    [&value] { return fmt::format("{}", value); });
}

Option& OptionSection::add(std::string key, float& value, std::string help, RealRange range) {
  return add_option(info(std::move(key), std::move(help), range), assign_real(value, range),
                    [&value] { return toml_real(value); });
}

Option& OptionSection::add(std::string key, double& value, std::string help, RealRange range) {
  return add_option(info(std::move(key), std::move(help), range), assign_real(value, range),
                    [&value] { return toml_real(value); });
}

Option& OptionSection::add(std::string key, bool& value, std::string help) {
  const auto assign = [&value](const Setting& setting, const fs::path&) {
    const bool* read = std::get_if<bool>(&setting.value);
    if (read != nullptr) value = *read;
    return read != nullptr;
  };
  return add_option({std::move(key), std::move(help), "boolean", "true or false"}, assign,
                    [&value] { return std::string(value ? "true" : "false"); });
}

Option& OptionSection::add(std::string key, std::string& value, std::string help,
                           std::vector<std::string> choices) {
  if (!choices.empty()) {
    return add_choice(
        std::move(key), std::move(help), choices,
        [&value, choices](std::size_t i) { value = choices[i]; }, [&value] { return value; });
  }
  const auto assign = [&value](const Setting& setting, const fs::path&) {
    const std::string* read = text_of(setting);
    if (read != nullptr) value = *read;
    return read != nullptr;
  };
  return add_option({std::move(key), std::move(help), "string", "a string"}, assign,
                    [&value] { return toml_string(value); });
}

Option& OptionSection::add(std::string key, std::vector<std::string>& value, std::string help,
                           const std::vector<std::string>& choices) {
  const auto assign = [&value, choices](const Setting& setting, const fs::path&) {
    const auto* const several = std::get_if<std::vector<std::string>>(&setting.value);
    const std::string* const one = several == nullptr ? text_of(setting) : nullptr;
    if (several == nullptr && one == nullptr) return false;
    const std::vector<std::string> read = several != nullptr ? *several : std::vector{*one};
    const bool known = std::all_of(read.begin(), read.end(), [&](const std::string& text) {
      return std::find(choices.begin(), choices.end(), text) != choices.end();
    });
    if (known) value = read;
    return known;
  };
  return add_option(
      {std::move(key), std::move(help), "choices",
       fmt::format("one of {}, or an array of them", fmt::join(choices, ", ")), choices},
      assign, [&value] { return toml_strings(value); });
}

Option& OptionSection::add(std::string key, fs::path& value, std::string help) {
  const auto assign = [&value](const Setting& setting, const fs::path& folder) {
    const std::string* read = text_of(setting);
    if (read == nullptr) return false;
    const fs::path base = setting.from_command_line ? fs::current_path() : folder;
    value = read->empty() ? fs::path() : fs::absolute(base / *read).lexically_normal();
    return true;
  };
  return add_option({std::move(key), std::move(help), "path", "a path"}, assign,
                    [&value] { return toml_string(value.string()); });
}

Option& OptionSection::add_choice(std::string key, std::string help,
                                  std::vector<std::string> choices,
                                  std::function<void(std::size_t)> choose,
                                  std::function<std::string()> chosen) {
  const auto assign = [choices, choose = std::move(choose)](const Setting& setting,
                                                            const fs::path&) {
    const std::string* read = text_of(setting);
    if (read == nullptr) return false;
    const auto position = std::find(choices.begin(), choices.end(), *read);
    if (position == choices.end()) return false;
    choose(static_cast<std::size_t>(position - choices.begin()));
    return true;
  };
  return add_option({std::move(key), std::move(help), "choice",
                     fmt::format("one of {}", fmt::join(choices, ", ")), choices},
                    assign, [chosen = std::move(chosen)] { return toml_string(chosen()); });
}

Option* OptionSection::find(const std::string& key) {
  for (Option& option : options_) {
    if (option.info_.key == key) return &option;
  }
  return nullptr;
}

OptionSection& Options::section(const std::string& name, const std::string& help) {
  OptionSection* section = find(name);
  if (section == nullptr) {
    section = &sections_.emplace_back();
    section->name_ = name;
  }
  if (!help.empty()) section->help_ = help;
  return *section;
}

OptionSection* Options::find(const std::string& name) {
  for (OptionSection& section : sections_) {
    if (section.name_ == name) return &section;
  }
  return nullptr;
}

void Options::apply(const Config& config) {
  std::vector<std::string> names;
  for (const OptionSection& section : sections_) names.push_back(section.name_);
  const auto expect_section = [&](const std::string& name, const std::string& source) {
    if (find(name) != nullptr) return;
    std::string meant = nearest(name, names);
    for (const std::string& known : names_here(name)) {
      if (meant.empty() && find(known) != nullptr) meant = known;
    }
    throw ConfigError(fmt::format("unknown section '{}' in {}{}", name, source, suggestion(meant)));
  };
  for (const auto& [name, source] : config.sections()) expect_section(name, source);
  for (const Setting& setting : config.settings()) {
    if (!setting.section.empty()) expect_section(setting.section, setting.source);
    apply(config, setting);
  }
  for (const OptionSection& section : sections_) {
    for (const Option& option : section.options_) {
      if (!option.info_.required || config.find(section.name_, option.info_.key) != nullptr)
        continue;
      throw ConfigError(fmt::format("{}.{} is missing, expected {}: {}", section.name_,
                                    option.info_.key, option.info_.expected, option.info_.help));
    }
  }
}

void Options::apply(const Config& config, const Setting& setting) {
  OptionSection* section = find(setting.section);
  Option* option = section == nullptr ? nullptr : section->find(setting.key);
  if (option == nullptr) refuse(setting);
  if (option->assign_(setting, config.folder())) return;
  refuse_value(setting, option->info_.expected);
}

void Options::refuse(const Setting& setting) {
  std::vector<std::string> here;
  for (const OptionSection& section : sections_) {
    for (const Option& option : section.options_) {
      if (section.name_ == setting.section) here.push_back(option.info_.key);
    }
  }
  // The name of other programs, a slip of the pen, or a key of another section.
  std::string meant;
  for (const std::string& name : names_here(setting.key)) {
    if (meant.empty()) meant = place_of(name, setting.section);
  }
  if (meant.empty()) meant = nearest(setting.key, here);
  if (meant.empty()) meant = place_of(setting.key, setting.section);
  throw ConfigError(fmt::format("unknown key '{}' in {}{}{}", setting.name(), setting.source,
                                setting.section.empty() ? ", outside any section" : "",
                                suggestion(meant)));
}

std::string Options::place_of(const std::string& key, const std::string& preferred) {
  std::string place;
  for (OptionSection& section : sections_) {
    if (section.find(key) == nullptr) continue;
    if (section.name_ == preferred) return key;
    if (place.empty()) place = section.name_ + "." + key;
  }
  return place;
}

void OptionSection::without_effect(const std::string& otherwise,
                                   const std::vector<std::string>& except) {
  for (Option& option : options_) {
    if (std::find(except.begin(), except.end(), option.info_.key) != except.end()) continue;
    option.when([] { return false; }, otherwise);
  }
}

std::vector<std::string> Options::without_effect() const {
  std::vector<std::pair<std::string, std::vector<std::string>>> by_reason;
  for (const OptionSection& section : sections_) {
    for (const Option& option : section.options_) {
      const std::string value = option.written_();
      if (!option.holds_ || option.holds_() || value == option.default_) continue;
      auto found = std::find_if(by_reason.begin(), by_reason.end(), [&](const auto& reason) {
        return reason.first == option.otherwise_;
      });
      if (found == by_reason.end()) found = by_reason.insert(found, {option.otherwise_, {}});
      found->second.push_back(fmt::format("{}.{} = {}", section.name_, option.info_.key, value));
    }
  }
  std::vector<std::string> result;
  for (const auto& [reason, keys] : by_reason) {
    result.push_back(fmt::format("{} {} no effect: {}", fmt::join(keys, ", "),
                                 keys.size() == 1 ? "has" : "have", reason));
  }
  return result;
}

bool Options::may_change(const std::string& name) const {
  for (const OptionSection& section : sections_) {
    for (const Option& option : section.options_) {
      if (section.name_ + "." + option.info_.key == name) return option.info_.may_change;
    }
  }
  return false;
}

std::string Options::toml() const {
  std::string text;
  for (const OptionSection& section : sections_) {
    text += fmt::format("{}[{}]\n", text.empty() ? "" : "\n", section.name_);
    for (const Option& option : section.options_) {
      text += fmt::format("{} = {}\n", option.info_.key, option.written_());
    }
  }
  return text;
}

std::string Options::help() const {
  std::string text;
  for (const OptionSection& section : sections_) {
    text += fmt::format("{}[{}]{}{}\n", text.empty() ? "" : "\n", section.name_,
                        section.help_.empty() ? "" : "  ", section.help_);
    for (const Option& option : section.options_) {
      const std::string value = option.info_.required
                                    ? option.info_.key
                                    : fmt::format("{} = {}", option.info_.key, option.written_());
      text += fmt::format("  {:<30}  {} ({}{})\n", value, option.info_.help,
                          option.info_.required ? "required; " : "", option.info_.expected);
    }
  }
  return text;
}

}  // namespace carousel
