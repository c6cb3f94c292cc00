// Beam search over a translator of which every probability is known, so that all texts can be
// enumerated.
#include "engine/generation/beam_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "tests/support/device.h"
#include "tests/support/files.h"
#include "tests/support/hash_translator.h"

namespace carousel {
namespace {

using Ids = std::vector<std::int32_t>;
using test::HashTranslator;

constexpr std::int32_t kBegin = 0, kEnd = 1;

std::vector<std::vector<Hypothesis>> search(HashTranslator& translator, const Device& device,
                                            const std::vector<Ids>& sources,
                                            const BeamOptions& options) {
  BeamSearch search(translator, device, {.begin = kBegin, .end = kEnd}, options);
  return search.search(sources);
}

/// Every text there is for a source, with its score by the formulas of the paper.
class Enumeration {
 public:
  Enumeration(const HashTranslator& translator, Ids source, const BeamOptions& options,
              std::size_t longest)
      : translator_(translator), source_(std::move(source)), options_(options), longest_(longest) {
    go_on({.tokens = {}});
    std::stable_sort(all.begin(), all.end(), [](const Hypothesis& a, const Hypothesis& b) {
      return a.ended != b.ended ? a.ended : a.score > b.score;
    });
  }
  std::vector<Hypothesis> all;

 private:
  void go_on(const Hypothesis& text) {
    Ids read{kBegin};
    read.insert(read.end(), text.tokens.begin(), text.tokens.end());
    const std::vector<float> logits = translator_.logits(source_, read),
                             weights = translator_.alignment(source_, read);
    double sum = 0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
    for (std::int32_t v = 0; v < std::ssize(logits); ++v) {
      Hypothesis longer = text;
      longer.tokens.push_back(v);
      longer.alignment.insert(longer.alignment.end(), weights.begin(), weights.end());
      longer.log_probability +=
          static_cast<double>(logits[static_cast<std::size_t>(v)]) - std::log(sum);
      longer.ended = v == kEnd;
      if (longer.ended || longer.tokens.size() == longest_) {
        judge(longer);
        all.push_back(longer);
      } else {
        go_on(longer);
      }
    }
  }
  void judge(Hypothesis& text) const {
    const double length =
        std::pow(5 + static_cast<double>(text.tokens.size()), options_.length_penalty) /
        std::pow(5 + 1, options_.length_penalty);
    double coverage = 0;
    for (std::size_t i = 0; i < source_.size(); ++i) {
      double attended = 0;
      for (std::size_t j = 0; j < text.tokens.size(); ++j) {
        attended += static_cast<double>(text.alignment[j * source_.size() + i]);
      }
      coverage += std::log(std::min(attended, 1.0));
    }
    text.score = text.log_probability / length + options_.coverage_penalty * coverage;
  }

