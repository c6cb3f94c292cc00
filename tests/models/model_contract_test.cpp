// What engine/model/model.h asks of every model, on every device of the build.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/generation/generator.h"
#include "engine/run/run_config.h"
#include "models/ngram/ngram_lm.h"
#include "models/recurrent/classifier.h"
#include "models/recurrent/recurrent_lm.h"
#include "models/registry.h"
#include "models/seq2seq/seq2seq.h"
#include "models/transformer/transformer_lm.h"
#include "models/transformer/transformer_seq2seq.h"
#include "tests/models/pair_texts.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/files.h"
#include "tests/support/tensors.h"

namespace carousel {
namespace {

using Ids = std::vector<std::int32_t>;

constexpr std::int64_t kVocabulary = 11, kWidth = 8;

EncoderConfig encoder(const std::string& cell, std::int64_t layers, double dropout = 0) {
  return {.cell = {cell}, .hidden = kWidth, .layers = layers, .dropout = dropout};
}

/// Lines of a text as a model wants them: padded in one batch, or one alone.
using MakeBatch = std::function<Batch(const Device&, const std::vector<Ids>& lines)>;

Field tokens_of(const Device& device, const std::vector<Ids>& lines, std::size_t first,
                std::int32_t padding) {
  std::size_t steps = 0;
  for (const Ids& line : lines) steps = std::max(steps, line.size());
  Ids ids, lengths;
  for (std::size_t t = 0; t + 1 < steps; ++t) {
    for (const Ids& line : lines)
      ids.push_back(t + first < line.size() ? line[t + first] : padding);
  }
  for (const Ids& line : lines) {
    lengths.push_back(line.empty() ? 0 : static_cast<std::int32_t>(line.size() - 1));
  }
  const auto rows = static_cast<std::int64_t>(lines.size());
  return {.name = first == 0 ? "token" : "target",
          .values = test::tensor_of(device, {static_cast<std::int64_t>(steps) - 1, rows}, ids),
          .lengths = test::tensor_of(device, {rows}, lengths)};
}

/// Every token is predicted from those before it.
Batch language_batch(const Device& device, const std::vector<Ids>& lines) {
  Batch batch{.rows = std::ssize(lines),
              .fields = {tokens_of(device, lines, 0, 0), tokens_of(device, lines, 1, -1)}};
  for (const Ids& line : lines) batch.counted += line.empty() ? 0 : std::ssize(line) - 1;
  return batch;
}

/// A line's label is its last token, which is not read.
Batch example_batch(const Device& device, const std::vector<Ids>& lines) {
  Ids labels;
  Batch batch{.rows = std::ssize(lines), .fields = {tokens_of(device, lines, 0, 0)}};
  for (const Ids& line : lines) {
    labels.push_back(line.empty() ? -1 : line.back() % 3);
    batch.counted += line.empty() ? 0 : 1;
  }
  batch.fields.push_back({"label", test::tensor_of(device, {batch.rows}, labels)});
  return batch;
}

/// A line is what a source says that is the line backwards.
Batch translation_batch(const Device& device, const std::vector<Ids>& lines) {
  std::vector<test::IdPair> pairs;
  for (const Ids& line : lines) pairs.emplace_back(Ids(line.rbegin(), line.rend()), line);
  return test::pair_batch(device, pairs);
}

struct ModelCase {
  const char* name;
  std::function<std::unique_ptr<Model>(const Device&, const EncoderConfig&)> make;
  MakeBatch batch;
  std::size_t masks = 4;  ///< of three layers: of what is read, between the layers and on top
};

std::unique_ptr<Model> make_ngram_model(const Device& device, const EncoderConfig& config) {
  return std::make_unique<NgramLm>(NgramLmConfig{.vocabulary = kVocabulary,
                                                 .context = 3,
                                                 .embed = kWidth,
                                                 .hidden = kWidth,
                                                 .dropout = config.dropout},
                                   device, DType::f32, /*seed=*/3);
}
std::unique_ptr<Model> make_language_model(const Device& device, const EncoderConfig& config) {
  return std::make_unique<RecurrentLm>(
      RecurrentLmConfig{.vocabulary = kVocabulary, .embed = kWidth, .encoder = config}, device,
      DType::f32, /*seed=*/3);
}

std::unique_ptr<Model> make_transformer(const Device& device, const EncoderConfig& config) {
  return std::make_unique<TransformerLm>(TransformerLmConfig{.vocabulary = kVocabulary,
                                                             .context = 16,
                                                             .layers = 2,
                                                             .heads = 2,
                                                             .embed = kWidth,
                                                             .dropout = config.dropout},
                                         device, DType::f32, /*seed=*/3);
}

using Look = Seq2SeqConfig::Attention;

template <Look kAttention, bool kFeeds>
std::unique_ptr<Model> make_seq2seq(const Device& device, const EncoderConfig& config) {
  Seq2SeqConfig pairs{.source_vocabulary = kVocabulary,
                      .vocabulary = kVocabulary,
                      .embed = kWidth,
                      .encoder = config,
                      .attention = kAttention,
                      .input_feeding = kFeeds};
  pairs.encoder.bidirectional = true;
  return std::make_unique<Seq2Seq>(pairs, device, DType::f32, /*seed=*/3);
}

using NormPlace = TransformerSeq2seqConfig::NormPlace;

template <NormPlace kPlace>
std::unique_ptr<Model> make_translator(const Device& device, const EncoderConfig& config) {
  return std::make_unique<TransformerSeq2seq>(TransformerSeq2seqConfig{.sources = kVocabulary,
                                                                       .vocabulary = kVocabulary,
                                                                       .layers = 2,
                                                                       .decoder_layers = 1,
                                                                       .heads = 2,
                                                                       .embed = kWidth,
                                                                       .hidden = 2 * kWidth,
                                                                       .norm_place = kPlace,
                                                                       .dropout = config.dropout},
                                              device, DType::f32, /*seed=*/3);
}

template <const char* const* kPooling>
std::unique_ptr<Model> make_classifier(const Device& device, const EncoderConfig& config) {
  return std::make_unique<Classifier>(ClassifierConfig{.vocabulary = kVocabulary,
                                                       .classes = 3,
                                                       .embed = kWidth,
                                                       .encoder = config,
                                                       .pooling = *kPooling},
                                      device, DType::f32, /*seed=*/3);
}
constexpr const char *kLast = "last", *kMean = "mean", *kMax = "max";

const std::vector<ModelCase> kModels{
    {"ngram_lm", make_ngram_model, language_batch, /*masks=*/2},
    {"recurrent_lm", make_language_model, language_batch},
    {"transformer_lm", make_transformer, language_batch, /*masks=*/5},
    {"seq2seq", make_seq2seq<Look::dot, false>, translation_batch, /*masks=*/8},
    {"seq2seq, concat", make_seq2seq<Look::concat, false>, translation_batch, /*masks=*/8},
    // Of the encoder four, of what the decoder reads one, and of its layers three in each step.
    {"seq2seq with input feeding", make_seq2seq<Look::dot, true>, translation_batch, 5 + 3 * 6},
    {"seq2seq, additive", make_seq2seq<Look::additive, false>, translation_batch, 5 + 3 * 6},
    // Of what is read two, two in each layer of the encoder and three in that of the decoder.
    {"transformer_seq2seq", make_translator<NormPlace::post>, translation_batch, 2 + 2 * 2 + 3},
    {"transformer_seq2seq, pre-norm", make_translator<NormPlace::pre>, translation_batch,
     2 + 2 * 2 + 3},
    {"classifier by the last state", make_classifier<&kLast>, example_batch},
    {"classifier by the mean", make_classifier<&kMean>, example_batch},
    {"classifier by the maximum", make_classifier<&kMax>, example_batch}};

/// Calls f with a language model of each cell, one of n-grams and a transformer.
void for_language_models(const Device& device, const std::function<void(Model&)>& f) {
  for (const CellKind cell : cell_kinds()) {
    SCOPED_TRACE(cell->name);
    f(*make_language_model(device, encoder(std::string(cell->name), 2)));
  }
  SCOPED_TRACE("not recurrent");
  f(*make_ngram_model(device, {}));
  f(*make_transformer(device, {}));
}

/// A model's passes, one after the other.
struct Passes {
  Passes(Model& of, const Device& device)
      : model(of),
        arena(device),
        tape(arena, true),
        step(test::tensor_of<std::int64_t>(device, {1}, {1})) {}

