#include "engine/text/phrases.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "kernels/common/check.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

using test::error_text;

std::string joined(const std::string& text, const PhraseOptions& options) {
  const Text source = Text::in_memory(text);
  std::string result;
  Phrases(source, options).join(source, [&](std::string_view line) { result += line; });
  return result;
}

// 16 words; "new york" four times of new 5 and york 4, "the new" twice of the 3 and new 5.
constexpr const char* kText =
    "the new york\nnew york is big\n\nnew york new york\nthe new is the big\n";

TEST(Phrases, ScoresByHand) {
  const Phrases phrases(Text::in_memory(kText), {.discount = 1, .threshold = 0});
  EXPECT_EQ(phrases.words(), 16);
  EXPECT_DOUBLE_EQ(phrases.score("new", "york"), (4 - 1) * 16.0 / (5 * 4));
  EXPECT_DOUBLE_EQ(phrases.score("the", "new"), (2 - 1) * 16.0 / (3 * 5));
  EXPECT_EQ(phrases.score("york", "new"), 0);  // once
  EXPECT_EQ(phrases.score("york", "is"), 0);   // once
  EXPECT_EQ(phrases.score("big", "new"), 0);   // over the ends of lines
  EXPECT_EQ(phrases.score("the", "nothing"), 0);
  EXPECT_EQ(phrases.count(), 2);
  // A phrase's score exceeds the threshold.
  EXPECT_EQ(Phrases(Text::in_memory(kText), {.discount = 1, .threshold = 2.39}).count(), 1);
  EXPECT_EQ(Phrases(Text::in_memory(kText), {.discount = 1, .threshold = 2.4}).count(), 0);
  // Without a discount, "is big", "the big", "york is", "new is", "is the" and "york new" too.
  EXPECT_EQ(Phrases(Text::in_memory(kText), {.discount = 0, .threshold = 0}).count(), 8);
}

TEST(Phrases, AreJoinedFromLeftToRightAndLinesStay) {
  EXPECT_EQ(joined(kText, {.discount = 1, .threshold = 2}),
            "the new_york\nnew_york is big\n\nnew_york new_york\nthe new is the big\n");
  // "the new" first, so that york is alone.
  EXPECT_EQ(joined(kText, {.discount = 1, .threshold = 1}),
            "the_new york\nnew_york is big\n\nnew_york new_york\nthe_new is the big\n");
  EXPECT_EQ(joined("a  b\t a b", {.discount = 0, .threshold = 1}), "a_b a_b\n");
}

TEST(Phrases, OfTwoWordsAreWordsOfTheNextReading) {
  const std::string text = "new york times\nold\nnew york times\nold\n";
  const PhraseOptions options{.discount = 1, .threshold = 1};
  const std::string once = joined(text, options);
  EXPECT_EQ(once, "new_york times\nold\nnew_york times\nold\n");
  EXPECT_EQ(joined(once, options), "new_york_times\nold\nnew_york_times\nold\n");
}

TEST(Phrases, SpecialTokensAreInNone) {
  const std::string text = "<unk> <unk> a <unk>\na <unk> <eos> a <eos>\n";
  EXPECT_EQ(joined(text, {.discount = 0, .threshold = 0}), text);
}

TEST(Phrases, RefuseWhatIsNoTextAndNoOption) {
  const auto refusal = [](const std::string& text, const PhraseOptions& options = {}) {
    return error_text<Error>([&] { Phrases(Text::in_memory(text, "t"), options); });
  };
  EXPECT_EQ(refusal("a", {.discount = -1}), "phrases: discount is -1, expected 0 or more");
  EXPECT_EQ(refusal("a", {.threshold = -0.5}), "phrases: threshold is -0.5, expected 0 or more");
  EXPECT_EQ(refusal("a", {.threshold = NAN}), "phrases: threshold is nan, expected 0 or more");
  EXPECT_EQ(refusal(" \n\n"), "t: line 1, byte 0: the text has no words");
  EXPECT_EQ(refusal("a\nb \xFF"),
            "t: line 2, byte 4: not UTF-8; tokens of kind byte take any bytes");
}

}  // namespace
}  // namespace carousel
