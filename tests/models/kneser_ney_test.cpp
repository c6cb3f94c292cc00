// Interpolated Kneser-Ney: fractions worked by hand, the formula over maps, sums, samples, files.
#include "models/ngram/kneser_ney.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "engine/generation/generator.h"
#include "engine/training/evaluation.h"
#include "kernels/common/check.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

using Tokens = std::vector<std::int32_t>;
using test::error_text;

/// A model fitted to tokens.
struct Fitted {
  struct Options {
    int order = 2;
    std::int64_t vocabulary = 3;
    std::int32_t begin = -1, document_end = -1, answer_after = -1;
    std::int64_t sort_bytes = std::int64_t{1} << 24;
  };
  Fitted(const Tokens& tokens, const Options& options)
      : model({.vocabulary = options.vocabulary,
               .begin = options.begin,
               .order = options.order,
               .sort_bytes = options.sort_bytes},
              Cpu{}, DType::f32, 1) {
    corpus.train.columns.push_back({"token", tokens_in_memory(tokens)});
    corpus.lines = options.begin >= 0;
    corpus.document_end = options.document_end;
    corpus.answer_after = options.answer_after;
    const std::atomic<bool> stop = false;
    EXPECT_TRUE(model.fit({.corpus = corpus,
                           .scratch = scratch.path(),
                           .stop = stop,
                           .progress = [](std::string_view, std::int64_t, std::int64_t) {},
                           .iterated = {}}));
  }
  double operator()(Tokens history, std::int32_t token) const {
    history.resize(NgramOptions::kMostOrder, -1);
    return model.probability(history, token);
  }
  test::TemporaryFolder scratch;
  Corpus corpus;
  KneserNey model;
};

// "abcabac". Bigrams: ab 2, bc 1, ca 1, ba 1, ac 1; n1 = 4, n2 = 1, D2 = 4/6 = 2/3.
// Continuation counts: a follows c and b, b follows a, c follows b and a: 2, 1, 2 of 5; n1 = 1,
// n2 = 2, D1 = 1/5. p0 = 1/3.
//   p1(a) = (2 - 1/5)/5 + (1/5 · 3)/5 · 1/3 = 9/25 + 1/25 = 2/5; p1(b) = 4/25 + 1/25 = 1/5; p1(c) = 2/5
//   after a (3 tokens, 2 different): γ = 2/3 · 2 / 3 = 4/9
//     p(a) = 4/9 · 2/5 = 8/45; p(b) = (2 - 2/3)/3 + 4/9 · 1/5 = 24/45; p(c) = 1/9 + 4/9 · 2/5 = 13/45
//   after b (2, 2): γ = 2/3;  p(a) = (1/3)/2 + 2/3 · 2/5 = 13/30; p(b) = 2/3 · 1/5 = 4/30; p(c) = 13/30
//   after c (1, 1): γ = 2/3;  p(a) = 1/3 + 2/3 · 2/5 = 9/15; p(b) = 2/15; p(c) = 4/15
TEST(KneserNeys, ABigramModelWorkedByHand) {
  const Fitted fitted({0, 1, 2, 0, 1, 0, 2}, {.order = 2});
  constexpr double kExpected[4][3] = {{8 / 45., 24 / 45., 13 / 45.},
                                      {13 / 30., 4 / 30., 13 / 30.},
                                      {9 / 15., 2 / 15., 4 / 15.},
                                      {2 / 5., 1 / 5., 2 / 5.}};  // nothing was read
  EXPECT_NEAR(fitted.model.discount(1), 1 / 5., 1e-15);
  EXPECT_NEAR(fitted.model.discount(2), 2 / 3., 1e-15);
  for (const std::int32_t last : {0, 1, 2, -1}) {
    for (const std::int32_t token : {0, 1, 2}) {
      const int row = last < 0 ? 3 : last;
      EXPECT_NEAR(fitted({last}, token), kExpected[row][token], 1e-12) << last << ' ' << token;
    }
  }
}

// The same text with trigrams: abc, bca, cab, aba, bac, each once, D3 = 1; all that is left of a count
// is 0. Of bigrams, each has one token before it: D2 = 1. So every p is p1.
TEST(KneserNeys, WhereNothingComesTwiceAllIsLeftToTheUnigrams) {
  const Fitted fitted({0, 1, 2, 0, 1, 0, 2}, {.order = 3});
  EXPECT_EQ(fitted.model.discount(3), 1);
  EXPECT_EQ(fitted.model.discount(2), 1);
  for (const Tokens& history : {Tokens{1, 0}, Tokens{0, 0}, Tokens{2, 1}, Tokens{0}}) {
    EXPECT_NEAR(fitted(history, 0), 2 / 5., 1e-12);
    EXPECT_NEAR(fitted(history, 1), 1 / 5., 1e-12);
  }
}

