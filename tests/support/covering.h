#pragma once

#include <algorithm>
#include <cstddef>
#include <functional>
#include <set>
#include <utility>
#include <vector>

namespace carousel::test {

/// Options that are on together, by their place in a table.
using OptionSet = std::set<std::size_t>;

/// A covering array of `count` options: sets in which every pair of options that may be on together
/// is, as is each with the other off, and both off. One set after the other, greedily, each starting
/// with a pair that is still missing.
inline std::vector<OptionSet> covering_sets(std::size_t count,
                                            const std::function<bool(const OptionSet&)>& legal) {
  std::vector<std::size_t> all;
  for (std::size_t i = 0; i < count; ++i) {
    if (legal({i})) all.push_back(i);
  }
  using Setting = std::pair<std::size_t, bool>;
  std::set<std::pair<Setting, Setting>> missing;
  for (const std::size_t a : all) {
    for (const std::size_t b : all) {
      for (const int values : {0, 1, 2, 3}) {
        const bool both = values == 3;
        if (a < b && (!both || legal({a, b}))) {
          missing.insert({{a, (values & 1) != 0}, {b, (values & 2) != 0}});
        }
      }
    }
  }
  std::vector<OptionSet> sets;
  while (!missing.empty()) {
    std::vector<Setting> row{missing.begin()->first, missing.begin()->second};
    const auto gained = [&](const Setting& next) {
      std::size_t pairs = 0;
      for (const Setting& s : row) pairs += missing.count({std::min(s, next), std::max(s, next)});
      return pairs;
    };
    const auto chosen = [&] {
      OptionSet set;
      for (const auto& [i, on] : row) {
        if (on) set.insert(i);
      }
      return set;
    };
    for (const std::size_t i : all) {
      if (i == row[0].first || i == row[1].first) continue;
      OptionSet with = chosen();
      with.insert(i);
      row.emplace_back(i, legal(with) && gained({i, true}) >= gained({i, false}));
    }
    for (const Setting& a : row) {
      for (const Setting& b : row) missing.erase({std::min(a, b), std::max(a, b)});
    }
    sets.push_back(chosen());
  }
  return sets;
}

}  // namespace carousel::test