  /// Forward and backward; the loss.
  double run(const Batch& batch, const State& state, std::int64_t denominator) {
    tape.clear();
    arena.reset();
    const auto divisor = static_cast<float>(denominator);
    Pass pass(tape, {.random = {.seed = 5, .step = step.view<std::int64_t, 1>()},
                     .denominator = test::tensor_of<float>(arena.device(), {1}, {divisor})});
    const Objective objective = model.objective(pass, batch, state);
    tape.backward();
    model.parameters().zero_unreached(tape);
    pass.finish();
    return static_cast<double>(host_floats(objective.means(tape))[0]);
  }
  std::vector<float> gradient() const { return host_floats(model.parameters().flat_gradients()); }

  Model& model;
  Arena arena;
  Tape tape;
  Tensor step;
};

class ModelsOn : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, ModelsOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

const std::vector<Ids> kLines{{1, 5, 3, 8, 2, 9, 4}, {7, 2, 6, 1}, {}, {4, 10}};

// The lines of a batch, each alone and divided by what counts in all of them, add up to the batch:
// what is padded is neither read nor counted, and parts of a batch are worth their share.
TEST_P(ModelsOn, PaddingChangesNothingAndPartsAddUp) {
  for (const ModelCase& c : kModels) {
    SCOPED_TRACE(c.name);
    const auto model = c.make(GetParam(), encoder("gru", 2));
    Passes passes(*model, GetParam());
    const Batch all = c.batch(GetParam(), kLines);
    const double loss = passes.run(all, model->initial_state(all.rows), all.counted);
    const std::vector<float> gradient = passes.gradient();
    double sum = 0;
    std::vector<float> gradients(gradient.size(), 0);
    for (const Ids& line : kLines) {
      if (line.empty()) continue;
      const Batch one = c.batch(GetParam(), {line});
      sum += passes.run(one, model->initial_state(1), all.counted);
      const std::vector<float> part = passes.gradient();
      for (std::size_t i = 0; i < part.size(); ++i) gradients[i] += part[i];
    }
    EXPECT_NEAR(loss, sum, 1e-6 * sum);
    EXPECT_TRUE(test::close(gradient, gradients, {.absolute = 1e-7, .relative = 1e-4}));
  }
}

TEST_P(ModelsOn, LossAndGradientsAreDividedByTheDenominator) {
  for (const ModelCase& c : kModels) {
    SCOPED_TRACE(c.name);
    const auto model = c.make(GetParam(), encoder("lstm", 1));
    Passes passes(*model, GetParam());
    const Batch batch = c.batch(GetParam(), kLines);
    const double loss = passes.run(batch, model->initial_state(batch.rows), 4);
    std::vector<float> gradient = passes.gradient();
    EXPECT_EQ(passes.run(batch, model->initial_state(batch.rows), 8), loss / 2);
    for (float& value : gradient) value /= 2;  // exact, as everything that a power of two scales
    EXPECT_EQ(passes.gradient(), gradient);
  }
}

TEST_P(ModelsOn, EveryPlaceOfDropoutHasAMaskOfItsOwn) {
  for (const ModelCase& c : kModels) {
    SCOPED_TRACE(c.name);
    const auto model = c.make(GetParam(), encoder("lstm", 3, /*dropout=*/0.5));
    Passes passes(*model, GetParam());
    const std::vector<Ids> lines{{1, 2, 3, 4, 5}, {6, 7, 8, 9, 10}, {2, 4, 6, 8, 10}};
    const Batch batch = c.batch(GetParam(), lines);
    passes.run(batch, model->initial_state(batch.rows), batch.counted);
    std::vector<std::pair<std::string, std::vector<bool>>> masks;
    for (const LabelledValue& labelled : passes.tape.labelled()) {
      if (!labelled.label.name.starts_with("dropout")) continue;
      std::vector<bool> mask;
      for (const float value : host_floats(labelled.value)) mask.push_back(value == 0);
      mask.resize(static_cast<std::size_t>(batch.rows * kWidth));  // as many as the smallest has
      masks.emplace_back(labelled.label.text(), mask);
    }
    EXPECT_EQ(masks.size(), c.masks);
    for (std::size_t i = 0; i < masks.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) {
        EXPECT_NE(masks[i].second, masks[j].second) << masks[i].first << ", " << masks[j].first;
      }
    }
  }
}

// The recurrent weights' gradient of a window of one step is δ·h₀ᵀ: it asks for the state before
// the step, which the pass must not have overwritten yet. Against a difference of losses.
TEST_P(ModelsOn, TheGradientOfAWindowIsThatAtTheStateItBeganWith) {
  for (const CellKind cell : cell_kinds()) {
    SCOPED_TRACE(cell->name);
    const auto model = make_language_model(GetParam(), encoder(std::string(cell->name), 1));
    Passes passes(*model, GetParam());
    const Batch first = language_batch(GetParam(), {{1, 5, 3}, {7, 2, 6}}),
                second = language_batch(GetParam(), {{3, 8}, {6, 1}});
    const State state = model->initial_state(2);
    passes.run(first, state, first.counted);
    std::vector<std::vector<float>> begun;
    for (const StateTensor& tensor : state.tensors) begun.push_back(host_floats(tensor.value));
    const auto loss = [&] {
      for (std::size_t i = 0; i < begun.size(); ++i) {
        copy_from_host(state.tensors[i].value, begun[i].data());
      }
      return passes.run(second, state, second.counted);
    };
    loss();
    Parameters& parameters = model->parameters();
    for (std::size_t i = 0; i < parameters.count(); ++i) {
      if (!parameters.name(i).ends_with("weight_hh_l0")) continue;
      const Tensor& weight = parameters.weight(i);
      const std::vector<float> before = host_floats(weight),
                               gradient = host_floats(parameters.gradient(i));
      double norm = 0;
      for (const float g : gradient) norm += static_cast<double>(g) * static_cast<double>(g);
      norm = std::sqrt(norm);
      ASSERT_GT(norm, 1e-3);
      const auto moved = [&](double by) {
        std::vector<float> values = before;
        for (std::size_t n = 0; n < values.size(); ++n) {
          values[n] += static_cast<float>(by * static_cast<double>(gradient[n]) / norm);
        }
        copy_from_host(weight, values.data());
        return loss();
      };
      EXPECT_NEAR((moved(0.05) - moved(-0.05)) / 0.1, norm, 0.01 * norm);
      copy_from_host(weight, before.data());
    }
  }
}

TEST_P(ModelsOn, APromptInOnePassIsThePromptTokenByToken) {
  for_language_models(GetParam(), [](Model& model) {
    const Tensor prompt =
        test::tensor_of<std::int32_t>(GetParam(), {4, 2}, {1, 2, 3, 4, 5, 6, 7, 8});
    Arena arena(GetParam());
    Tape tape(arena, false);
    const auto read = [&](const State& state, const Tensor& token) {
      Pass pass(tape);
      const Tensor logits = model.decoder()->logits(pass, {"token", token}, state);
      pass.finish();
      return host_floats(logits);
    };
    const State at_once = model.decoder()->decoding_state(2),
                one_by_one = model.decoder()->decoding_state(2);
    const std::vector<float> logits = read(at_once, prompt);
    std::vector<float> last;
    for (std::int64_t t = 0; t < 4; ++t) last = read(one_by_one, prompt.slice(t, 1));
    EXPECT_TRUE(test::close(logits, last, {.absolute = 1e-6, .relative = 1e-5}));
    for (const StateTensor& tensor : at_once.tensors) {
      if (tensor.value.dtype() == DType::i64) {
        EXPECT_EQ(test::read<std::int64_t>(tensor.value),
                  test::read<std::int64_t>(one_by_one.at(tensor.name).value));
        continue;
      }
      if (tensor.value.dtype() == DType::i32) {
        EXPECT_EQ(test::read<std::int32_t>(tensor.value),
                  test::read<std::int32_t>(one_by_one.at(tensor.name).value));
        continue;
      }
      EXPECT_TRUE(test::close(host_floats(tensor.value),
                              host_floats(one_by_one.at(tensor.name).value),
                              {.absolute = 1e-6, .relative = 1e-5}))
          << tensor.name;
    }
  });
}

TEST_P(ModelsOn, PromptsOfDifferentLengthsGoOnAsEachWouldAlone) {
  for_language_models(GetParam(), [](Model& model) {
    const std::vector<Ids> prompts{{3, 1, 4, 1, 5}, {9}, {2, 6, 5}};
    Generator together(model, {.greedy = true}, std::ssize(prompts));
    together.begin(prompts);
    std::vector<Ids> steps;
    for (int i = 0; i < 4; ++i) steps.push_back(together.next());
    for (std::size_t row = 0; row < prompts.size(); ++row) {
      Generator alone(model, {.greedy = true});
      alone.begin(prompts[row]);
      Ids want, got;
      for (const Ids& step : steps) {
        want.push_back(alone.next()[0]);
        got.push_back(step[row]);
      }
      EXPECT_EQ(got, want) << "row " << row;
    }
  });
}

TEST(Models, AConfigOfTheFormerLanguageModelIsOneOfTheRecurrentOne) {
  const auto config = [](const std::string& kind) {
    return RunConfig("[model]\nkind = '" + kind + "'\nhidden = 7\n[data]\ntext = '/text'\n",
                     "config", model_registry())
        .toml();
  };
  EXPECT_EQ(config("lstm_lm"), config("recurrent_lm"));
  EXPECT_NE(config("lstm_lm").find("cell = \"lstm\""), std::string::npos);
}

}  // namespace
}  // namespace carousel
