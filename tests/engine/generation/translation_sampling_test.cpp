// Translations whose tokens are drawn, over a translator of which every probability is known.
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "engine/generation/beam_search.h"
#include "engine/model/sampling.h"
#include "kernels/common/check.h"
#include "tests/support/device.h"
#include "tests/support/hash_translator.h"

namespace carousel {
namespace {

using Ids = std::vector<std::int32_t>;
using test::HashTranslator;

constexpr std::int32_t kBegin = 0, kEnd = 1;

std::vector<std::vector<Hypothesis>> drawn(HashTranslator& translator, const Device& device,
                                           const std::vector<Ids>& sources, BeamOptions options,
                                           const std::vector<std::uint64_t>& streams = {}) {
  options.beam = 1;
  BeamSearch search(translator, device, {.begin = kBegin, .end = kEnd}, options);
  return search.search(sources, streams);
}

class TranslationSamplingOn : public testing::TestWithParam<Device> {
 protected:
  const Device device = GetParam();
};
INSTANTIATE_TEST_SUITE_P(Devices, TranslationSamplingOn, testing::ValuesIn(test::devices()),
                         [](const auto& each) { return test::device_name(each.param); });

/// The probability of each text of at most two tokens, by the definition.
std::map<Ids, double> expected(const HashTranslator& translator, const Ids& source,
                               double temperature, std::int32_t suppressed) {
  const auto next = [&](const Ids& text) {
    std::vector<float> logits = translator.logits(source, text);
    for (float& logit : logits) logit /= static_cast<float>(temperature);
    if (suppressed >= 0) logits[static_cast<std::size_t>(suppressed)] = -INFINITY;
    return softmax(logits);
  };
  std::map<Ids, double> result;
  const std::vector<double> first = next({kBegin});
  for (std::int32_t a = 0; a < std::ssize(first); ++a) {
    const double p = first[static_cast<std::size_t>(a)];
    if (a == kEnd) {
      result[{a}] = p;
      continue;
    }
    const std::vector<double> second = next({kBegin, a});
    for (std::int32_t b = 0; b < std::ssize(second); ++b) {
      result[{a, b}] = p * second[static_cast<std::size_t>(b)];
    }
  }
  std::erase_if(result, [](const auto& each) { return each.second == 0; });
  return result;
}

TEST_P(TranslationSamplingOn, EveryDeviceDrawsTheSame) {
  HashTranslator translator(device, {.seed = 5}), reference(Cpu{}, {.seed = 5});
  BeamOptions options{.longest_factor = 0, .longest_constant = 2};
  options.suppressed = {2};
  options.sampling = SamplingConfig{.temperature = 1.5, .seed = 11};
  const std::vector<Ids> sources(6, Ids{3, 2, 1});
  const auto found = drawn(translator, device, sources, options),
             want = drawn(reference, Cpu{}, sources, options);
  for (std::size_t b = 0; b < sources.size(); ++b) {
    EXPECT_EQ(found[b][0].tokens, want[b][0].tokens);
  }
}

TEST(TranslationSampling, TextsComeAsOftenAsTheyAreProbable) {
  const Device device = Cpu{};
  const Ids source{3, 2, 1};
  const std::size_t count = 4000;
  for (const auto& [temperature, suppressed] :
       std::vector<std::pair<double, std::int32_t>>{{1, -1}, {0.5, -1}, {1.5, 2}}) {
    HashTranslator translator(device, {.seed = 5});
    BeamOptions options{.longest_factor = 0, .longest_constant = 2};
    options.sampling = SamplingConfig{.temperature = temperature, .seed = 11};
    if (suppressed >= 0) options.suppressed = {suppressed};
    std::map<Ids, double> seen;
    for (const auto& found : drawn(translator, device, std::vector<Ids>(count, source), options)) {
      ASSERT_EQ(found.size(), 1U);
      seen[found[0].tokens] += 1;
    }
    const std::map<Ids, double> want = expected(translator, source, temperature, suppressed);
    double chi_squared = 0, all = 0;
    for (const auto& [text, probability] : want) {
      const double mean = probability * static_cast<double>(count);
      chi_squared += (seen[text] - mean) * (seen[text] - mean) / mean;
      all += seen[text];
    }
    EXPECT_EQ(all, static_cast<double>(count)) << "no text came that cannot";
    const auto degrees = static_cast<double>(want.size() - 1);
    // Beyond this once in some thousand seeds.
    EXPECT_LT(chi_squared, degrees + 4 * std::sqrt(2 * degrees)) << temperature;
  }
}

// Random numbers are a source's own, so that it matters neither which are beside it nor where it is.
TEST_P(TranslationSamplingOn, ASourceGetsTheSameAloneAndAmongOthers) {
  const std::vector<Ids> sources{{3, 2, 1}, {5, 1}, {7, 8, 4, 1}, {6, 6, 6, 6, 6, 1}};
  const std::vector<std::uint64_t> streams{40, 41, 42, 43};
  for (const DType dtype : {DType::f32, DType::bf16}) {
    HashTranslator translator(device, {.vocabulary = 9, .seed = 2, .dtype = dtype});
    BeamOptions options{.coverage_penalty = 0.2, .aligned = true};
    options.sampling = SamplingConfig{.top_k = 5, .top_p = 0.9, .seed = 3};
    const auto together = drawn(translator, device, sources, options, streams);
    if (!is_cpu(device) && dtype == DType::bf16) continue;  // the emulated device is slow
    bool other = false;
    for (std::size_t b = 0; b < sources.size(); ++b) {
      const Hypothesis& one = together[b].front();
      const auto alone = drawn(translator, device, {sources[b]}, options, {streams[b]});
      EXPECT_EQ(alone[0][0].tokens, one.tokens);
      EXPECT_EQ(alone[0][0].ended, one.ended);
      EXPECT_EQ(alone[0][0].alignment, one.alignment);
      Ids text{kBegin};
      double nats = 0;
      for (const std::int32_t id : one.tokens) {
        const std::vector<float> logits = translator.logits(sources[b], text);
        nats += std::log(softmax(logits)[static_cast<std::size_t>(id)]);
        text.push_back(id);
      }
      EXPECT_NEAR(one.log_probability, nats, 1e-5);
      other =
          other || drawn(translator, device, {sources[b]}, options, {7})[0][0].tokens != one.tokens;
    }
    EXPECT_TRUE(other) << "another stream draws another text";
  }
}

TEST_P(TranslationSamplingOn, TheLikeliestAloneIsGreedy) {
  HashTranslator translator(device, {.vocabulary = 9, .seed = 2});
  const std::vector<Ids> sources{{3, 2, 1}, {5, 1}, {7, 8, 4, 1}};
  BeamOptions options;
  options.suppressed = {4, -1};
  const auto greedy = drawn(translator, device, sources, options);
  options.sampling = SamplingConfig{.top_k = 1};
  const auto found = drawn(translator, device, sources, options);
  for (std::size_t b = 0; b < sources.size(); ++b) {
    EXPECT_EQ(found[b][0].tokens, greedy[b][0].tokens);
    EXPECT_NEAR(found[b][0].score, greedy[b][0].score, 1e-5);
  }
  options.suppressed = {0, 1, 2, 3, 4, 5, 6, 7, 8};
  for (const auto& none : drawn(translator, device, sources, options)) EXPECT_TRUE(none.empty());
}

TEST(TranslationSampling, RefusesWhatItCannotDo) {
  HashTranslator translator(Cpu{}, {.seed = 3, .poison = 2});
  BeamOptions options;
  options.sampling = SamplingConfig{};
  EXPECT_THROW(BeamSearch(translator, Cpu{}, {.begin = kBegin, .end = kEnd}, options), ConfigError)
      << "the beam is 4";
  EXPECT_THROW(drawn(translator, Cpu{}, std::vector<Ids>(60, Ids{3, 1}), options), Error)
      << "logits are not numbers";
}

}  // namespace
}  // namespace carousel
