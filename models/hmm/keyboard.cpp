#include "models/hmm/keyboard.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

#include "models/hmm/text_pieces.h"

namespace carousel {
namespace {

/// A row of keys: where its first one is, in widths of a key, and what is typed without and with shift.
struct KeyRow {
  double first;
  std::array<std::string_view, 2> typed;
};

constexpr std::array<KeyRow, 3> kRows{{{0.0, {"qwertyuiop[]\\", "QWERTYUIOP{}|"}},
                                       {0.25, {"asdfghjkl;'", "ASDFGHJKL:\""}},
                                       {0.75, {"zxcvbnm,./", "ZXCVBNM<>?"}}}};

}  // namespace

std::string neighbouring_keys(char character) {
  std::string found;
  for (std::size_t row = 0; row < kRows.size(); ++row) {
    for (std::size_t shift = 0; shift < 2; ++shift) {
      const std::size_t key = kRows[row].typed[shift].find(character);
      if (key == std::string_view::npos) continue;
      const double at = kRows[row].first + static_cast<double>(key);
      for (std::size_t other = row - (row > 0 ? 1 : 0); other < row + 2 && other < kRows.size();
           ++other) {
        for (std::size_t i = 0; i < kRows[other].typed[shift].size(); ++i) {
          const double distance = std::abs(kRows[other].first + static_cast<double>(i) - at);
          const bool touches = other == row ? distance == 1 : distance < 1;
          if (touches) found += kRows[other].typed[shift][i];
        }
      }
    }
  }
  return found;
}

std::vector<std::int64_t> count_bigrams(const TokenRange& tokens, std::int64_t vocabulary) {
  std::vector<std::int64_t> counts(static_cast<std::size_t>(vocabulary * vocabulary));
  std::int64_t last = -1;
  each_piece(tokens, [&](std::int64_t, std::span<const std::int32_t> piece) {
    for (const std::int32_t token : piece) {
      if (last >= 0) ++counts[static_cast<std::size_t>(last * vocabulary + token)];
      last = token;
    }
  });
  return counts;
}

/// The tokens that are typed by mistake, each as likely.
std::vector<std::int64_t> Typist::slips_for(std::int64_t token) const {
  std::vector<std::int64_t> slips;
  const std::string& text = texts[static_cast<std::size_t>(token)];
  if (text.size() != 1) return slips;
  for (const char key : neighbouring_keys(text.front())) {
    const auto found = std::find(texts.begin(), texts.end(), std::string(1, key));
    if (found != texts.end()) {
      slips.push_back(found - texts.begin());
    } else if (unknown >= 0) {
      slips.push_back(unknown);
    }
  }
  return slips;
}

HmmTables Typist::tables(std::span<const std::int64_t> starts,
                         std::span<const std::int64_t> bigrams) const {
  const auto count = std::ssize(texts);
  const std::int64_t other = never == 0 ? 1 : 0;  // of what is never meant, so that it has a row
  HmmTables result(count, count);
  const auto fill = [&](std::span<const std::int64_t> counts, std::span<double> to) {
    double sum = 0;
    for (std::int64_t j = 0; j < count; ++j) {
      const auto place = static_cast<std::size_t>(j);
      if (j != never) to[place] = static_cast<double>(counts[place]) + smoothing;
      sum += to[place];
    }
    if (!(sum > 0)) sum = to[static_cast<std::size_t>(other)] = 1;
    for (double& value : to) value /= sum;
  };
  fill(starts, result.start);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto state = static_cast<std::size_t>(i);
    fill(bigrams.subspan(state * texts.size(), texts.size()), result.transition_from(i));
    const std::vector<std::int64_t> slips = slips_for(i);
    for (const std::int64_t x : slips) {
      result.emission_of(x)[state] += typo_probability / static_cast<double>(slips.size());
    }
    result.emission_of(i == never ? other : i)[state] = slips.empty() ? 1 : 1 - typo_probability;
  }
  return result;
}

}  // namespace carousel
