#include "engine/vectors/word_space.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "engine/vectors/judgement.h"
#include "engine/vectors/word_map.h"
#include "kernels/common/check.h"
#include "tests/support/device.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

using test::error_text;
using test::TemporaryFolder;

/// Words of a file, which exists as long as that is.
struct Space {
  explicit Space(const std::string& content, WordSpace::Case letters = WordSpace::Case::told_apart,
                 const Device& device = Cpu{})
      : file(VectorFile::open(folder.write("a.vec", content))), space(*file, device, letters) {}
  TemporaryFolder folder;
  std::unique_ptr<VectorFile> file;
  WordSpace space;
};

/// Royalty across, sex upwards, and a word that lies elsewhere.
constexpr const char* kRoyals =
    "6 3\nman 1 2 0\nwoman 1 -2 0\nking 6 4 0\nqueen 6 -4 0\nzero 0 0 0\nsea 0 0 7\n";

std::vector<std::string> words_of(const WordSpace& space, const std::vector<Neighbour>& found) {
  std::vector<std::string> words;
  for (const Neighbour& one : found) words.push_back(space.word(one.word));
  return words;
}

class WordSpaceOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, WordSpaceOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

TEST_P(WordSpaceOn, NeighboursAreThoseOfLargestCosine) {  // worked by hand
  const Space royals(kRoyals, WordSpace::Case::told_apart, GetParam());
  const WordSpace& space = royals.space;
  const std::vector<WordQuery> queries{{.plus = {0}}, {.plus = {5}}};
  const auto found = space.nearest(queries, 4);
  // man·king = (6 + 8) / (√5 √52), man·queen = (6 − 8) / …, man·woman = (1 − 4) / 5.
  ASSERT_EQ(words_of(space, found[0]), (std::vector<std::string>{"king", "zero", "sea", "queen"}));
  EXPECT_NEAR(found[0][0].cosine, 14 / std::sqrt(5.0 * 52), 1e-6);
  EXPECT_NEAR(found[0][3].cosine, -2 / std::sqrt(5.0 * 52), 1e-6);
  EXPECT_EQ(words_of(space, found[1]), (std::vector<std::string>{"man", "woman", "king", "queen"}));
  EXPECT_EQ(words_of(space, space.nearest(queries, 4, 2)[0]), (std::vector<std::string>{"woman"}));
  EXPECT_NEAR(space.cosine(0, 1), -0.6, 1e-7);
  EXPECT_EQ(space.cosine(4, 1), 0);
}

TEST_P(WordSpaceOn, AnAnalogyIsASumOfUnitVectors) {  // worked by hand
  const Space royals(kRoyals, WordSpace::Case::told_apart, GetParam());
  // woman − man + king, of lengths √5, √5 and √52, is (6/√52, 4/√52 − 4/√5, 0).
  const std::vector<WordQuery> query{{.plus = {1, 2}, .minus = {0}}};
  const auto found = royals.space.nearest(query, 1)[0];
  EXPECT_EQ(words_of(royals.space, found), (std::vector<std::string>{"queen"}));
  const double x = 6 / std::sqrt(52.0), y = 4 / std::sqrt(52.0) - 4 / std::sqrt(5.0);
  EXPECT_NEAR(found[0].cosine, (6 * x - 4 * y) / std::sqrt(52 * (x * x + y * y)), 1e-6);
}

TEST(WordSpace, FindsWordsWithTheirCaseOrWithout) {
  const std::string content = "3 1\nThe 1\nthe 2\n\u00c9t\u00e9 3\n";
  const Space exact(content), folded(content, WordSpace::Case::ignored);
  EXPECT_EQ(exact.space.find("the"), 1);
  EXPECT_EQ(exact.space.find("THE"), -1);
  EXPECT_EQ(folded.space.find("the"), 0);  // the first
  EXPECT_EQ(folded.space.find("tHE"), 0);
  EXPECT_EQ(folded.space.find("\u00e9T\u00c9"), 2);
  EXPECT_EQ(folded.space.find("then"), -1);
}

TEST(Spearman, WorkedByHand) {
  const std::vector<double> rising{1, 2, 3, 4}, falling{9, 7, 5, 0.5};
  EXPECT_DOUBLE_EQ(spearman(rising, {rising}), 1);
  EXPECT_DOUBLE_EQ(spearman(rising, {falling}), -1);
  // Ranks 0 1 2 3 and 1 0 3 2: 1 − 6·4 / (4·15).
  EXPECT_DOUBLE_EQ(spearman(rising, std::vector<double>{20, 10, 40, 30}), 0.6);
  // Equals share the mean of their ranks, 1.5 3.5 1.5 3.5 5 against 1 … 5. Deviations are
  // −1.5 .5 −1.5 .5 2 and −2 −1 0 1 2: Σ = 7, the squares 9 and 10.
  EXPECT_DOUBLE_EQ(spearman(std::vector<double>{7, 8, 7, 8, 9}, std::vector<double>{1, 2, 3, 4, 5}),
                   7 / std::sqrt(90.0));
  EXPECT_TRUE(std::isnan(spearman({}, {})));
  EXPECT_TRUE(std::isnan(spearman(std::vector<double>{1}, std::vector<double>{2})));
  EXPECT_TRUE(std::isnan(spearman(std::vector<double>{1, 1}, std::vector<double>{2, 3})));
  EXPECT_THROW(spearman(rising, std::vector<double>{1}), ShapeError);
}

