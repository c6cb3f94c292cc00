#include "engine/text/translation_scores.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "tests/support/files.h"
#include "tests/support/golden.h"

namespace carousel {
namespace {

using Texts = std::vector<std::string>;

// The numbers are sacreBLEU's own: the same sums in another order.
TEST(TranslationScores, AreSacreBleus) {
  const test::Golden golden("translation_scores");
  const auto& cases = golden.options.at("cases");
  EXPECT_GE(cases.size(), 35U);
  for (const auto& c : cases) {
    SCOPED_TRACE(c.at("name").get<std::string>());
    const Texts hypotheses = c.at("hypotheses"), references = c.at("references");
    const TranslationScores scores = score_translations(hypotheses, references);
    EXPECT_NEAR(scores.bleu, c.at("bleu").get<double>(), 1e-9);
    EXPECT_NEAR(scores.chrf, c.at("chrf").get<double>(), 1e-9);
    EXPECT_NEAR(scores.brevity_penalty, c.at("brevity_penalty").get<double>(), 1e-12);
    EXPECT_EQ(scores.hypothesis_words, c.at("hypothesis_words").get<std::int64_t>());
    EXPECT_EQ(scores.reference_words, c.at("reference_words").get<std::int64_t>());
    for (std::size_t order = 0; order < 4; ++order) {
      EXPECT_NEAR(scores.precisions[order], c.at("precisions")[order].get<double>(), 1e-10);
    }
    const Texts words = c.at("words");
    for (std::size_t i = 0; i < words.size(); ++i) EXPECT_EQ(words_13a(hypotheses[i]), words[i]);
  }
}

TEST(TranslationScores, WorkedByHand) {
  // Of "a b c e": 3 of 4 words, 2 of 3 pairs, 1 of 2 triples; no four in a row, of one: a half.
  const Texts hypothesis{"a b c e"}, reference{"a b c d"};
  const TranslationScores scores = score_translations(hypothesis, reference);
  EXPECT_NEAR(scores.bleu, 100 * std::pow(3.0 / 4 * 2 / 3 * 1 / 2 * 1 / 2, 0.25), 1e-9);
  // Of the orders 1 to 4, there is no fifth: 3 of 4, 2 of 3, 1 of 2, 0 of 1 characters.
  EXPECT_NEAR(scores.chrf, 100 * (3.0 / 4 + 2.0 / 3 + 1.0 / 2) / 4, 1e-9);
  EXPECT_EQ(scores.exact_match, 0);
}

TEST(TranslationScores, ExactMatchIsOfWholeTexts) {
  const Texts hypotheses{"Va !", "va !", "", "Va !"}, references{"Va !", "Va !", "", "Va ! "};
  EXPECT_EQ(score_translations(hypotheses, references).exact_match, 0.5);
}

TEST(TranslationScores, WithoutTextsThereIsNothing) {
  const TranslationScores none = score_translations({}, {});
  EXPECT_EQ(none.bleu, 0);
  EXPECT_EQ(none.chrf, 0);
  EXPECT_EQ(none.exact_match, 0);
  EXPECT_EQ(none.brevity_penalty, 1);
  const Texts one{"a"};
  EXPECT_EQ(test::error_text<ShapeError>([&] { score_translations(one, {}); }),
            "translations: 1 hypotheses and 0 references, expected as many");
}

// A score may not depend on the order of the texts, nor fail on bytes that are no text.
TEST(TranslationScores, AnyBytesHaveAScore) {
  Texts texts;
  for (int i = 0; i < 256; ++i) {
    texts.push_back(std::string("a") + static_cast<char>(i) + "b, c" + static_cast<char>(255 - i));
  }
  const TranslationScores same = score_translations(texts, texts);
  EXPECT_NEAR(same.chrf, 100, 1e-9);
  EXPECT_EQ(same.exact_match, 1);
  const Texts backward(texts.rbegin(), texts.rend());
  const TranslationScores other = score_translations(backward, texts);
  EXPECT_EQ(other.bleu, score_translations(texts, backward).bleu);
  EXPECT_LT(other.bleu, same.bleu);
}

}  // namespace
}  // namespace carousel