// "aabb" twice over: no n-gram has a count of 1, which leaves no estimate of a discount.
TEST(KneserNeys, UnseenTokensHaveAProbabilityWhereNothingCameOnce) {
  const Fitted fitted({0, 0, 1, 1, 0, 0, 1, 1, 0}, {.order = 1});
  EXPECT_EQ(fitted.model.discount(1), 0.5);
  EXPECT_NEAR(fitted({}, 2), 0.5 * 2 / 9 / 3, 1e-12);
}

/// The model by its formula: maps from n-grams, oldest token first, to their counts.
class ByFormula {
 public:
  using Counts = std::map<Tokens, std::int64_t>;
  ByFormula(const std::vector<Tokens>& ngrams, int order, std::int64_t choices)
      : choices_(static_cast<double>(choices)), orders_(static_cast<std::size_t>(order)) {
    for (const Tokens& ngram : ngrams) ++orders_.back()[ngram];
    for (std::size_t k = orders_.size() - 1; k > 0; --k) {
      for (const auto& [ngram, count] : orders_[k]) {
        ++orders_[k - 1][Tokens(ngram.begin() + 1, ngram.end())];
      }
    }
  }
  double operator()(const Tokens& context, std::int32_t token) const {
    double probability = 1 / choices_;
    for (std::size_t k = 0; k < orders_.size() && k <= context.size(); ++k) {
      const Tokens history(context.end() - static_cast<std::ptrdiff_t>(k), context.end());
      double total = 0, different = 0, own = 0, ones = 0, twos = 0;
      for (const auto& [ngram, count] : orders_[k]) {
        ones += count == 1 ? 1 : 0;
        twos += count == 2 ? 1 : 0;
        if (!std::equal(history.begin(), history.end(), ngram.begin())) continue;
        total += static_cast<double>(count);
        ++different;
        if (ngram.back() == token) own = static_cast<double>(count);
      }
      if (total == 0) break;
      const double discount = ones > 0 ? ones / (ones + 2 * twos) : 0.5;
      probability = (std::max(own - discount, 0.0) + discount * different * probability) / total;
    }
    return probability;
  }

 private:
  double choices_;
  std::vector<Counts> orders_;
};

/// Tokens 2 … 5 that follow one another unevenly, cut by `boundary` into pieces.
Tokens pieces(std::int32_t boundary, bool leads, int count) {
  std::mt19937 random(7);
  Tokens tokens;
  for (int i = 0; i < count; ++i) {
    if (leads) tokens.push_back(boundary);
    std::int32_t last = 2;
    for (auto n = 3 + random() % 9; n > 0; --n) {
      last =
          2 + static_cast<std::int32_t>((static_cast<std::uint64_t>(last) * 3 + random() % 3) % 4);
      tokens.push_back(last);
    }
    if (!leads) tokens.push_back(boundary);
  }
  return tokens;
}

struct Case {
  const char* name;
  Fitted::Options options;
};
std::string name_of(const testing::TestParamInfo<Case>& test) { return test.param.name; }

constexpr Case kTexts[] = {{"stream", {.vocabulary = 6}},
                           {"lines", {.vocabulary = 6, .begin = 0}},
                           {"documents", {.vocabulary = 6, .document_end = 1}},
                           {"answers", {.vocabulary = 6, .begin = 0, .answer_after = 4}}};
// Keys of several words.
constexpr Case kWide[] = {{"wide", {.vocabulary = std::int64_t{1} << 21}},
                          {"widest", {.vocabulary = std::int64_t{1} << 31, .sort_bytes = 1 << 12}}};

class KneserNeyCounts : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Texts, KneserNeyCounts, testing::ValuesIn(kTexts), name_of);
INSTANTIATE_TEST_SUITE_P(WideKeys, KneserNeyCounts, testing::ValuesIn(kWide), name_of);
class KneserNeySums : public testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Texts, KneserNeySums, testing::ValuesIn(kTexts), name_of);