TEST(Similarity, CountsPairsWithUnknownWords) {
  const Space royals(kRoyals);
  const std::vector<ScoredPair> pairs{{"man", "king", 9},
                                      {"man", "woman", 1},
                                      {"man", "boat", 4},
                                      {"ship", "boat", 4},
                                      {"man", "sea", 5}};
  const SimilarityJudgement result = judge(royals.space, pairs);
  EXPECT_EQ(result.pairs, 5);
  EXPECT_EQ(result.unknown, 2);
  EXPECT_DOUBLE_EQ(result.spearman, 1);
}

TEST(Similarity, ReadsTabsCommasAndBlanks) {
  const TemporaryFolder folder;
  for (const char* content :
       {"Word 1,Word 2,Human (Mean)\ntiger,cat,7.35\nbook,paper,7.46\n",
        "\xEF\xBB\xBF# WordSim\nWord 1\tWord "
        "2\tHuman\r\ntiger\tcat\t7.35\r\n\r\nbook\tpaper\t7.46\r\n",
        "tiger  cat 7.35\n  book\tpaper  7.46", "tiger cat 7.35\nbook paper 7.46\n"}) {
    const std::string path = folder.write("a.csv", content);
    if (std::string(content).find("book\tpaper  ") != std::string::npos) {
      // A tab makes two fields of it.
      EXPECT_THROW(read_scored_pairs(path), FormatError);
      continue;
    }
    const std::vector<ScoredPair> pairs = read_scored_pairs(path);
    ASSERT_EQ(pairs.size(), 2) << content;
    EXPECT_EQ(pairs[0].a + pairs[0].b + pairs[1].a + pairs[1].b, "tigercatbookpaper");
    EXPECT_DOUBLE_EQ(pairs[0].score, 7.35);
    EXPECT_DOUBLE_EQ(pairs[1].score, 7.46);
  }
}

TEST(Similarity, BadLinesAreRefused) {
  const TemporaryFolder folder;
  const auto said = [&](const std::string& content) {
    const std::string path = folder.write("a.tsv", content);
    const std::string text = error_text<FormatError>([&] { read_scored_pairs(path); });
    EXPECT_TRUE(text.starts_with(path + ": ")) << text;
    return text.substr(std::min(text.size(), path.size() + 2));
  };
  EXPECT_EQ(said("a b 1\na b\n"), "line 2: 'a b', expected two words and a number");
  EXPECT_EQ(said("a,b,1\na,,1\n"), "line 2: 'a,,1', expected two words and a number");
  EXPECT_EQ(said("a b 1\na b 1 2\n"), "line 2: 'a b 1 2', expected two words and a number");
  EXPECT_EQ(said("a b 1\nc d x\n"), "line 2: 'x' is not a finite number");
  EXPECT_EQ(said("a b c\nc d nan\n"), "line 2: 'nan' is not a finite number");
  EXPECT_EQ(said("a b 1\nc \xff 1\n"), "line 2: not UTF-8");
  EXPECT_EQ(said("word1 word2 score\n"), "there are no pairs of words");
  EXPECT_EQ(said(""), "there are no pairs of words");
}

TEST(Analogies, AreCountedBySection) {
  const Space royals(kRoyals);
  const TemporaryFolder folder;
  const auto sections = read_analogies(
      folder.write("q.txt",
                   ": family\nman woman king queen\nwoman man queen king\nman woman king boat\n"
                   ": wrong\nman woman king sea\n\n: unknown\nboat ship a b\n: empty\n"));
  const auto judged = judge(royals.space, sections);
  ASSERT_EQ(judged.size(), 4);
  EXPECT_EQ(judged[0].section, "family");
  const auto counts = [](const AnalogyJudgement& one) {
    return std::vector<std::int64_t>{one.questions, one.unknown, one.correct};
  };
  EXPECT_EQ(counts(judged[0]), (std::vector<std::int64_t>{3, 1, 2}));
  EXPECT_EQ(counts(judged[1]), (std::vector<std::int64_t>{1, 0, 0}));
  EXPECT_EQ(counts(judged[2]), (std::vector<std::int64_t>{1, 1, 0}));
  EXPECT_EQ(counts(judged[3]), (std::vector<std::int64_t>{0, 0, 0}));
  EXPECT_EQ(judged[0].accuracy(), 1);
  EXPECT_TRUE(std::isnan(judged[2].accuracy()));
  EXPECT_EQ(counts(total(judged)), (std::vector<std::int64_t>{5, 2, 2}));
  // Among the first three words, queen is not known.
  EXPECT_EQ(counts(total(judge(royals.space, sections, 3))), (std::vector<std::int64_t>{5, 5, 0}));
  EXPECT_EQ(counts(total(judge(royals.space, sections, 4))), (std::vector<std::int64_t>{5, 3, 2}));
}

