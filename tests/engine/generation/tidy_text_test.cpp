#include "engine/generation/tidy_text.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace carousel {
namespace {

std::string tidied(std::string_view text) {
  TidyText tidy;
  const std::string shown = tidy.next(text);
  return shown + tidy.finish();
}

const std::vector<std::pair<std::string, std::string>> kTexts{
    {"", ""},
    {"the end .", "The end."},
    {"he came , saw ; and went : yes ! no ? \u2026 well",
     "He came, saw; and went: yes! No?\u2026 Well"},
    {"he said . ( then he left . ) she stayed .", "He said. (Then he left.) She stayed."},
    {"a list [ of 90 % ] or { so }", "A list [of 90%] or {so}"},
    {"\u201c is it ? \u201d she asked", "\u201cIs it?\u201d She asked"},
    {"it 's what they 've said and do n't", "It's what they've said and don't"},
    {"it \u2019s theirs , isn \u2019t it", "It\u2019s theirs, isn\u2019t it"},
    {"10 @,@ 000 well @-@ known 3 @.@ 5", "10,000 well-known 3.5"},
    {"he said \" no . \" then", "He said \" no. \" Then"},
    {"a . 5 of .5 , 3 . four", "A. 5 of .5, 3. Four"},
    {"no . <unk> was . the <unk> .", "No. <unk> was. The <unk>."},
    {"= title =\nthe line\n. next", "= Title =\nThe line\n. Next"},
    {"\u00e9t\u00e9 . \u00f1 . \u4e16 ok", "\u00c9t\u00e9. \u00d1. \u4e16 ok"},
    {"end . \"why ?\" 'so", "End. \"Why ?\" 'So"},
    {"two  blanks , stay  .", "Two  blanks, stay  ."}};

TEST(TidyText, BlanksAndCapitalsWorkedByHand) {
  for (const auto& [text, want] : kTexts) EXPECT_EQ(tidied(text), want);
}

TEST(TidyText, PiecesOfAnySizeGiveTheSame) {
  for (const auto& [text, want] : kTexts) {
    for (const std::size_t size : {1U, 2U, 3U, 7U}) {
      TidyText tidy;
      std::string shown;
      for (std::size_t at = 0; at < text.size(); at += size) {
        shown += tidy.next(std::string_view(text).substr(at, size));
      }
      EXPECT_EQ(shown + tidy.finish(), want) << size;
    }
  }
}

TEST(TidyText, AWordIsShownWhenTheNextBegins) {
  TidyText tidy;
  EXPECT_EQ(tidy.next("the"), "");
  EXPECT_EQ(tidy.next(" ship"), "The");
  EXPECT_EQ(tidy.next(" ."), " ship");
  EXPECT_EQ(tidy.next(" it"), ".");
  EXPECT_EQ(tidy.finish(), " It");
  EXPECT_EQ(tidy.finish(), "");
  // It goes on where it was.
  EXPECT_EQ(tidy.next(" sails "), " sails");
  EXPECT_EQ(tidy.finish(), " ");
}

TEST(TidyText, GoesOnBehindAPrompt) {
  const auto after = [](const std::string& prompt, const std::string& text) {
    TidyText tidy;
    tidy.read(prompt);
    const std::string shown = tidy.next(text);
    return shown + tidy.finish();
  };
  EXPECT_EQ(after("In the", " end , it"), " end, it");
  EXPECT_EQ(after("In the end", " . it"), ". It");
  EXPECT_EQ(after("In the end .", " it was"), " It was");
  EXPECT_EQ(after("In the ( ", "end )"), "end)");
  EXPECT_EQ(after("", "it"), "It");
}

}  // namespace
}  // namespace carousel
