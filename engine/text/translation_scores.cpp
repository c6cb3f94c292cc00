#include "engine/text/translation_scores.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/text/utf8.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

constexpr std::size_t kWordOrders = 4, kCharacterOrders = 6;
constexpr double kBeta = 2;  // recall counts so many times as much as precision

/// A text, and the units that its n-grams are made of: words, characters.
struct Units {
  std::string text;
  std::vector<std::pair<std::size_t, std::size_t>> places;  ///< first byte, and the one after

  void add(std::size_t bytes) {
    places.emplace_back(places.empty() ? 0 : places.back().second, 0);
    places.back().second = places.back().first + bytes;
  }
  std::string_view ngram(std::size_t first, std::size_t order) const {
    const std::size_t begin = places[first].first;
    return std::string_view(text).substr(begin, places[first + order - 1].second - begin);
  }
  std::int64_t count(std::size_t order) const {
    return std::max<std::int64_t>(std::ssize(places) - static_cast<std::int64_t>(order) + 1, 0);
  }
};

/// How many n-grams both have, each as often as the one that has it less often.
std::int64_t matches(const Units& hypothesis, const Units& reference, std::size_t order) {
  std::unordered_map<std::string_view, std::int64_t> left;
  for (std::int64_t i = 0; i < reference.count(order); ++i) {
    ++left[reference.ngram(static_cast<std::size_t>(i), order)];
  }
  std::int64_t found = 0;
  for (std::int64_t i = 0; i < hypothesis.count(order) && !left.empty(); ++i) {
    const auto entry = left.find(hypothesis.ngram(static_cast<std::size_t>(i), order));
    if (entry != left.end() && entry->second-- > 0) ++found;
  }
  return found;
}

/// Counts of one order, over all texts.
struct Counts {
  std::int64_t matches = 0, hypothesis = 0, reference = 0;
};

bool is_blank(char32_t code) { return is_white_space(code) || (code >= 0x1C && code <= 0x1F); }

/// Passes on the code points of a text with their bytes; a byte that is not UTF-8 is one of its own.
template <class Take>
void each_character(std::string_view text, Take&& take) {
  while (!text.empty()) {
    const Utf8Sequence s = utf8_sequence(text);
    take(text.substr(0, s.bytes), s.status == Utf8Sequence::Status::whole ? s.code : 0xFFFD);
    text.remove_prefix(s.bytes);
  }
}

Units characters_of(const std::string& text) {
  Units units;
  each_character(text, [&](std::string_view bytes, char32_t code) {
    if (is_blank(code)) return;
    units.text += bytes;
    units.add(bytes.size());
  });
  return units;
}

Units words_of(const std::string& text) {
  Units units{.text = words_13a(text), .places = {}};
  for (std::size_t begin = 0; begin < units.text.size();) {
    const std::size_t end = std::min(units.text.find(' ', begin), units.text.size());
    units.places.emplace_back(begin, end);
    begin = end + 1;
  }
  return units;
}

void replace_all(std::string& text, std::string_view what, std::string_view by) {
  for (std::size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += by.size()) {
    text.replace(at, what.size(), by);
  }
}

/// Rewrites a text by pairs of bytes, from left to right: where the pair is one of those asked for,
/// it becomes what `write` makes of it, and the next pair begins after it.
template <class Is, class Write>
void rewrite_pairs(std::string& text, Is&& is, Write&& write) {
  std::string result;
  std::size_t i = 0;
  while (i + 1 < text.size()) {
    if (is(text[i], text[i + 1])) {
      write(result, text[i], text[i + 1]);
      i += 2;
    } else {
      result += text[i++];
    }
  }
  result.append(text, i);
  text = std::move(result);
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_point(char c) { return c == '.' || c == ','; }

/// ASCII's punctuation, but for the apostrophe, comma, hyphen and point.
bool stands_alone(char c) {
  const auto is_in = [c](char first, char last) { return c >= first && c <= last; };
  return is_in('{', '~') || is_in('[', '`') || is_in('!', '&') || is_in('(', '+') ||
         is_in(':', '@') || c == '/';
}

void score_bleu(const std::array<Counts, kWordOrders>& counts, TranslationScores& scores) {
  const auto length = static_cast<double>(scores.hypothesis_words);
  const auto wanted = static_cast<double>(scores.reference_words);
  if (length < wanted) scores.brevity_penalty = length > 0 ? std::exp(1 - wanted / length) : 0;
  const bool any = std::any_of(counts.begin(), counts.end(),
                               [](const Counts& order) { return order.matches > 0; });
  if (!any) return;
  double half = 1, logarithms = 0;
  for (std::size_t order = 0; order < kWordOrders; ++order) {
    const Counts& all = counts[order];
    if (all.hypothesis == 0) return;  // a precision of 0, and with it the mean
    double found = static_cast<double>(all.matches);
    if (all.matches == 0) found = half /= 2;
    scores.precisions[order] = 100 * found / static_cast<double>(all.hypothesis);
    logarithms += std::log(scores.precisions[order]);
  }
  scores.bleu = scores.brevity_penalty * std::exp(logarithms / kWordOrders);
}

double chrf_of(const std::array<Counts, kCharacterOrders>& counts) {
  double precision = 0, recall = 0, orders = 0;
  for (const Counts& order : counts) {
    if (order.hypothesis == 0 || order.reference == 0) continue;
    precision += static_cast<double>(order.matches) / static_cast<double>(order.hypothesis);
    recall += static_cast<double>(order.matches) / static_cast<double>(order.reference);
    ++orders;
  }
  if (precision + recall == 0) return 0;
  precision /= orders;
  recall /= orders;
  constexpr double kFactor = kBeta * kBeta;
  return 100 * (1 + kFactor) * precision * recall / (kFactor * precision + recall);
}

}  // namespace