  const HashTranslator& translator_;
  Ids source_;
  BeamOptions options_;
  std::size_t longest_;
};

class BeamSearchOn : public testing::TestWithParam<Device> {
 protected:
  const Device device = GetParam();
};
INSTANTIATE_TEST_SUITE_P(Devices, BeamSearchOn, testing::ValuesIn(test::devices()),
                         [](const auto& each) { return test::device_name(each.param); });

// Of a vocabulary of 4, at most 3² texts of 2 tokens have not ended, and go on in 36 ways at the last
// step: with a beam of 36 none is lost.
TEST_P(BeamSearchOn, AWideBeamFindsWhatEnumerationFinds) {
  std::vector<Ids> sources{{3, 2, 1}, {2, 1}, {3, 3, 2, 3, 1}, {1}};
  const std::vector<std::size_t> longest{2, 2, 3, 1};
  for (const auto& [alpha, beta] :
       std::vector<std::pair<double, double>>{{0, 0}, {0.6, 0.4}, {3, 1}}) {
    HashTranslator translator(device, {.seed = 5});
    const BeamOptions options{.beam = 36,
                              .best = 20,
                              .length_penalty = alpha,
                              .coverage_penalty = beta,
                              .longest_factor = 0.5,
                              .longest_constant = 1,
                              .aligned = true};
    const auto found = search(translator, device, sources, options);
    ASSERT_EQ(found.size(), sources.size());
    for (std::size_t b = 0; b < sources.size(); ++b) {
      SCOPED_TRACE(testing::Message()
                   << "alpha " << alpha << ", beta " << beta << ", source " << b);
      const Enumeration want(translator, sources[b], options, longest[b]);
      ASSERT_EQ(found[b].size(), std::min<std::size_t>(20, want.all.size()));
      for (std::size_t i = 0; i < found[b].size(); ++i) {
        const Hypothesis &got = found[b][i], &best = want.all[i];
        EXPECT_EQ(got.ended, best.ended) << i;
        EXPECT_NEAR(got.score, best.score, 1e-5) << i;
        // Texts of equal scores may stand in either order.
        const auto same = std::find_if(want.all.begin(), want.all.end(),
                                       [&](const Hypothesis& h) { return h.tokens == got.tokens; });
        ASSERT_NE(same, want.all.end());
        EXPECT_NEAR(same->score, got.score, 1e-5) << i;
        EXPECT_NEAR(same->log_probability, got.log_probability, 1e-5) << i;
        EXPECT_EQ(same->alignment, got.alignment) << i;
      }
    }
  }
}

TEST_P(BeamSearchOn, ABeamOfOneIsGreedy) {
  HashTranslator translator(device, {.vocabulary = 9, .seed = 2});
  const std::vector<Ids> sources{{3, 2, 1}, {5, 1}, {7, 8, 4, 1}, {6, 6, 6, 6, 6, 1}};
  for (const double alpha : {0.0, 2.0}) {
    const auto found = search(translator, device, sources, {.beam = 1, .length_penalty = alpha});
    std::set<std::size_t> lengths;
    for (std::size_t b = 0; b < sources.size(); ++b) {
      Ids text{kBegin};
      while (text.size() <= 2 * sources[b].size() + 10 && text.back() != kEnd) {
        const std::vector<float> logits = translator.logits(sources[b], text);
        text.push_back(static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) -
                                                 logits.begin()));
      }
      text.erase(text.begin());
      ASSERT_EQ(found[b].size(), 1U);
      EXPECT_EQ(found[b][0].tokens, text);
      EXPECT_EQ(found[b][0].ended, text.back() == kEnd);
      EXPECT_TRUE(found[b][0].alignment.empty());
      lengths.insert(text.size());
    }
    EXPECT_GT(lengths.size(), 2U) << "the sources end at different steps";
  }
}

void expect_equal(const Hypothesis& a, const Hypothesis& b) {
  EXPECT_EQ(a.tokens, b.tokens);
  EXPECT_EQ(a.ended, b.ended);
  EXPECT_NEAR(a.log_probability, b.log_probability, 1e-6);  // but for the rounding of sums
  EXPECT_NEAR(a.score, b.score, 1e-6);
  EXPECT_EQ(a.alignment, b.alignment);
}

// Sources of different lengths that end at different steps, or run into their longest length.
TEST_P(BeamSearchOn, SourcesSideBySideGetWhatEachGetsAlone) {
  const std::vector<Ids> sources{{3, 2, 1}, {5, 1}, {7, 8, 4, 1}, {1}, {6, 6, 6, 6, 6, 6, 1}};
  for (const DType dtype : {DType::f32, DType::bf16}) {  // the logits are the same in both
    HashTranslator translator(device, {.vocabulary = 9, .seed = 2, .dtype = dtype}),
        reference(device, {.vocabulary = 9, .seed = 2});
    const BeamOptions options{.beam = 3,
                              .best = 3,
                              .coverage_penalty = 0.2,
                              .longest_factor = 1,
                              .longest_constant = 2,
                              .aligned = true};
    const auto together = search(translator, device, sources, options);
    std::size_t ended = 0, all = 0;
    for (std::size_t b = 0; b < sources.size(); ++b) {
      const auto alone = search(reference, device, {sources[b]}, options);
      ASSERT_EQ(together[b].size(), alone[0].size());
      for (std::size_t i = 0; i < alone[0].size(); ++i) {
        expect_equal(together[b][i], alone[0][i]);
        ended += alone[0][i].ended ? 1 : 0;
        ++all;
      }
    }
    EXPECT_GT(ended, 0U);
    EXPECT_LT(ended, all) << "some reach the longest length";
  }
}

TEST_P(BeamSearchOn, SuppressedTokensAreNeverWritten) {
  HashTranslator translator(device, {.vocabulary = 6, .seed = 4});
  const std::vector<Ids> sources{{3, 2, 1}, {5, 1}};
  BeamOptions options{.beam = 4, .best = 4, .longest_factor = 0, .longest_constant = 6};
  std::set<std::int32_t> free;
  for (const auto& found : search(translator, device, sources, options)) {
    for (const Hypothesis& text : found) free.insert(text.tokens.begin(), text.tokens.end());
  }
  EXPECT_TRUE(free.contains(3) && free.contains(kEnd));
  options.suppressed = {3, kEnd};
  for (const auto& found : search(translator, device, sources, options)) {
    ASSERT_EQ(found.size(), 4U);
    for (const Hypothesis& text : found) {
      EXPECT_EQ(text.tokens.size(), 6U);
      EXPECT_FALSE(text.ended);
      for (const std::int32_t id : text.tokens) EXPECT_TRUE(id != 3 && id != kEnd);
    }
  }
  options.suppressed = {0, 1, 2, 3, 4, 5};
  for (const auto& found : search(translator, device, sources, options)) {
    EXPECT_TRUE(found.empty());
  }
}

