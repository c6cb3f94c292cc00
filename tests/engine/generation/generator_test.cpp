// Generation with a decoder whose every logit is known: what follows a token depends on the token
// before it, which is its state.
#include "engine/generation/generator.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "kernels/common/check.h"
#include "tests/support/device.h"
#include "tests/support/files.h"
#include "tests/support/tensors.h"

namespace carousel {
namespace {

using Tokens = std::vector<std::int32_t>;

/// p(token | token before the last, the last) is a row of `table` [V, V]: that of the token before
/// the last. It is the state: 0 at the beginning.
class SecondToLast final : public Model, public Decoder {
 public:
  SecondToLast(const Device& device, std::int64_t vocabulary, const Initializer& table) {
    parameters_.declare("table", {vocabulary, vocabulary}, table);
    parameters_.materialize(device, DType::f32, /*seed=*/4);
  }
  Parameters& parameters() override { return parameters_; }
  State initial_state(std::int64_t batch) const override {
    State state{{{.name = "last",
                  .value = Tensor(parameters_.device(), {1, batch}, DType::i32),
                  .batch_axis = 1}}};
    state.reset();
    return state;
  }
  Objective objective(Pass&, const Batch&, const State&) override { return {}; }
  Decoder* decoder() override { return this; }
  State decoding_state(std::int64_t batch) const override { return initial_state(batch); }
  Tensor logits(Pass& pass, const Field& token, const State& state) override {
    ++calls;
    Tensor last = token.values, before = state.at("last").value;
    if (const std::int64_t steps = token.values.shape()[0]; steps > 1) {
      last = pass.tape().tensor(before.shape(), DType::i32);
      before = pass.tape().tensor(before.shape(), DType::i32);
      const std::int64_t rows = before.size();
      const Tokens ids = test::read<std::int32_t>(token.values);
      Tokens lengths(static_cast<std::size_t>(rows), static_cast<std::int32_t>(steps));
      if (token.lengths) lengths = test::read<std::int32_t>(token.lengths);
      Tokens host_last, host_before;
      for (std::int64_t row = 0; row < rows; ++row) {
        const auto end = lengths[static_cast<std::size_t>(row)];
        const auto id = [&](std::int64_t t) {
          return t < 0 ? 0 : ids[static_cast<std::size_t>(t * rows + row)];
        };
        host_last.push_back(id(end - 1));
        host_before.push_back(id(end - 2));
      }
      copy_from_host(last, host_last.data());
      copy_from_host(before, host_before.data());
    }
    pass.carry(last, state.at("last").value);
    const Tensor rows = embedding(parameters_.on(pass.tape(), 0), before).value();
    return rows.reshaped({rows.shape()[1], rows.shape()[2]});
  }

  int calls = 0;