TEST(Analogies, BadLinesAreRefused) {
  const TemporaryFolder folder;
  const auto said = [&](const std::string& content) {
    const std::string path = folder.write("q.txt", content);
    const std::string text = error_text<FormatError>([&] { read_analogies(path); });
    return text.substr(std::min(text.size(), path.size() + 2));
  };
  EXPECT_EQ(said(": a\na b c d\na b c\n"), "line 3: 3 words, expected 4, or ': section'");
  EXPECT_EQ(said("a b c d\n"), "line 1: a question before the first ': section'");
  EXPECT_EQ(said(": a\n: b\n"), "there are no questions");
}

WordMap map_of(const std::vector<std::vector<float>>& rows) {
  const std::vector<std::span<const float>> spans(rows.begin(), rows.end());
  return principal_components(spans);
}

TEST(WordMap, PrincipalComponentsWorkedByHand) {
  // A cross in the plane of the second and third number, around (5, 1, 2): 4 along the third, 2 along
  // the second. Variances are 32 and 8.
  const WordMap map = map_of({{5, 1, 6}, {5, 1, -2}, {5, 3, 2}, {5, -1, 2}});
  const double want[4][2] = {{4, 0}, {-4, 0}, {0, 2}, {0, -2}};
  for (std::size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(map.points[i][0], want[i][0], 1e-12) << i;
    EXPECT_NEAR(map.points[i][1], want[i][1], 1e-12) << i;
  }
  EXPECT_NEAR(map.share[0], 0.8, 1e-12);
  EXPECT_NEAR(map.share[1], 0.2, 1e-12);
  // On a line: the second axis has nothing. The mean is (2, 2).
  const WordMap line = map_of({{0, 0}, {1, 1}, {5, 5}});
  EXPECT_NEAR(line.points[0][0], -2 * std::sqrt(2.0), 1e-12);
  EXPECT_NEAR(line.points[1][0], -std::sqrt(2.0), 1e-12);
  EXPECT_NEAR(line.points[2][0], 3 * std::sqrt(2.0), 1e-12);
  for (const auto& point : line.points) EXPECT_NEAR(point[1], 0, 1e-6);
  EXPECT_NEAR(line.share[0], 1, 1e-12);
}

TEST(WordMap, APlaneIsKeptAndPointsInOnePlaceAreTheMean) {
  // Turned into 20 dimensions, a plane keeps the distances of its points.
  std::vector<std::array<double, 2>> plane;
  std::vector<std::vector<float>> rows;
  for (int i = 0; i < 30; ++i) {
    const auto [x, y] = plane.emplace_back(std::array{std::sin(i * 1.7) * 3, std::cos(i * 0.9)});
    std::vector<float>& row = rows.emplace_back();
    for (int e = 0; e < 20; ++e) {
      const double angle = 2 * 3.141592653589793 * e / 20;
      row.push_back(
          static_cast<float>((x * std::cos(angle) + y * std::sin(angle)) / std::sqrt(10)));
    }
  }
  const WordMap map = map_of(rows);
  const auto distance = [](const std::array<double, 2>& a, const std::array<double, 2>& b) {
    return std::hypot(a[0] - b[0], a[1] - b[1]);
  };
  for (std::size_t i = 0; i < 30; ++i) {
    for (std::size_t j = 0; j < 30; ++j) {
      EXPECT_NEAR(distance(map.points[i], map.points[j]), distance(plane[i], plane[j]), 1e-5);
    }
  }
  EXPECT_NEAR(map.share[0] + map.share[1], 1, 1e-6);
  EXPECT_GE(map.share[0], map.share[1]);
  for (const auto& point : map_of({{1, 2}, {1, 2}, {1, 2}}).points) {
    EXPECT_EQ(point, (std::array<double, 2>{0, 0}));
  }
}

TEST(WordMap, TheImageHasAllWordsWithinIt) {
  const WordMap map{.points = {{3, 0}, {-1, 5}, {0, 0}}, .share = {0.5, 0.25}};
  const std::vector<std::string> words{"a<b", "R&D", "\n"};
  const std::string text = svg(map, words);
  EXPECT_TRUE(text.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\"")) << text;
  for (const char* part :
       {">a&lt;b</text>", ">R&amp;D</text>", ">\\n</text>", "50.0 %", "25.0 %"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part;
  }
  // 240 pixels of 300 are the farthest, which is 5 upwards.
  EXPECT_NE(text.find("cx=\"352.0\" cy=\"60.0\""), std::string::npos) << text;
  EXPECT_NE(text.find("cx=\"544.0\" cy=\"300.0\""), std::string::npos) << text;
}

}  // namespace
}  // namespace carousel