std::string words_13a(std::string text) {
  std::size_t end = 0, at = 0;  // without blanks at the end: a newline there would be a hyphen's
  each_character(text, [&](std::string_view bytes, char32_t code) {
    at += bytes.size();
    if (!is_blank(code)) end = at;
  });
  text.resize(end);
  replace_all(text, "<skipped>", "");
  replace_all(text, "-\n", "");
  replace_all(text, "\n", " ");
  replace_all(text, "&quot;", "\"");
  replace_all(text, "&amp;", "&");
  replace_all(text, "&lt;", "<");
  replace_all(text, "&gt;", ">");
  std::string apart = " ";
  for (const char c : text) apart += stands_alone(c) ? std::string{' ', c, ' '} : std::string(1, c);
  apart += ' ';
  // A point or comma stands alone unless it is between digits.
  rewrite_pairs(
      apart, [](char a, char b) { return !is_digit(a) && is_point(b); },
      [](std::string& to, char a, char b) {
        to += {a, ' ', b, ' '};
      });
  rewrite_pairs(
      apart, [](char a, char b) { return is_point(a) && !is_digit(b); },
      [](std::string& to, char a, char b) {
        to += {' ', a, ' ', b};
      });
  rewrite_pairs(
      apart, [](char a, char b) { return is_digit(a) && b == '-'; },
      [](std::string& to, char a, char b) {
        to += {a, ' ', b, ' '};
      });
  std::string words;
  bool blank = false;
  each_character(apart, [&](std::string_view bytes, char32_t code) {
    if (is_blank(code)) {
      blank = !words.empty();
      return;
    }
    if (std::exchange(blank, false)) words += ' ';
    words += bytes;
  });
  return words;
}

TranslationScores score_translations(std::span<const std::string> hypotheses,
                                     std::span<const std::string> references) {
  if (hypotheses.size() != references.size()) {
    throw ShapeError(fmt::format("translations: {} hypotheses and {} references, expected as many",
                                 hypotheses.size(), references.size()));
  }
  TranslationScores scores;
  std::array<Counts, kWordOrders> of_words{};
  std::array<Counts, kCharacterOrders> of_characters{};
  std::int64_t exact = 0;
  for (std::size_t i = 0; i < hypotheses.size(); ++i) {
    const Units words = words_of(hypotheses[i]), wanted_words = words_of(references[i]);
    const Units characters = characters_of(hypotheses[i]), wanted = characters_of(references[i]);
    scores.hypothesis_words += std::ssize(words.places);
    scores.reference_words += std::ssize(wanted_words.places);
    const auto add = [](Counts& to, const Units& given, const Units& expected, std::size_t order) {
      to.matches += matches(given, expected, order);
      to.hypothesis += given.count(order);
      to.reference += expected.count(order);
    };
    for (std::size_t n = 1; n <= kWordOrders; ++n) add(of_words[n - 1], words, wanted_words, n);
    for (std::size_t n = 1; n <= kCharacterOrders; ++n) {
      // An order that a reference is too short for is not held against its hypothesis.
      if (wanted.count(n) > 0) add(of_characters[n - 1], characters, wanted, n);
    }
    exact += hypotheses[i] == references[i] ? 1 : 0;
  }
  score_bleu(of_words, scores);
  scores.chrf = chrf_of(of_characters);
  if (!hypotheses.empty()) {
    scores.exact_match = static_cast<double>(exact) / static_cast<double>(hypotheses.size());
  }
  return scores;
}

}  // namespace carousel
