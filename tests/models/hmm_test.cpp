// Hidden Markov model: what it says of tokens and states, samples, files.
#include "models/hmm/hmm.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "engine/generation/generator.h"
#include "engine/training/evaluation.h"
#include "kernels/common/check.h"
#include "tests/reference/hmm.h"
#include "tests/support/files.h"
#include "tests/support/hmm.h"

namespace carousel {
namespace {

using Tokens = std::vector<std::int32_t>;
using test::error_text;
using test::random_hmm;

std::vector<std::vector<double>> values_of(const Hmm& model) {
  const HmmTables& tables = model.probabilities();
  return {tables.start, tables.transition, tables.emission};
}

/// A model with these tables.
Hmm model_of(const reference::Hmm& hmm, std::int32_t begin = -1, std::int32_t boundary = -1) {
  const HmmConfig config{.vocabulary = std::ssize(hmm.emission.front()),
                         .begin = begin,
                         .states = std::ssize(hmm.start)};
  Hmm model(config, Cpu{}, DType::f32, 1);
  std::vector<NamedTensor> tables = model.tables();
  const auto fill = [&](const char* name, auto&& at) {
    for (const NamedTensor& table : tables) {
      if (table.name != name) continue;
      auto* const to = static_cast<double*>(table.tensor.mutable_data());
      for (std::int64_t i = 0; i < table.tensor.size(); ++i)
        to[i] = at(static_cast<std::size_t>(i));
    }
  };
  const std::size_t states = hmm.states();
  fill("start", [&](std::size_t i) { return hmm.start[i]; });
  fill("transition", [&](std::size_t i) { return hmm.transition[i / states][i % states]; });
  fill("emission", [&](std::size_t i) { return hmm.emission[i % states][i / states]; });
  *static_cast<std::int32_t*>(tables.front().tensor.mutable_data()) = boundary;
  const test::TemporaryFolder folder;
  write_safetensors(folder / "tables.safetensors", tables, {});
  model.load(SafetensorsFile(folder / "tables.safetensors"));
  return model;
}

/// p(next | tokens) by enumeration; the probability of the first token if there are none.
double next_probability(const reference::Hmm& hmm, std::vector<int> tokens, std::int32_t next) {
  const double before = tokens.empty() ? 1 : reference::Enumeration(hmm, tokens).probability;
  tokens.push_back(next);
  return reference::Enumeration(hmm, tokens).probability / before;
}

TEST(Hmms, WhatIsSampledIsDistributedAsTheModelSays) {
  std::mt19937 random(9);
  const reference::Hmm hmm = random_hmm(random, 3, 5, 2);
  Hmm model = model_of(hmm);
  constexpr std::int64_t kRows = 20'000;
  Generator generator(model, {.seed = 3}, kRows);
  const Tokens prompt{1, 4, 2};
  generator.begin(std::vector<Tokens>(kRows, prompt));
  const std::vector<double> said = generator.probabilities().front();
  for (std::int32_t token = 0; token < 5; ++token) {
    EXPECT_NEAR(said[static_cast<std::size_t>(token)], next_probability(hmm, prompt, token), 1e-7);
  }
  std::vector<double> counts(25);
  const Tokens first = generator.next();
  const Tokens& second = generator.next();
  for (std::size_t row = 0; row < static_cast<std::size_t>(kRows); ++row) {
    ++counts[static_cast<std::size_t>(first[row] * 5 + second[row])];
  }
  double chi_square = 0;
  for (std::int32_t pair = 0; pair < 25; ++pair) {
    Tokens tokens = prompt;
    const double one = next_probability(hmm, tokens, pair / 5);
    tokens.push_back(pair / 5);
    const double mean = one * next_probability(hmm, tokens, pair % 5) * kRows;
    const double difference = counts[static_cast<std::size_t>(pair)] - mean;
    chi_square += difference * difference / mean;
  }
  EXPECT_LT(chi_square, 51.2);  // of 24 degrees of freedom, passed once in a thousand
}

// Rows are read on as if each were alone, in windows, with resets and over a boundary.
TEST(Hmms, AStateCarriesWhatWasRead) {
  std::mt19937 random(10);
  const reference::Hmm hmm = random_hmm(random, 4, 6, 2);
  Hmm model = model_of(hmm, -1, /*boundary=*/5);
  Arena arena(Cpu{});
  Tape tape(arena, false);
  const State state = model.initial_state(2);
  const auto tensor = [](Shape shape, const Tokens& values) {
    Tensor result(Cpu{}, shape, DType::i32);
    copy_from_host(result, values.data());
    return result;
  };
  // Row 0 reads 2 2 4 in both windows, row 1 reads 3 5 1: 5 ends a sequence.
  const Tokens tokens{2, 3, 2, 5, 4, 1}, targets{5, -1, 4, 5, 2, 3};
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
    EXPECT_NEAR(host_floats(objective.means(tape))[0],
                std::accumulate(nats.begin(), nats.end(), 0.0F) / 5, 1e-6);
  }
  // The second window; row 0 is reset before its second token.
  const std::vector<std::vector<int>> histories{{2, 2, 4, 2}, {}, {2}, {}, {2, 4}, {1}};
  for (std::size_t i = 0; i < 6; ++i) {
    const double expected =
        targets[i] < 0 ? 0 : -std::log(next_probability(hmm, histories[i], targets[i]));
    EXPECT_NEAR(nats[i], expected, 1e-6) << i;
  }
}

TEST(Hmms, PromptsMayHaveDifferentLengths) {
  std::mt19937 random(11);
  reference::Hmm hmm = random_hmm(random, 4, 6, 2);
  Hmm model = model_of(hmm, -1, /*boundary=*/0);  // as <bos> of lines
  Generator generator(model, {}, 3);
  generator.begin(std::vector<Tokens>{{0, 2}, {0, 3, 3, 5, 3}, {0}});
  const auto all = generator.probabilities();
  const std::vector<std::vector<int>> histories{{2}, {3, 3, 5, 3}, {}};
  for (std::size_t row = 0; row < 3; ++row) {
    for (std::int32_t token = 0; token < 6; ++token) {
      EXPECT_NEAR(all[row][static_cast<std::size_t>(token)],
                  next_probability(hmm, histories[row], token), 1e-7)
          << row;
    }
  }
}

TEST(Hmms, TracksTheStatesOfSequences) {
  std::mt19937 random(12);
  const reference::Hmm hmm = random_hmm(random, 3, 4, 2);
  const Hmm model = model_of(hmm);
  const std::vector<Tokens> sequences{{0, 1, 3, 2}, {}, {2}, {3, 3, 0, 1, 2}};
  for (const StateQuestion question :
       {StateQuestion::path, StateQuestion::filter, StateQuestion::smooth}) {
    const std::vector<TrackedStates> answers = model.track(sequences, question);
    ASSERT_EQ(answers.size(), 4U);
    for (std::size_t i = 0; i < 4; ++i) {
      const Tokens& tokens = sequences[i];
      const TrackedStates& answer = answers[i];
      ASSERT_EQ(answer.states.size(), tokens.size());
      if (tokens.empty()) {
        EXPECT_EQ(answer.log_probability, 0);
        continue;
      }
      const reference::Enumeration expected(hmm, tokens);
      if (question == StateQuestion::path) {
        EXPECT_EQ(answer.states, expected.path);
        EXPECT_NEAR(answer.log_probability, std::log(expected.path_probability), 1e-12);
        EXPECT_TRUE(answer.probabilities.empty());
        continue;
      }
      EXPECT_NEAR(answer.log_probability, std::log(expected.probability), 1e-12);
      ASSERT_EQ(answer.probabilities.size(), tokens.size() * 3);
      for (std::size_t t = 0; t < tokens.size(); ++t) {
        const auto end = tokens.begin() + static_cast<std::ptrdiff_t>(t) + 1;
        const std::vector<double> wanted =
            question == StateQuestion::smooth
                ? expected.smoothed[t]
                : reference::Enumeration(hmm, Tokens(tokens.begin(), end)).smoothed[t];
        for (std::size_t z = 0; z < 3; ++z) {
          EXPECT_NEAR(answer.probabilities[t * 3 + z], wanted[z], 1e-12);
        }
        EXPECT_EQ(answer.states[t],
                  std::max_element(wanted.begin(), wanted.end()) - wanted.begin());
      }
    }
  }
}

TEST(Hmms, FilesAreReadBackAndDamagedOnesRefused) {
  std::mt19937 random(13);
  const reference::Hmm hmm = random_hmm(random, 3, 4);
  const Hmm model = model_of(hmm, -1, 2);
  const test::TemporaryFolder folder;
  const auto path = folder / "model.safetensors";
  const auto load = [&](const HmmConfig& as) {
    Hmm read(as, Cpu{}, DType::f32, 1);
    read.load(SafetensorsFile(path));
    return read;
  };
  const HmmConfig config{.vocabulary = 4, .states = 3};
  write_safetensors(path, model.tables(), {});
  EXPECT_EQ(values_of(load(config)), values_of(model));
  EXPECT_EQ(load(config).boundary(), 2);
  EXPECT_THROW(load({.vocabulary = 4, .states = 4}), FormatError);
  EXPECT_THROW(load({.vocabulary = 5, .states = 3}), FormatError);
  for (const NamedTensor& damaged : model.tables()) {
    for (const double value : {-2.0, 1e9, std::nan("")}) {
      if (damaged.name == "losses" && value == value) continue;  // any number may be one
      std::vector<NamedTensor> tables = model.tables();
      for (NamedTensor& table : tables) {
        if (table.name != damaged.name) continue;
        if (table.name == "boundary") {
          *static_cast<std::int32_t*>(table.tensor.mutable_data()) = value > 0 ? 4 : -2;
        } else {
          *static_cast<double*>(table.tensor.mutable_data()) = value;
        }
      }
      write_safetensors(path, tables, {});
      EXPECT_NE(error_text<FormatError>([&] { load(config); }).find("'" + damaged.name + "'"),
                std::string::npos)
          << damaged.name << ' ' << value;
    }
  }
}

}  // namespace
}  // namespace carousel
