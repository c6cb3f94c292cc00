// Beam search of language models, against every text that there is, each judged by the probabilities of
// its tokens after all that is before them.
#include "engine/generation/text_search.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/generation/generator.h"
#include "engine/text/vocabulary_counter.h"
#include "kernels/common/check.h"
#include "models/ngram/ngram_lm.h"
#include "models/recurrent/recurrent_lm.h"
#include "models/transformer/transformer_lm.h"
#include "tests/support/device.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

using Ids = std::vector<std::int32_t>;
using Positions = TransformerLmConfig::Positions;

Vocabulary vocabulary_of(Newline newline) {
  VocabularyCounter counter({TokenKind::character, newline, true});
  counter.add(Text::in_memory(newline == Newline::line ? "cab\n" : "caba"));
  return counter.vocabulary({});
}

/// Weights so large that texts differ in probability.
std::unique_ptr<Model> drawn(std::unique_ptr<Model> model) {
  std::mt19937 draw(3);
  std::normal_distribution<float> normal(0, 0.7F);
  const Tensor& weights = model->parameters().flat_weights();
  std::vector<float> values(static_cast<std::size_t>(weights.size()));
  for (float& value : values) value = normal(draw);
  copy_from_host(weights, values.data());
  model->parameters().refresh_working();
  return model;
}

struct Case {
  const char* name;
  std::unique_ptr<Model> (*make)(std::int64_t vocabulary, const Device& device);
};

std::unique_ptr<Model> transformer(std::int64_t vocabulary, const Device& device,
                                   Positions positions, std::int64_t context) {
  const TransformerLmConfig config{.vocabulary = vocabulary,
                                   .context = context,
                                   .layers = 1,
                                   .heads = 2,
                                   .embed = 8,
                                   .positions = positions};
  return drawn(std::make_unique<TransformerLm>(config, device, DType::f32, 1));
}

constexpr Case kCases[] = {
    {"learnt",
     [](std::int64_t V, const Device& d) { return transformer(V, d, Positions::learnt, 6); }},
    {"sliding",
     [](std::int64_t V, const Device& d) { return transformer(V, d, Positions::rotary, 2); }},
    {"recurrent",
     [](std::int64_t V, const Device& d) {
       RecurrentLmConfig config;
       config.vocabulary = V;
       config.embed = config.encoder.hidden = 4;
       config.encoder.layers = 2;
       return drawn(std::make_unique<RecurrentLm>(config, d, DType::f32, 1));
     }},
    {"ngram", [](std::int64_t V, const Device& d) {
       return drawn(std::make_unique<NgramLm>(
           NgramLmConfig{.vocabulary = V, .embed = 4, .hidden = 4}, d, DType::f32, 1));
     }}};

class TextSearchOn : public testing::TestWithParam<std::tuple<Device, Case>> {
 protected:
  const Device device = std::get<0>(GetParam());
  std::unique_ptr<Model> model(const Vocabulary& vocabulary) const {
    return std::get<1>(GetParam()).make(vocabulary.size(), device);
  }
};
INSTANTIATE_TEST_SUITE_P(Devices, TextSearchOn,
                         testing::Combine(testing::ValuesIn(test::devices()),
                                          testing::ValuesIn(kCases)),
                         [](const auto& each) {
                           return test::device_name(std::get<0>(each.param)) + "_" +
                                  std::get<1>(each.param).name;
                         });

/// All texts of at most so many tokens behind a prompt, the best first.
class Enumeration {
 public:
  Enumeration(Model& model, const Vocabulary& vocabulary, Ids prompt, std::size_t longest)
      : vocabulary_(vocabulary),
        generator_(model, {}),
        prompt_(std::move(prompt)),
        longest_(longest) {
    go_on({});
    std::stable_sort(all.begin(), all.end(), [](const Hypothesis& a, const Hypothesis& b) {
      return a.ended != b.ended ? a.ended : a.score > b.score;
    });
  }
  std::vector<Hypothesis> all;

 private:
  void go_on(const Hypothesis& text) {
    Ids read = prompt_;
    read.insert(read.end(), text.tokens.begin(), text.tokens.end());
    generator_.begin(read);
    const std::vector<double> next = generator_.probabilities().front();
    for (std::int32_t id = 0; id < vocabulary_.size(); ++id) {
      if (id == vocabulary_.unknown() || id == vocabulary_.begin()) continue;
      Hypothesis longer = text;
      longer.tokens.push_back(id);
      longer.log_probability += std::log(next[static_cast<std::size_t>(id)]);
      longer.ended = id == vocabulary_.end();
      longer.score = longer.log_probability /
                     std::pow((5 + static_cast<double>(longer.tokens.size())) / 6, 0.6);
      if (longer.ended || longer.tokens.size() == longest_) {
        all.push_back(longer);
      } else {
        go_on(longer);
      }
    }
  }
  const Vocabulary& vocabulary_;
  Generator generator_;
  Ids prompt_;
  std::size_t longest_;
};

