#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <list>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "engine/config/config.h"

namespace carousel {

/// Bounds of an option's values, both inclusive.
struct IntegerRange {
  std::int64_t least = std::numeric_limits<std::int64_t>::min();
  std::int64_t most = std::numeric_limits<std::int64_t>::max();
};
/// Bounds of finite numbers: least ≤ x ≤ most, or with strict comparisons.
struct RealRange {
  double least = std::numeric_limits<double>::lowest();
  double most = std::numeric_limits<double>::max();
  bool above_least = false;  ///< x > least
  bool below_most = false;   ///< x < most
};

/// What a key is, and which values it takes.
struct OptionInfo {
  std::string key, help;
  std::string type;  ///< integer, number, boolean, string, path, choice; choices: an array of them
  std::string expected;  ///< its values, in words
  std::vector<std::string> choices{};
  std::optional<double> least{}, most{};         ///< bounds of a number, where it has any
  bool above_least = false, below_most = false;  ///< strict bounds
  bool required = false;
  bool may_change = false;  ///< when a run is resumed
};

/// One key: the variable that holds its value, and the values it may have. The variable's value
/// when the key is added is the default.
class Option {
 public:
  /// Stores the setting's value; false for a value that is not allowed.
  using Assign = std::function<bool(const Setting&, const std::filesystem::path& folder)>;

  Option& require() {
    info_.required = true;
    return *this;
  }
  /// Lets a resumed run have another value than the run began with.
  Option& may_change() {
    info_.may_change = true;
    return *this;
  }
  /// Says when the key has an effect: with other keys as they are. `otherwise` says why it has none.
  Option& when(std::function<bool()> holds, std::string otherwise) {
    holds_ = std::move(holds);
    otherwise_ = std::move(otherwise);
    return *this;
  }
  /// The same for a key of some kinds, of which `kind` is the one that is chosen.
  Option& of(const std::string& kind, const std::vector<std::string>& kinds);

  const OptionInfo& info() const { return info_; }
  std::string value() const { return written_(); }  ///< now, as TOML

 private:
  friend class OptionSection;
  friend class Options;
  OptionInfo info_;
  std::string default_, otherwise_;
  Assign assign_;
  std::function<std::string()> written_;
  std::function<bool()> holds_;
};

/// The keys of one [section]. A model, the trainer and the optimiser describe their keys once each:
///
///     section.add("hidden", config.hidden, "units per layer", {.least = 1, .most = 65536});
///
/// That line is used to parse the key, for errors, for the listing of `carousel models` and for the
/// config written beside a run. The variables must outlive the section.
class OptionSection {
 public:
  Option& add(std::string key, int& value, std::string help, IntegerRange range = {});
  Option& add(std::string key, std::int64_t& value, std::string help, IntegerRange range = {});
  Option& add(std::string key, float& value, std::string help, RealRange range = {});
  Option& add(std::string key, double& value, std::string help, RealRange range = {});
  Option& add(std::string key, bool& value, std::string help);
  Option& add(std::string key, std::string& value, std::string help,
              std::vector<std::string> choices = {});
  /// One of the choices, or an array of them.
  Option& add(std::string key, std::vector<std::string>& value, std::string help,
              const std::vector<std::string>& choices);
  /// A relative path is relative to the config file's folder; given on the command line, to the
  /// current folder. The variable gets an absolute path, or an empty one if the text is empty.
  Option& add(std::string key, std::filesystem::path& value, std::string help);

  /// An enumeration by the names of its values.
  template <class E>
  requires std::is_enum_v<E> Option& add(std::string key, E& value, std::string help,
                                         const std::vector<std::pair<std::string, E>>& names) {
    std::vector<std::string> texts;
    for (const auto& [text, named] : names) texts.push_back(text);
    return add_choice(
        std::move(key), std::move(help), std::move(texts),
        [&value, names](std::size_t i) { value = names[i].second; },
        [&value, names] {
          for (const auto& [text, named] : names) {
            if (named == value) return text;
          }
          return std::string();
        });
  }

  /// The keys so far, but for `except`, have no effect; `otherwise` says why.
  void without_effect(const std::string& otherwise, const std::vector<std::string>& except = {});

  const std::string& name() const { return name_; }
  const std::string& help() const { return help_; }
  const std::list<Option>& options() const { return options_; }

 private:
  friend class Options;
  Option& add_option(OptionInfo info, Option::Assign assign, std::function<std::string()> written);
  Option& add_choice(std::string key, std::string help, std::vector<std::string> choices,
                     std::function<void(std::size_t)> choose, std::function<std::string()> chosen);
  Option* find(const std::string& key);
  std::string name_, help_;
  std::list<Option> options_;  ///< a list, because callers hold references
};

/// All sections and keys that a config may have.
class Options {
 public:
  /// The section of this name, made on first use.
  OptionSection& section(const std::string& name, const std::string& help = "");

  /// Stores every setting of the config in its variable. ConfigError, with file and line, for an
  /// unknown section or key (it names the most similar known one), a value of the wrong kind or out
  /// of range, and a required key that is missing.
  void apply(const Config& config);

  const std::list<OptionSection>& sections() const { return sections_; }

  /// The options that are not as by default and have no effect, a text for each reason:
  /// "train.window = 32 has no effect: the data is lines".
  std::vector<std::string> without_effect() const;

  /// Whether the option "section.key" may change when a run is resumed; false for an unknown one.
  bool may_change(const std::string& name) const;

  std::string toml() const;  ///< every option with its value now; applying it changes nothing
  std::string help() const;  ///< every option with its value now, its meaning and its range

 private:
  OptionSection* find(const std::string& name);
  void apply(const Config& config, const Setting& setting);
  [[noreturn]] void refuse(const Setting& setting);
  /// Where a key is: alone in the preferred section, "section.key" in another; empty if nowhere.
  std::string place_of(const std::string& key, const std::string& preferred);
  std::list<OptionSection> sections_;
};

}  // namespace carousel