TEST_P(KneserNeyCounts, ProbabilitiesAreThoseOfTheFormula) {
  Fitted::Options options = GetParam().options;
  const bool lines = options.begin >= 0;
  const std::int32_t boundary = lines ? options.begin : options.document_end;
  const Tokens tokens = pieces(lines ? 0 : 1, lines, 60);
  for (options.order = 1; options.order <= NgramOptions::kMostOrder; ++options.order) {
    const Fitted fitted(tokens, options);
    const auto contexts = static_cast<std::size_t>(options.order) - 1;
    // Every place of the text, with the tokens before it, oldest first, as far as they are known.
    std::vector<std::pair<Tokens, std::int32_t>> places;
    std::vector<Tokens> ngrams;
    Tokens before(boundary < 0 ? 0 : contexts, boundary);
    bool answers = options.answer_after < 0;
    for (const std::int32_t token : tokens) {
      if (token != options.begin) {
        places.emplace_back(before, token);
        Tokens ngram = before;
        ngram.push_back(token);
        if (before.size() == contexts && answers) ngrams.push_back(ngram);
      }
      if (options.answer_after >= 0) {
        answers = token != options.begin && (answers || token == options.answer_after);
      }
      before.push_back(token);
      if (token == boundary) before.assign(contexts, boundary);
      if (before.size() > contexts) before.erase(before.begin());
    }
    const ByFormula formula(ngrams, options.order,
                            options.vocabulary - (options.begin < 0 ? 0 : 1));
    places.emplace_back(Tokens(contexts, 2), 5);
    for (std::size_t i = 0; i < places.size(); i += i < 12 ? 1 : 17) {
      const auto& [context, token] = places[i];
      const Tokens nearest_first(context.rbegin(), context.rend());
      for (const std::int32_t other : {token, 1, 5}) {
        ASSERT_NEAR(fitted(nearest_first, other), formula(context, other), 1e-12)
            << "order " << options.order << ", place " << i;
      }
    }
  }
}

TEST_P(KneserNeySums, ProbabilitiesOfAContextSumToOne) {
  Fitted::Options options = GetParam().options;
  const bool lines = options.begin >= 0;
  options.order = 4;
  const Fitted fitted(pieces(lines ? 0 : 1, lines, 60), options);
  std::vector<double> all(6);
  int contexts = 0;
  for (std::int32_t code = 0; code < 7 * 7 * 7; ++code) {  // seen, unseen, and shorter ones
    const Tokens history{code / 49 - 1, code / 7 % 7 - 1, code % 7 - 1};
    fitted.model.probabilities(history, all);
    EXPECT_NEAR(std::accumulate(all.begin(), all.end(), 0.0), 1, 1e-12);
    for (std::int32_t token = 0; token < 6; ++token) {
      const double probability = all[static_cast<std::size_t>(token)];
      EXPECT_NEAR(probability, fitted.model.probability(history, token), 1e-15);
      EXPECT_EQ(probability > 0, token != options.begin);
    }
    ++contexts;
  }
  EXPECT_EQ(contexts, 343);
}

TEST(KneserNeys, WhatIsSampledIsDistributedAsTheModelSays) {
  const Fitted fitted(pieces(1, false, 60), {.order = 3, .vocabulary = 6});
  constexpr std::int64_t kRows = 20'000;
  KneserNey model = fitted.model;
  Generator generator(model, {.seed = 3}, kRows);
  generator.begin(std::vector<Tokens>(kRows, {1, 3, 2}));
  const std::vector<double> expected = generator.probabilities().front();
  for (std::int32_t token = 0; token < 6; ++token) {
    EXPECT_NEAR(expected[static_cast<std::size_t>(token)], fitted({2, 3}, token), 1e-7);
  }
  std::vector<double> counts(6);
  for (const std::int32_t token : generator.next()) ++counts[static_cast<std::size_t>(token)];
  double chi_square = 0;
  for (std::size_t token = 0; token < 6; ++token) {
    const double mean = expected[token] * kRows;
    chi_square += (counts[token] - mean) * (counts[token] - mean) / mean;
  }
  EXPECT_LT(chi_square, 20.5);  // of five degrees of freedom, passed once in a thousand
}