// Of three characters at most 27 texts of three tokens have not ended, 9 of two: a wider beam loses none,
// also of those that end less probably than all these.
TEST_P(TextSearchOn, AWideBeamFindsWhatEnumerationFinds) {
  const bool is_cpu = carousel::is_cpu(device);  // the emulated device is slow
  const std::size_t longest = is_cpu ? 3 : 2, best = is_cpu ? 20 : 8;
  for (const Newline newline : {Newline::line, Newline::text}) {
    if (!is_cpu && newline == Newline::text) continue;
    const Vocabulary vocabulary = vocabulary_of(newline);
    const auto model = this->model(vocabulary);
    const TextSearch search(*model, vocabulary, static_cast<std::int64_t>(longest),
                            {.beam = is_cpu ? 28 : 10, .best = static_cast<std::int64_t>(best)});
    for (const std::string text : {"", "a", "bca"}) {
      if (!is_cpu && text.size() < 3) continue;
      SCOPED_TRACE(text);
      const Ids prompt = vocabulary.encode(text).ids;
      Ids read = prompt;
      if (prompt.empty()) {
        read.push_back(newline == Newline::line ? vocabulary.begin()
                                                : static_cast<std::int32_t>(vocabulary.size() - 1));
      }
      const Enumeration want(*model, vocabulary, read, longest);
      const std::vector<FoundText> found = search.search(prompt);
      ASSERT_EQ(found.size(), best);
      for (std::size_t i = 0; i < found.size(); ++i) {
        const Hypothesis& got = found[i].hypothesis;
        EXPECT_EQ(got.ended, want.all[i].ended) << i;
        EXPECT_NEAR(got.score, want.all[i].score, 1e-5) << i;
        const auto same = std::find_if(want.all.begin(), want.all.end(),
                                       [&](const Hypothesis& h) { return h.tokens == got.tokens; });
        ASSERT_NE(same, want.all.end()) << i;
        EXPECT_NEAR(same->log_probability, got.log_probability, 1e-5) << i;
        Ids shown = got.tokens;
        if (got.ended) shown.pop_back();
        EXPECT_EQ(found[i].text, vocabulary.decode(shown));
      }
    }
  }
}

TEST_P(TextSearchOn, ABeamOfOneIsGreedy) {
  const Vocabulary vocabulary = vocabulary_of(Newline::text);
  const auto model = this->model(vocabulary);
  const Ids prompt = vocabulary.encode("ab").ids;
  Generator generator(*model, {.greedy = true, .suppressed_token = vocabulary.unknown()});
  generator.begin(prompt);
  Ids greedy;
  for (int i = 0; i < 5; ++i) greedy.push_back(generator.next().front());
  const auto found = TextSearch(*model, vocabulary, 5, {.beam = 1}).search(prompt);
  ASSERT_EQ(found.size(), 1U);
  EXPECT_EQ(found.front().hypothesis.tokens, greedy);
  const auto other =
      TextSearch(*model, vocabulary, 5, {.beam = 1, .suppressed = {greedy[0]}}).search(prompt);
  const Ids& tokens = other.front().hypothesis.tokens;
  EXPECT_EQ(std::count(tokens.begin(), tokens.end(), greedy[0]), 0);
}

TEST(TextSearch, RefusesWhatItCannotDo) {
  const Vocabulary vocabulary = vocabulary_of(Newline::text);
  const auto model = transformer(vocabulary.size(), Cpu{}, Positions::learnt, 6);
  const Ids prompt = vocabulary.encode("ab").ids;
  EXPECT_NO_THROW(TextSearch(*model, vocabulary, 5, {}).search(prompt));
  EXPECT_EQ(
      test::error_text<ConfigError>([&] { TextSearch(*model, vocabulary, 6, {}).search(prompt); }),
      "beam search: a prompt of 2 tokens and 6 that are written are more than the model's "
      "positions, 6; expected at most 5 to be written");
  EXPECT_THROW(TextSearch(*model, vocabulary, 5, {.beam = 0}), ConfigError);
  EXPECT_THROW(TextSearch(*model, vocabulary, 5, {.beam = 2, .best = 3}), ConfigError);
}

}  // namespace
}  // namespace carousel
