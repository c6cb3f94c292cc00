#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>

namespace carousel {

/// How near translations are to references, of which each has one.
struct TranslationScores {
  /// BLEU of the corpus, 0 … 100: brevity_penalty times the geometric mean of the precisions.
  double bleu = 0;
  std::array<double, 4> precisions{};  ///< of 1 to 4 words, in per cent, smoothed
  double brevity_penalty = 1;
  std::int64_t hypothesis_words = 0, reference_words = 0;
  double chrf = 0;         ///< chrF2 of the corpus, 0 … 100
  double exact_match = 0;  ///< share of the hypotheses that are their reference, 0 … 1
};

/// Scores as sacreBLEU 2 computes them when nothing else is asked for. BLEU: case counts, words are
/// cut as mteval-v13a cuts them, and the k-th n-gram order without a match counts as a match of
/// 2⁻ᵏ. chrF: n-grams of 1 to 6 characters without white space, recall counts twice as much as
/// precision, and orders that either side lacks are left out of the mean. White space is what Python
/// takes for it: Unicode's, and U+001C to U+001F.
///
/// Values   BLEU is 0 without a match, and where no hypothesis has four words. All are 0 without
///          hypotheses, but for the brevity penalty, which is 1.
/// Errors   ShapeError unless there are as many references as hypotheses.
/// Source   Papineni, Roukos, Ward & Zhu 2002, "BLEU: a method for automatic evaluation of machine
///          translation", ACL 2002; Chen & Cherry 2014, "A systematic comparison of smoothing
///          techniques for sentence-level BLEU", WMT 2014, method 3; Popović 2015, "chrF: character
///          n-gram F-score for automatic MT evaluation", WMT 2015; Post 2018, "A call for clarity in
///          reporting BLEU scores", WMT 2018.
TranslationScores score_translations(std::span<const std::string> hypotheses,
                                     std::span<const std::string> references);

/// A text cut into words as mteval-v13a cuts it, joined by single blanks.
std::string words_13a(std::string text);

}  // namespace carousel