// Rows of different lengths are read on as if each were alone, in windows and with resets.
TEST(KneserNeys, AStateCarriesTheLastTokens) {
  const Fitted fitted(pieces(1, false, 60), {.order = 4, .vocabulary = 6});
  KneserNey model = fitted.model;
  Arena arena(Cpu{});
  Tape tape(arena, false);
  const State state = model.initial_state(2);
  const auto tensor = [](Shape shape, const Tokens& values) {
    Tensor result(Cpu{}, shape, DType::i32);
    copy_from_host(result, values.data());
    return result;
  };
  // Row 0 reads 2 2 4 and row 1 reads 3 3 5, in both windows: tokens that the text has in this order.
  const Tokens tokens{2, 3, 2, 3, 4, 5}, targets{5, -1, 4, 5, 2, 3};
  std::vector<float> nats;
  for (const bool reset : {false, true}) {
    Pass pass(tape);
    Batch batch{.rows = 2,
                .fields = {{"token", tensor({3, 2}, tokens)}, {"target", tensor({3, 2}, targets)}},
                .counted = 5};
    if (reset) batch.reset = tensor({3, 2}, {0, 0, 1, 0, 0, 0});
    const Objective objective = model.objective(pass, batch, state);
    pass.finish();
    nats = host_floats(objective.terms.front().loss.rows.value());
    const float mean = host_floats(objective.means(tape))[0];
    EXPECT_NEAR(mean, std::accumulate(nats.begin(), nats.end(), 0.0F) / 5, 1e-6);
  }
  // The second window, nearest token first; row 0 is reset before its second token.
  const Tokens histories[] = {{2, 4, 2}, {3, 5, 3}, {2}, {3, 3, 5}, {4, 2}, {5, 3, 3}};
  EXPECT_GT(std::abs(fitted({2, 4, 2}, 5) - fitted({2}, 5)), 1e-3) << "what was carried counts";
  for (std::size_t i = 0; i < 6; ++i) {
    const double expected = targets[i] < 0 ? 0 : -std::log(fitted(histories[i], targets[i]));
    EXPECT_NEAR(nats[i], expected, 1e-6) << i;
  }
}

TEST(KneserNeys, PromptsMayHaveDifferentLengths) {
  const Fitted fitted(pieces(1, false, 60), {.order = 4, .vocabulary = 6});
  KneserNey model = fitted.model;
  Generator generator(model, {}, 2);
  generator.begin(std::vector<Tokens>{{2, 4}, {3, 3, 5, 3}});
  const auto all = generator.probabilities();
  for (std::int32_t token = 0; token < 6; ++token) {
    EXPECT_NEAR(all[0][static_cast<std::size_t>(token)], fitted({4, 2}, token), 1e-7);
    EXPECT_NEAR(all[1][static_cast<std::size_t>(token)], fitted({3, 5, 3}, token), 1e-7);
  }
}

TEST(KneserNeys, FilesAreReadBackAndDamagedOnesRefused) {
  const Fitted fitted(pieces(0, true, 60), {.order = 3, .vocabulary = 6, .begin = 0});
  const KneserNeyConfig config{.vocabulary = 6, .begin = 0, .order = 3};
  const auto path = fitted.scratch / "model.safetensors";
  const auto load = [&](const KneserNeyConfig& as) {
    KneserNey read(as, Cpu{}, DType::f32, 1);
    read.load(SafetensorsFile(path));
    return read;
  };
  write_safetensors(path, fitted.model.tables(), {});
  const KneserNey same = load(config);
  EXPECT_EQ(same.summary(), fitted.model.summary());
  for (const Tokens& history : {Tokens{2, 3}, Tokens{0, 0}, Tokens{-1, -1}}) {
    EXPECT_EQ(same.probability(history, 4), fitted.model.probability(history, 4));
  }
  KneserNeyConfig longer = config, narrower = config;
  longer.order = 4;
  narrower.vocabulary = 4;
  EXPECT_THROW(load(longer), FormatError);
  EXPECT_THROW(load(narrower), FormatError);
  for (const NamedTensor& damaged : fitted.model.tables()) {
    for (const std::int64_t value : {std::int64_t{-2}, std::int64_t{1} << 30}) {
      std::vector<NamedTensor> tables = fitted.model.tables();
      for (NamedTensor& table : tables) {
        if (table.name != damaged.name) continue;
        const Tensor copied(Cpu{}, table.tensor.shape(), table.tensor.dtype());
        copy(table.tensor, copied);
        table.tensor = copied;
        const bool wide = copied.dtype() == DType::i64;
        const auto number = static_cast<std::int32_t>(value);
        if (wide) {
          static_cast<std::int64_t*>(copied.mutable_data())[0] =
              wide && value > 0 ? value << 20 : value;
        } else {
          static_cast<std::int32_t*>(copied.mutable_data())[0] = number;
        }
      }
      write_safetensors(path, tables, {});
      EXPECT_NE(error_text<FormatError>([&] { load(config); }).find("'" + damaged.name + "'"),
                std::string::npos)
          << damaged.name << ' ' << value;
    }
  }
}

TEST(KneserNeys, Mistakes) {
  EXPECT_NE(error_text<FormatError>([] {
              Fitted({0, 1}, {.order = 3});
            }).find("2 to train on, expected an n-gram of order 3"),
            std::string::npos);
}

}  // namespace
}  // namespace carousel
