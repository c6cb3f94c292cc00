// Baum-Welch: a step by its formula, likelihoods, a model that is found again, threads, resumption.
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <random>
#include <utility>
#include <vector>

#include "engine/files/safetensors.h"
#include "models/hmm/baum_welch.h"
#include "models/hmm/hmm.h"
#include "tests/reference/hmm.h"
#include "tests/support/files.h"
#include "tests/support/hmm.h"

namespace carousel {
namespace {

using Tokens = std::vector<std::int32_t>;
using reference::Table;
using test::random_hmm;
using test::sampled;
using test::tables_of;

/// A text as a model is fitted to it.
struct Fitting {
  struct Text {
    bool lines = false;
    std::int32_t document_end = -1;
  };
  Fitting(const Tokens& tokens, const HmmConfig& with, const Text& text)
      : config(with), model(config, Cpu{}, DType::f32, 7) {
    corpus.train.columns.push_back({"token", tokens_in_memory(tokens)});
    corpus.lines = text.lines;
    corpus.document_end = text.document_end;
  }
  Fitting(const Tokens& tokens, const HmmConfig& with) : Fitting(tokens, with, Text{}) {}
  /// Stops after `last` iterations.
  bool fit(std::int64_t taken = 0, std::int64_t last = 1 << 20) {
    std::atomic<bool> stop = false;
    return model.fit({.corpus = corpus,
                      .scratch = {},
                      .stop = stop,
                      .progress = [](std::string_view, std::int64_t, std::int64_t) {},
                      .iterated =
                          [&](std::int64_t iteration, double loss) {
                            EXPECT_EQ(iteration, taken + std::ssize(losses) + 1);
                            losses.push_back(loss);
                            stop = iteration == last;
                          },
                      .taken = taken});
  }
  HmmConfig config;
  Corpus corpus;
  Hmm model;
  std::vector<double> losses;
};

std::vector<std::vector<double>> values_of(const Hmm& model) {
  const HmmTables& tables = model.probabilities();
  return {tables.start, tables.transition, tables.emission};
}

TEST(HmmFit, AStepIsThatOfTheFormula) {
  std::mt19937 random(3);
  const reference::Hmm hmm = random_hmm(random, 3, 4);
  const HmmTables tables = tables_of(hmm);
  const std::vector<Tokens> lines{{0, 3, 1, 1}, {2}, {3, 3, 0, 2, 1}};
  HmmCounts counts(tables);
  ForwardBackward passes(tables);
  Table transitions(3, std::vector<double>(3)), emissions(3, std::vector<double>(4));
  std::vector<double> starts(3);
  for (const Tokens& line : lines) {
    passes.forward(line);
    passes.backward();
    passes.count(counts);
    const reference::Enumeration expected(hmm, line);
    for (std::size_t i = 0; i < 3; ++i) {
      starts[i] += expected.smoothed[0][i];
      for (std::size_t j = 0; j < 3; ++j) transitions[i][j] += expected.transitions[i][j];
      for (std::size_t t = 0; t < line.size(); ++t) {
        emissions[i][static_cast<std::size_t>(line[t])] += expected.smoothed[t][i];
      }
    }
  }
  for (const double smoothing : {0.0, 0.25}) {
    // Token 2 is never emitted, whatever was counted.
    for (const std::int32_t never : {-1, 2}) {
      const HmmTables next = reestimated(tables, counts, smoothing, never);
      for (std::size_t i = 0; i < 3; ++i) {
        const auto share = [&](const std::vector<double>& row, std::size_t j, int without) {
          double sum = 0;
          for (std::size_t k = 0; k < row.size(); ++k) {
            if (static_cast<int>(k) != without) sum += row[k] + smoothing;
          }
          return static_cast<int>(j) == without ? 0 : (row[j] + smoothing) / sum;
        };
        EXPECT_NEAR(next.start[i], share(starts, i, -1), 1e-13);
        for (std::size_t j = 0; j < 3; ++j) {
          EXPECT_NEAR(next.transition_from(static_cast<int>(i))[j], share(transitions[i], j, -1),
                      1e-13);
        }
        for (std::size_t x = 0; x < 4; ++x) {
          EXPECT_NEAR(next.emission_of(static_cast<int>(x))[i], share(emissions[i], x, never),
                      1e-13);
        }
      }
    }
  }
}

TEST(HmmFit, TheLikelihoodNeverFalls) {
  std::mt19937 random(4);
  for (int round = 0; round < 5; ++round) {
    const Tokens tokens = sampled(random, random_hmm(random, 5, 9, 3), 4000);
    Fitting fitting(tokens, {.vocabulary = 9,
                             .states = 4 + round,
                             .iterations = 60,
                             .tolerance = 0,
                             .smoothing = 0,
                             .block = 300});
    EXPECT_TRUE(fitting.fit());
    ASSERT_GT(fitting.losses.size(), 20U);
    for (std::size_t i = 1; i < fitting.losses.size(); ++i) {
      EXPECT_LE(fitting.losses[i], fitting.losses[i - 1] + 1e-13) << i;
    }
    EXPECT_LT(fitting.losses.back(), fitting.losses.front() - 0.01);
  }
}

TEST(HmmFit, RecoversTheModelThatWroteTheText) {
  const reference::Hmm hmm{
      .start = {0.6, 0.3, 0.1},
      .transition = {{0.8, 0.15, 0.05}, {0.1, 0.7, 0.2}, {0.3, 0.1, 0.6}},
      .emission = {
          {0.7, 0.2, 0.1, 0, 0, 0}, {0, 0.1, 0.2, 0.6, 0.1, 0}, {0.05, 0, 0, 0.05, 0.3, 0.6}}};
  std::mt19937 random(5);
  const Tokens tokens = sampled(random, hmm, 60'000);
  Fitting fitting(
      tokens,
      {.vocabulary = 6, .states = 3, .iterations = 150, .tolerance = 1e-6, .block = 60'000});
  EXPECT_TRUE(fitting.fit());
  const HmmTables truth = tables_of(hmm);
  ForwardBackward passes(truth);
  EXPECT_LT(fitting.losses.back(), -passes.forward(tokens) / static_cast<double>(tokens.size()));
  const HmmTables& found = fitting.model.probabilities();
  double best = 1;
  std::vector<std::int64_t> order{0, 1, 2};
  do {  // states have no names
    double worst = 0;
    for (std::size_t i = 0; i < 3; ++i) {
      for (std::size_t j = 0; j < 3; ++j) {
        worst = std::max(
            worst, std::abs(found.transition_from(order[i])[static_cast<std::size_t>(order[j])] -
                            hmm.transition[i][j]));
      }
      for (std::size_t x = 0; x < 6; ++x) {
        worst = std::max(
            worst,
            std::abs(found.emission_of(static_cast<int>(x))[static_cast<std::size_t>(order[i])] -
                     hmm.emission[i][x]));
      }
    }
    best = std::min(best, worst);
  } while (std::next_permutation(order.begin(), order.end()));
  EXPECT_LT(best, 0.02);
}

TEST(HmmFit, ThreadsDoNotChangeABit) {
  std::mt19937 random(6);
  const Tokens tokens = sampled(random, random_hmm(random, 6, 12, 3), 20'000);
  const HmmConfig config{.vocabulary = 12, .states = 11, .iterations = 4, .block = 50};
  const int threads = omp_get_max_threads();
  std::optional<std::vector<std::vector<double>>> expected;
  for (const int count : {1, 2, 3, 7}) {
    omp_set_num_threads(count);
    Fitting fitting(tokens, config);
    EXPECT_TRUE(fitting.fit());
    if (!expected) expected = values_of(fitting.model);
    EXPECT_EQ(values_of(fitting.model), *expected) << count;
  }
  omp_set_num_threads(threads);
}

TEST(HmmFit, GoesOnAsIfItHadNotStopped) {
  std::mt19937 random(8);
  const Tokens tokens = sampled(random, random_hmm(random, 4, 8, 3), 3000);
  const HmmConfig config{
      .vocabulary = 8, .states = 5, .iterations = 40, .tolerance = 2e-4, .block = 100};
  Fitting whole(tokens, config);
  EXPECT_TRUE(whole.fit());
  const std::int64_t taken = std::ssize(whole.losses);
  ASSERT_GT(taken, 4) << "the tolerance ends it";
  ASSERT_LT(taken, 40);
  EXPECT_TRUE(whole.model.is_over(taken));
  const test::TemporaryFolder folder;
  const auto path = folder / "tables.safetensors";
  for (std::int64_t stop = 1; stop < taken; stop += stop == 1 ? 1 : taken - 3) {
    Fitting first(tokens, config), second(tokens, config);
    EXPECT_TRUE(first.fit(0, stop));
    EXPECT_FALSE(first.model.is_over(stop));
    write_safetensors(path, first.model.tables(), {});
    second.model.load(SafetensorsFile(path));
    EXPECT_TRUE(second.fit(stop));
    EXPECT_EQ(stop + std::ssize(second.losses), taken);
    EXPECT_EQ(values_of(second.model), values_of(whole.model)) << stop;
  }
}

TEST(HmmFit, CutsTextsIntoSequences) {
  const auto cut = [](const Tokens& tokens, bool lines, std::int32_t boundary,
                      std::int64_t block = 100) {
    Corpus corpus;
    corpus.lines = lines;
    corpus.train.columns.push_back({"token", tokens_in_memory(tokens)});
    std::vector<std::pair<std::int64_t, std::int64_t>> places;
    for (const TextSequence& s : training_sequences(corpus, boundary, block)) {
      places.emplace_back(s.first, s.count);
    }
    return places;
  };
  using Places = std::vector<std::pair<std::int64_t, std::int64_t>>;
  EXPECT_EQ(cut({1, 2, 3, 1, 2}, false, -1), (Places{{0, 5}}));
  EXPECT_EQ(cut({1, 2, 3, 1, 2}, false, -1, 2), (Places{{0, 2}, {2, 2}, {4, 1}}));
  EXPECT_EQ(cut({1, 2, 3, 1, 2, 3}, false, 3), (Places{{0, 3}, {3, 3}})) << "documents with ends";
  EXPECT_EQ(cut({1, 2, 3, 1, 2, 3}, false, 3, 2), (Places{{0, 2}, {2, 1}, {3, 2}, {5, 1}}));
  EXPECT_EQ(cut({0, 2, 3, 0, 3, 0, 2, 2}, true, 0, 2), (Places{{1, 2}, {4, 1}, {6, 2}}))
      << "lines without <bos>";
}

}  // namespace
}  // namespace carousel
