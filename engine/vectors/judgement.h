#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/vectors/questions.h"
#include "engine/vectors/word_space.h"

namespace carousel {

/// Spearman's rank correlation: Pearson's, of the ranks, where equal values share the mean of theirs.
/// NaN for fewer than two pairs, and where all values of a side are equal. ShapeError unless both sides
/// have equally many.
double spearman(std::span<const double> a, std::span<const double> b);

/// How cosines order pairs of words, beside how people do.
struct SimilarityJudgement {
  double spearman = 0;                  ///< over the pairs both words of which are known
  std::int64_t pairs = 0, unknown = 0;  ///< all; those with a word that is not
};
SimilarityJudgement judge(const WordSpace& space, std::span<const ScoredPair> pairs);

/// How many questions of a section were answered, and right.
struct AnalogyJudgement {
  std::string section;
  std::int64_t questions = 0, unknown = 0, correct = 0;  ///< unknown: with a word that is not there
  /// Of the questions whose words are known; NaN if there are none.
  double accuracy() const;
};

/// Answers each question with the word nearest to b − a + c, of unit vectors, other than these three
/// (Mikolov, Yih & Zweig 2013, section 3: 3CosAdd). `most_frequent`: only the first so many words are
/// known, and 0 is all. One judgement for each section.
std::vector<AnalogyJudgement> judge(const WordSpace& space,
                                    std::span<const AnalogySection> sections,
                                    std::int64_t most_frequent = 0);

/// The sections added up.
AnalogyJudgement total(std::span<const AnalogyJudgement> sections);

}  // namespace carousel
