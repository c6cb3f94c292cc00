#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>

#include "kernels/common/check.h"
#include "models/registry.h"
#include "tools/commands/commands.h"
#include "tools/console/json_line.h"
#include "tools/console/streams.h"

namespace carousel {
namespace {

std::vector<std::string> abilities(const ModelEntry& entry) {
  std::vector<std::string> all{"train", "eval"};
  if (!entry.fits) all.emplace_back("compare");
  if (entry.decodes) all.emplace_back("generate");
  if (entry.scores) all.emplace_back("score");
  if (entry.embeds) all.emplace_back("embed");
  if (entry.predicts || entry.tracks || entry.translates) all.emplace_back("predict");
  return all;
}

/// The kinds of data that have all columns which the model reads.
std::vector<std::string> data_for(const ModelEntry& entry) {
  std::vector<std::string> kinds;
  for (const DataKind& kind : data_kinds()) {
    const bool has_all = std::all_of(entry.columns.begin(), entry.columns.end(), [&](auto wanted) {
      return std::any_of(kind.columns.begin(), kind.columns.end(),
                         [&](std::string_view column) { return column == wanted; });
    });
    if (has_all) kinds.emplace_back(kind.kind);
  }
  return kinds;
}

using Json = nlohmann::ordered_json;

/// Passes on the options of a kind of model or of data.
template <class Kind, class Visit>
void visit_own(const Kind& kind, const char* section, Visit&& visit) {
  const auto config = kind.config();
  Options options;
  config->describe(options.section(section, kind.description));
  visit(options);
}

Json json_of(const Option& option) {
  const OptionInfo& info = option.info();
  const auto bound = [&](double value) {
    return info.type == "integer" ? Json(static_cast<std::int64_t>(value)) : Json(value);
  };
  Json json{{"key", info.key},
            {"type", info.type},
            // A value in TOML is one in JSON.
            {"default", info.required ? Json() : Json::parse(option.value())},
            {"help", info.help},
            {"expected", info.expected}};
  if (!info.choices.empty()) json["choices"] = info.choices;
  if (info.least) json[info.above_least ? "above" : "least"] = bound(*info.least);
  if (info.most) json[info.below_most ? "below" : "most"] = bound(*info.most);
  json["required"] = info.required;
  json["may_change_on_resume"] = info.may_change;
  return json;
}

Json json_of(const OptionSection& section) {
  Json options = Json::array();
  for (const Option& option : section.options()) options.push_back(json_of(option));
  return options;
}

Json all_as_json() {
  Json all{{"models", Json::array()}, {"data", Json::array()}, {"sections", Json::array()}};
  for (const ModelEntry& entry : model_registry()) {
    Json model{{"kind", entry.kind},
               {"description", entry.description},
               {"commands", abilities(entry)},
               {"data", data_for(entry)}};
    visit_own(entry, "model",
              [&](const Options& own) { model["options"] = json_of(own.sections().front()); });
    all["models"].push_back(std::move(model));
  }
  for (const DataKind& kind : data_kinds()) {
    Json data{{"kind", kind.kind}, {"description", kind.description}};
    visit_own(kind, "data",
              [&](const Options& own) { data["options"] = json_of(own.sections().front()); });
    all["data"].push_back(std::move(data));
  }
  RunConfig::visit_common([&](const Options& common) {
    for (const OptionSection& section : common.sections()) {
      all["sections"].push_back({{"section", section.name()},
                                 {"description", section.help()},
                                 {"options", json_of(section)}});
    }
  });
  return all;
}

}  // namespace

void expect_ability(bool able, const char* command, const ModelEntry& entry) {
  if (able) return;
  throw ConfigError(fmt::format("{}: not for model.kind = {}, expected one of: {}", command,
                                entry.kind, fmt::join(abilities(entry), ", ")));
}

int models_command(const CommonArguments& common) {
  if (common.json) {
    write_output(json_line(all_as_json()));
    return 0;
  }
  std::string text;
  const auto add = [&](const Options& options) { text += options.help() + "\n"; };
  for (const ModelEntry& entry : model_registry()) {
    text += fmt::format("model.kind = \"{}\"; commands: {}; data.kind: {}\n", entry.kind,
                        fmt::join(abilities(entry), ", "), fmt::join(data_for(entry), ", "));
    visit_own(entry, "model", add);
  }
  for (const DataKind& kind : data_kinds()) {
    text += fmt::format("data.kind = \"{}\"\n", kind.kind);
    visit_own(kind, "data", add);
  }
  text += "with every kind\n";
  RunConfig::visit_common([&](const Options& options) { text += options.help(); });
  print(text);
  return 0;
}

}  // namespace carousel
