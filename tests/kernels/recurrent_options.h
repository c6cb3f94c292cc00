#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/kernels/recurrent_sequence_problem.h"
#include "tests/support/covering.h"

namespace carousel::test {

/// One option of a recurrent layer, by itself.
struct RecurrentOption {
  std::string name;
  bool (*legal)(const CellInfo& cell);
  void (*apply)(RecurrentParts& parts);
};

/// "evaluation" takes the place of training in whatever else is on.
inline const std::vector<RecurrentOption>& recurrent_options() {
  using Parts = RecurrentParts;
  static const auto any = [](const CellInfo&) { return true; };
  static const auto multiplies = [](const CellInfo& c) { return c.multiplies; };
  static const auto has_memory = [](const CellInfo& c) { return c.gates_memory; };
  static const std::vector<RecurrentOption> table{
      {"reverse", any, [](Parts& p) { p.reverse = true; }},
      {"start", any, [](Parts& p) { p.start = true; }},
      {"carried", any, [](Parts& p) { p.carried = true; }},
      {"ranges", any, [](Parts& p) { p.ranges = true; }},
      {"projection", [](const CellInfo& c) { return c.multiplies && !c.reads_h; },
       [](Parts& p) { p.projection = true; }},
      {"heads", [](const CellInfo& c) { return c.multiplies && c.phases == 1; },
       [](Parts& p) { p.heads = true; }},
      {"gain", [](const CellInfo& c) { return c.multiplies && c.gates_of(0) == c.gates; },
       [](Parts& p) { p.gain = true; }},
      {"zoneout_h", any, [](Parts& p) { p.options.zoneout_h = 0.3F; }},
      {"zoneout_c", has_memory, [](Parts& p) { p.options.zoneout_c = 0.4F; }},
      {"recurrent_dropout", [](const CellInfo& c) { return c.candidate; },
       [](Parts& p) { p.options.recurrent_dropout = 0.25F; }},
      {"variational", multiplies, [](Parts& p) { p.options.variational = 0.25F; }},
      {"cell_clip", has_memory, [](Parts& p) { p.options.cell_clip = 1; }},
      {"gradient_clip", any, [](Parts& p) { p.options.gradient_clip = 0.05F; }},
      {"evaluation", any, [](Parts& p) { p.options.training = false; }},
  };
  return table;
}

inline std::size_t option(const std::string& name) {
  const auto& table = recurrent_options();
  for (std::size_t i = 0; i < table.size(); ++i) {
    if (table[i].name == name) return i;
  }
  return table.size();
}
inline OptionSet options_of(const std::vector<std::string>& names) {
  OptionSet set;
  for (const std::string& name : names) set.insert(option(name));
  return set;
}
inline bool has(const OptionSet& set, const std::string& name) { return set.count(option(name)); }

inline std::string option_names(const OptionSet& set) {
  std::string all;
  for (const std::size_t i : set) all += (all.empty() ? "" : " + ") + recurrent_options()[i].name;
  return all.empty() ? "plain" : all;
}
inline RecurrentParts parts_of(const OptionSet& set) {
  RecurrentParts parts;
  parts.options.training = true;
  for (const std::size_t i : set) recurrent_options()[i].apply(parts);
  return parts;
}
/// Heads and zoneout of h need as many units of h as of the cell.
inline bool legal(CellKind cell, const OptionSet& set) {
  for (const std::size_t i : set) {
    if (!recurrent_options()[i].legal(*cell)) return false;
  }
  return !has(set, "projection") || (!has(set, "heads") && !has(set, "zoneout_h"));
}

/// None, each option alone, and the regularizers in evaluation: those that the cell has.
inline std::vector<OptionSet> single_options(CellKind cell) {
  std::vector<OptionSet> sets{{}};
  for (std::size_t i = 0; i < recurrent_options().size(); ++i) sets.push_back({i});
  sets.push_back(options_of({"zoneout_h", "evaluation"}));
  sets.push_back(options_of({"zoneout_c", "evaluation"}));
  sets.push_back(options_of({"carried", "start"}));
  sets.push_back(options_of({"reverse", "ranges", "carried", "start"}));
  std::erase_if(sets, [&](const OptionSet& set) { return !legal(cell, set); });
  return sets;
}

/// A covering array of the cell's options.
inline std::vector<OptionSet> covering_options(CellKind cell) {
  return covering_sets(recurrent_options().size(),
                       [&](const OptionSet& set) { return legal(cell, set); });
}

}  // namespace carousel::test
