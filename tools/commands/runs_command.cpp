#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <nlohmann/json.hpp>
#include <tuple>

#include "kernels/common/check.h"
#include "tools/commands/commands.h"
#include "tools/commands/run_summary.h"
#include "tools/console/json_line.h"
#include "tools/console/progress.h"
#include "tools/console/streams.h"
#include "tools/console/terminal.h"

namespace carousel {
namespace {

using Json = nlohmann::ordered_json;

/// The keys whose values are not those of all runs, in their order in a config.
std::vector<std::string> differing_keys(const std::vector<RunSummary>& runs) {
  std::vector<std::string> keys;
  const auto differs = [&](const std::string& key) {
    const std::string* common = nullptr;
    for (const RunSummary& run : runs) {
      if (run.config.empty()) continue;
      const std::string* const value = run.find(key);
      if (value == nullptr || (common != nullptr && *common != *value)) return true;
      common = value;
    }
    return false;
  };
  for (const RunSummary& run : runs) {
    for (const auto& [key, value] : run.config) {
      if (std::find(keys.begin(), keys.end(), key) == keys.end() && differs(key))
        keys.push_back(key);
    }
  }
  return keys;
}

/// A column: what it is called, what it shows, and what it is sorted by: a number, or a text.
struct RunColumn {
  std::string title, name;  ///< in the table; of --sort, --json and --csv
  int rank = 0;
  std::function<std::string(const RunSummary&)> cell;
  std::function<Json(const RunSummary&)> value;
  std::function<double(const RunSummary&)> number = nullptr;  ///< NaN: none
};

std::string cell_of(const std::string* value) {
  if (value == nullptr) return "-";
  return value->substr(value->rfind('/') + 1);  // of a path, its last part
}

double number_of(const std::string* text) {
  if (text == nullptr) return std::nan("");
  char* end = nullptr;
  const double number = std::strtod(text->c_str(), &end);
  return end == text->c_str() + text->size() && !text->empty() ? number : std::nan("");
}

std::vector<RunColumn> columns_for(const std::vector<RunSummary>& runs) {
  std::vector<RunColumn> columns{{"run", "run", 0, [](const RunSummary& run) { return run.name; },
                                  [](const RunSummary& run) { return Json(run.name); }}};
  const std::vector<std::string> keys = differing_keys(runs);
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const std::string key = keys[i], own = key.substr(key.find('.') + 1);
    const auto same = [&](const std::string& other) { return other.ends_with("." + own); };
    const bool is_unique = std::count_if(keys.begin(), keys.end(), same) == 1;
    columns.push_back({is_unique ? own : key, key, static_cast<int>(i) + 1,
                       [key](const RunSummary& run) { return cell_of(run.find(key)); },
                       [key](const RunSummary& run) {
                         const std::string* const text = run.find(key);
                         if (text == nullptr) return Json();
                         Json value = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
                         return value.is_number() || value.is_boolean() ? value : Json(*text);
                       },
                       [key](const RunSummary& run) { return number_of(run.find(key)); }});
  }
  constexpr int kFirstToGo = 1 << 20;
  const auto of_number = [](std::optional<double> number) { return number.value_or(std::nan("")); };
  columns.push_back({"step", "step", 0,
                     [](const RunSummary& run) {
                       if (run.step == 0) return std::string("-");
                       return run.steps == 0 ? std::to_string(run.step)
                                             : fmt::format("{}/{}", run.step, run.steps);
                     },
                     [](const RunSummary& run) { return Json(run.step); },
                     [](const RunSummary& run) { return static_cast<double>(run.step); }});
  columns.push_back(
      {"best", "best", 0,
       [](const RunSummary& run) {
         if (!run.best) return std::string("-");
         return fmt::format("{} {:.4f}", run.best->metric, run.best->value);
       },
       [](const RunSummary& run) { return run.best ? Json(run.best->value) : Json(); },
       [](const RunSummary& run) { return run.best ? run.best->cost : std::nan(""); }});
  columns.push_back({"tokens/s", "tokens_per_second", kFirstToGo + 1,
                     [](const RunSummary& run) {
                       const auto rate = run.tokens_per_second();
                       return rate ? count_text(*rate) : "-";
                     },
                     [](const RunSummary& run) {
                       const auto rate = run.tokens_per_second();
                       return rate ? Json(*rate) : Json();
                     },
                     [=](const RunSummary& run) { return of_number(run.tokens_per_second()); }});
  columns.push_back(
      {"time", "seconds", kFirstToGo,
       [](const RunSummary& run) { return run.seconds > 0 ? duration_text(run.seconds) : "-"; },
       [](const RunSummary& run) { return Json(run.seconds); },
       [](const RunSummary& run) { return run.seconds; }});
  return columns;
}

void sort(std::vector<RunSummary>& runs, const std::vector<RunColumn>& columns,
          const std::string& by) {
  const auto column = std::find_if(columns.begin(), columns.end(), [&](const RunColumn& candidate) {
    return by == candidate.title || by == candidate.name;
  });
  if (column == columns.end()) {
    std::vector<std::string> titles;
    for (const RunColumn& candidate : columns) titles.push_back(candidate.title);
    throw ConfigError(
        fmt::format("--sort is {}, expected one of: {}", by, fmt::join(titles, ", ")));
  }
  // Numbers before texts, and both before what is missing.
  const auto key = [&](const RunSummary& run) {
    const double number = column->number ? column->number(run) : std::nan("");
    const std::string text = column->cell(run);
    return std::tuple(std::isnan(number) ? (text == "-" ? 2 : 1) : 0,
                      std::isnan(number) ? 0 : number, text);
  };
  std::stable_sort(runs.begin(), runs.end(),
                   [&](const RunSummary& a, const RunSummary& b) { return key(a) < key(b); });
}

std::string table(const std::vector<RunSummary>& runs, const std::vector<RunColumn>& columns) {
  std::vector<TableColumn> shown;
  for (const RunColumn& column : columns) {
    shown.push_back({column.title, static_cast<bool>(column.number), column.rank});
  }
  std::vector<std::vector<std::string>> rows;
  for (const RunSummary& run : runs) {
    std::vector<std::string>& row = rows.emplace_back();
    for (const RunColumn& column : columns) row.push_back(column.cell(run));
    if (!run.remark.empty()) row.push_back(run.remark);
  }
  return table_text(shown, rows, terminal_width(STDOUT_FILENO));
}

/// All that the table has and what it has no room for.
Json json_of(const RunSummary& run, const std::vector<RunColumn>& columns) {
  Json json;
  for (const RunColumn& column : columns) json[column.name] = column.value(run);
  json["steps"] = run.steps == 0 ? Json() : Json(run.steps);  // a fit has no number of them
  json["tokens"] = run.tokens;
  json["best_metric"] = run.best ? Json(run.best->metric) : Json();
  json["best_step"] = run.best ? Json(run.best->step) : Json();
  json["folder"] = run.folder.string();
  json["remark"] = run.remark;
  return json;
}

std::string csv_field(const Json& value) {
  if (value.is_null()) return {};
  if (!value.is_string()) return value.dump();
  std::string text = value.get<std::string>();
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? "\"\"" : std::string(1, c);
  return quoted + "\"";
}

std::string csv(const Json& list) {
  std::vector<std::string> fields;
  for (const auto& [name, value] : list.front().items()) fields.push_back(csv_field(name));
  std::string text = fmt::format("{}\n", fmt::join(fields, ","));
  for (const Json& run : list) {
    fields.clear();
    for (const auto& [name, value] : run.items()) fields.push_back(csv_field(value));
    text += fmt::format("{}\n", fmt::join(fields, ","));
  }
  return text;
}

}  // namespace

int runs_command(const RunsArguments& arguments, const CommonArguments& common) {
  if (common.json && arguments.csv) {
    throw ConfigError("--json and --csv exclude each other: both say how to print");
  }
  std::vector<RunSummary> runs = summaries(arguments.folders);
  const std::vector<RunColumn> columns = columns_for(runs);
  if (!arguments.sort.empty()) sort(runs, columns, arguments.sort);
  if (!common.json && !arguments.csv) {
    write_output(table(runs, columns));
    return 0;
  }
  Json list = Json::array();
  for (const RunSummary& run : runs) list.push_back(json_of(run, columns));
  write_output(common.json ? json_line(list) : csv(list));
  return 0;
}

}  // namespace carousel