 private:
  Parameters parameters_;
};

constexpr Initializer kDrawn{.kind = Initializer::Kind::normal, .scale = 2};
constexpr Initializer kUniform{};

std::vector<Tokens> generate(Generator& generator, std::int64_t count) {
  std::vector<Tokens> tokens;  // of each step
  for (std::int64_t i = 0; i < count; ++i) tokens.push_back(generator.next());
  return tokens;
}

class GeneratorOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, GeneratorOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

// Where all tokens are as probable, a token is the random number of its draw and its row, times V.
TEST_P(GeneratorOn, EveryTokenOfEveryRowHasARandomNumberOfItsOwn) {
  constexpr std::int64_t kVocabulary = 1024, kRows = 5, kSteps = 6;
  SecondToLast model(GetParam(), kVocabulary, kUniform);
  Generator generator(model, {.seed = 11}, kRows);
  const std::vector<Tokens> prompts(kRows, Tokens{1});
  for (int round = 0; round < 2; ++round) {  // a new beginning draws as the first one did
    generator.begin(prompts);
    const RandomSource random{.seed = 11};
    std::set<std::int32_t> different;
    for (std::int64_t draw = 0; draw < kSteps; ++draw) {
      const Tokens tokens = generator.next();
      for (std::size_t row = 0; row < kRows; ++row) {
        const float u = uniform(random.words(row / 4, draw)[row % 4]);
        EXPECT_EQ(tokens[row], static_cast<std::int32_t>(u * kVocabulary))
            << "draw " << draw << ", row " << row;
        different.insert(tokens[row]);
      }
    }
    EXPECT_GT(different.size(), kRows * kSteps - 3U);
  }
}

// Rows of logits that hardly differ: whatever would be ignored of a config, one of them shows it.
TEST_P(GeneratorOn, EveryPartOfASamplingConfigIsFollowed) {
  constexpr std::int64_t kRows = 8;
  using Set = std::set<std::int32_t>;
  const auto chosen = [&]<class T>(const SamplingConfig& config, std::type_identity<T>) {
    std::vector<T> values;
    for (std::int64_t row = 0; row < kRows; ++row) {
      for (const float logit : {0.0F, 0.25F, 0.5F, 0.125F}) values.push_back(T(logit));
    }
    const Tensor token(GetParam(), {kRows}, DType::i32);
    choose_tokens(test::tensor_of(GetParam(), {kRows, 4}, values), config,
                  test::tensor_of<std::int64_t>(GetParam(), {1}, {0}), token);
    const Tokens tokens = test::read<std::int32_t>(token);
    return Set(tokens.begin(), tokens.end());
  };
  constexpr std::type_identity<float> kFloat;
  EXPECT_GT(chosen({}, kFloat).size(), 2U);
  EXPECT_EQ(chosen({.greedy = true}, kFloat), Set{2});
  EXPECT_EQ(chosen({.greedy = true, .suppressed_token = 2}, kFloat), Set{1});
  EXPECT_EQ(chosen({.temperature = 1e-3}, kFloat), Set{2});
  EXPECT_EQ(chosen({.top_k = 2}, kFloat), (Set{1, 2}));
  EXPECT_EQ(chosen({.top_p = 0.5}, kFloat), (Set{1, 2}));
  EXPECT_EQ(chosen({}, std::type_identity<bf16>{}), chosen({}, kFloat)) << "the same numbers";
}

TEST_P(GeneratorOn, StepsAsGraphsAndKernelByKernelGiveTheSameTokens) {
  constexpr std::int64_t kSteps = 9;
  for (const SamplingConfig& config : std::vector<SamplingConfig>{
           {.greedy = true}, {.seed = 5}, {.temperature = 0.8, .top_k = 9, .top_p = 0.8}}) {
    SecondToLast model(GetParam(), 70, kDrawn);
    Generator graphs(model, config, 3), eager(model, config, 3, /*graph=*/false);
    for (int round = 0; round < 2; ++round) {  // graphs outlive the text they were made for
      const std::vector<Tokens> prompts{{1, 2}, {3, 4}, {5, 6}};
      graphs.begin(prompts);
      eager.begin(prompts);
      EXPECT_EQ(generate(graphs, kSteps), generate(eager, kSteps));
    }
    EXPECT_EQ(eager.graphs().captured(), 0);
    if (is_cpu(GetParam())) continue;
    EXPECT_EQ(graphs.graphs().captured(), 2) << "one reads what begin() left, one what a step left";
    EXPECT_EQ(graphs.graphs().launched(), 2 * kSteps - 2);
    EXPECT_EQ(graphs.refusal(), "");
  }
}

// The loop that a Generator is, by hand: on CUDA its steps are graphs.
TEST_P(GeneratorOn, GivesTheTokensOfStepsTakenOneByOne) {
  constexpr std::int64_t kVocabulary = 50, kRows = 2, kSteps = 8;
  for (const SamplingConfig& config : std::vector<SamplingConfig>{
           {.greedy = true},
           {.temperature = 0.7, .top_k = 7, .top_p = 0.9, .seed = 6, .suppressed_token = 3}}) {
    SecondToLast model(GetParam(), kVocabulary, kDrawn);
    Generator generator(model, config, kRows);
    generator.begin(std::vector<Tokens>{{7, 8}, {9, 10}});
    const int before = model.calls;
    const std::vector<Tokens> got = generate(generator, kSteps);
    EXPECT_EQ(model.calls - before, is_cpu(GetParam()) ? kSteps : 3) << "the others are launched";

    Arena arena(GetParam());
    Tape tape(arena, false);
    const State state = model.initial_state(kRows);
    Tensor token = test::tensor_of<std::int32_t>(GetParam(), {2, kRows}, {7, 9, 8, 10});
    for (std::int64_t draw = 0; draw < kSteps; ++draw) {
      Pass pass(tape);
      const Tensor logits = model.logits(pass, {"token", token}, state);
      pass.finish();
      token = Tensor(GetParam(), {1, kRows}, DType::i32);
      choose_tokens(logits, config, test::tensor_of<std::int64_t>(GetParam(), {1}, {draw}), token);
      EXPECT_EQ(got[static_cast<std::size_t>(draw)], test::read<std::int32_t>(token));
      for (const std::int32_t id : got[static_cast<std::size_t>(draw)]) {
        EXPECT_NE(id, config.suppressed_token);
      }
    }
  }
}

TEST_P(GeneratorOn, ProbabilitiesAreTheModelsWhateverIsSampled) {
  constexpr std::int64_t kVocabulary = 300;
  SecondToLast model(GetParam(), kVocabulary, kDrawn);
  const std::vector<float> table = host_floats(model.parameters().weight(0));
  Generator generator(model, {.temperature = 0.1, .top_k = 1, .suppressed_token = 3}, 2);
  generator.begin(std::vector<Tokens>{{7, 8}, {9, 10}});
  const auto expect_rows = [&](std::int32_t first, std::int32_t second) {
    const auto got = generator.probabilities();
    ASSERT_EQ(got.size(), 2U);
    std::size_t row = 0;
    for (const std::int32_t before : {first, second}) {
      const float* const logits = table.data() + before * kVocabulary;
      double sum = 0;
      for (std::int64_t i = 0; i < kVocabulary; ++i)
        sum += std::exp(static_cast<double>(logits[i]));
      for (std::size_t i = 0; i < kVocabulary; ++i) {
        EXPECT_NEAR(got[row][i], std::exp(static_cast<double>(logits[i])) / sum, 1e-12);
      }
      ++row;
    }
  };
  expect_rows(7, 9);
  generator.next();
  expect_rows(8, 10);
}

TEST_P(GeneratorOn, PromptsOfDifferentLengthsGoOnAsEachWouldAlone) {
  SecondToLast model(GetParam(), 50, kDrawn);
  const std::vector<Tokens> prompts{{3, 1, 4, 1, 5}, {9}, {2, 6}, {5, 3, 5, 8}};
  Generator together(model, {.greedy = true}, std::ssize(prompts));
  together.begin(prompts);
  const std::vector<Tokens> got = generate(together, 5);
  for (std::size_t row = 0; row < prompts.size(); ++row) {
    Generator alone(model, {.greedy = true});
    alone.begin(prompts[row]);
    const std::vector<Tokens> want = generate(alone, 5);
    std::set<std::int32_t> different;
    for (std::size_t i = 0; i < got.size(); ++i) {
      EXPECT_EQ(got[i][row], want[i][0]) << "row " << row << ", token " << i;
      different.insert(want[i][0]);
    }
    EXPECT_GT(different.size(), 1U);
  }
}

// Graphs of earlier texts are there still, and so is their state.
TEST_P(GeneratorOn, EveryBeginningIsAsTheFirstOfANewGenerator) {
  SecondToLast model(GetParam(), 50, kDrawn);
  const SamplingConfig config{.temperature = 1.5, .seed = 2};
  Generator used(model, config);
  for (const Tokens& prompt :
       std::vector<Tokens>{{5}, {1, 2, 3}, Tokens(300, 7), {1, 2, 3}, {30}}) {
    used.begin(prompt);
    Generator fresh(model, config);
    fresh.begin(prompt);
    EXPECT_EQ(generate(used, 5), generate(fresh, 5)) << "a prompt of " << prompt.size();
  }
}

TEST_P(GeneratorOn, LogitsThatAreNotNumbersAreAnError) {
  SecondToLast model(GetParam(), 3, kUniform);
  const std::vector<float> table{0, 0, 0, 0, NAN, 0, 0, 0, 0};
  copy_from_host(model.parameters().weight(0), table.data());
  Generator generator(model, {}, 2);
  generator.begin(std::vector<Tokens>{{2, 2}, {1, 2}});  // the second reads the row of 1
  EXPECT_NE(test::error_text<Error>([&] { generator.next(); }).find("not finite"),
            std::string::npos);
}

TEST(Generator, RefusesWhatItCannotBeginWith) {
  class Mute final : public Model {
   public:
    Parameters& parameters() override { return parameters_; }
    Objective objective(Pass&, const Batch&, const State&) override { return {}; }

   private:
    Parameters parameters_ = test::one_parameter(Cpu{}, 1);
  } mute;
  EXPECT_THROW(Generator(mute, {}), ConfigError);

  SecondToLast model(Cpu{}, 3, kUniform);
  Generator generator(model, {}, 2);
  EXPECT_THROW(generator.begin(std::vector<Tokens>{{1}}), ShapeError);
  EXPECT_THROW(generator.begin(std::vector<Tokens>{{1}, {}}), ShapeError);
  EXPECT_THROW(generator.begin(std::vector<Tokens>{{1}, {1}, {1}}), ShapeError);
  EXPECT_NO_THROW(generator.begin(std::vector<Tokens>{{1}, {1, 2}}));
}

}  // namespace
}  // namespace carousel