// A search for the best alone stops earlier, and must not miss what a longer one finds.
TEST_P(BeamSearchOn, FewerAreTheFirstOfMoreAndTheBestIsFirst) {
  int later = 0;
  for (std::uint64_t seed = 1; seed <= (is_cpu(device) ? 60U : 1U); ++seed) {
    HashTranslator translator(device, {.vocabulary = 6, .seed = seed, .widest = 1});
    BeamOptions options{.beam = 4, .best = 4, .length_penalty = 2, .longest_constant = 4};
    const std::vector<Ids> sources{{3, 2, 1}, {5, 1}};
    const auto more = search(translator, device, sources, options);
    options.best = 1;
    const auto fewer = search(translator, device, sources, options);
    for (std::size_t b = 0; b < sources.size(); ++b) {
      ASSERT_EQ(more[b].size(), 4U);
      ASSERT_EQ(fewer[b].size(), 1U);
      expect_equal(fewer[b][0], more[b][0]);
      for (std::size_t i = 1; i < 4; ++i) {
        const Hypothesis &a = more[b][i - 1], &c = more[b][i];
        EXPECT_TRUE(a.ended == c.ended ? a.score >= c.score : a.ended) << "seed " << seed;
        later += a.ended && c.ended && a.tokens.size() > c.tokens.size() ? 1 : 0;
      }
    }
  }
  EXPECT_TRUE(later > 0 || !is_cpu(device)) << "some text is better than one that ended before it";
}

// Every token is as probable: worked by hand. Of equals the lower token comes first, then the lower
// row; <eos> is token 1.
TEST_P(BeamSearchOn, EqualsAreTakenInOrder) {
  HashTranslator translator(device, {.vocabulary = 5, .widest = 0});
  const auto found = search(translator, device, {{3, 1}},
                            {.beam = 3, .best = 3, .longest_factor = 0, .longest_constant = 2});
  ASSERT_EQ(found[0].size(), 3U);
  EXPECT_EQ(found[0][0].tokens, (Ids{kEnd}));
  EXPECT_EQ(found[0][1].tokens, (Ids{0, 0}));
  EXPECT_EQ(found[0][2].tokens, (Ids{2, 0}));
  EXPECT_TRUE(found[0][0].ended && !found[0][1].ended && !found[0][2].ended);
  EXPECT_NEAR(found[0][1].log_probability, -2 * std::log(5), 1e-6);
  EXPECT_NEAR(found[0][1].score, -2 * std::log(5) / std::pow(7.0 / 6, 0.6), 1e-6);
}

TEST_P(BeamSearchOn, LogitsThatAreNotNumbersAreAnError) {
  HashTranslator translator(device, {.seed = 3, .poison = 2});
  const BeamOptions options{.beam = 4, .best = 4};
  EXPECT_NE(test::error_text<Error>([&] {
              search(translator, device, {{3, 1}}, options);
            }).find("not finite"),
            std::string::npos);
}

TEST(BeamSearch, RefusesWhatItCannotDo) {
  HashTranslator translator(Cpu{}, {}), blind(Cpu{}, {.attends = false});
  const auto refuses = [&](const BeamOptions& options, HashTranslator& by) {
    EXPECT_THROW(search(by, Cpu{}, {{3, 1}}, options), ConfigError);
  };
  refuses({.beam = 0}, translator);
  refuses({.beam = BeamOptions::kWidest + 1}, translator);
  refuses({.beam = 3, .best = 4}, translator);
  refuses({.best = 0}, translator);
  refuses({.length_penalty = -1}, translator);
  refuses({.length_penalty = NAN}, translator);
  refuses({.coverage_penalty = INFINITY}, translator);
  refuses({.longest_factor = -0.5}, translator);
  refuses({.longest_constant = NAN}, translator);
  refuses({.coverage_penalty = 0.1}, blind);
  refuses({.aligned = true}, blind);
  EXPECT_NO_THROW(search(blind, Cpu{}, {{3, 1}}, {}));
  EXPECT_THROW(search(translator, Cpu{}, {{3, 1}, {}}, {}), ShapeError);
  EXPECT_TRUE(search(translator, Cpu{}, {}, {}).empty());
}

}  // namespace
}  // namespace carousel
