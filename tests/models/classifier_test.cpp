#include "models/recurrent/classifier.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <tuple>

#include "engine/data/labelled_data.h"
#include "engine/data/samplers.h"
#include "engine/training/training_step.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/tensors.h"

namespace carousel {
namespace {

using test::close;
using test::read;

constexpr std::int64_t kExamples = 12;

/// Words of 1 to 6 letters, as many of each of three labels. All fit the sampler's smallest bound.
Corpus words() {
  std::string text;
  for (int i = 0; i < kExamples; ++i) {
    text += std::string(1, "pqr"[i % 3]) + '\t';
    for (int n = 0; n <= i % 6; ++n) text += static_cast<char>('a' + (i * i + 3 * n) % 7);
    text += '\n';
  }
  LabelledData data;
  data.train_fraction = 1;
  return data.corpus(Text::in_memory(text));
}

std::unique_ptr<BatchSource> batches(const Corpus& corpus, const Device& device, std::int64_t rows,
                                     bool training = false) {
  return example_batches(corpus, corpus.train,
                         {.device = device, .batch = rows, .training = training});
}

ClassifierConfig small(const Corpus& corpus, const std::string& pooling, double dropout = 0) {
  return {.vocabulary = corpus.vocabularies["token"].size(),
          .classes = corpus.vocabularies["label"].size(),
          .embed = 6,
          .encoder = {.cell = {"gru"}, .hidden = 16, .layers = 2, .dropout = dropout},
          .pooling = pooling};
}

/// A batch's loss and the gradients of all weights. `denominator` 0: what counts in the batch.
struct Judged {
  Judged(Classifier& model, const Batch& batch, float denominator = 0) {
    const Device& device = batch["token"].device();
    Arena arena(device);
    Tape tape(arena, true);
    Pass::Options options;
    if (denominator > 0) options.denominator = test::tensor_of<float>(device, {1}, {denominator});
    Pass pass(tape, options);
    const Objective objective = model.objective(pass, batch, {});
    tape.backward();
    model.parameters().zero_unreached(tape);
    loss = read<float>(objective.means(tape)).front();
    gradients = read<float>(model.parameters().flat_gradients());
  }
  float loss;
  std::vector<float> gradients;
};

/// Trains on all words at a time.
struct Training {
  Training(const ClassifierConfig& config, const Corpus& corpus, const Device& device,
           DType compute = DType::f32)
      : model(config, device, compute, /*seed=*/7),
        optimizer({.kind = "adam", .clip_norm = 1}, model.parameters()),
        source(batches(corpus, device, kExamples, true)),
        run{.model = model, .optimizer = optimizer, .data = *source, .state = {}},
        step(run, {.schedule = schedule, .seed = 3}) {}

  float next() {
    step.begin();
    step.run();
    return read<float>(step.means()).front();
  }

  Classifier model;
  Optimizer optimizer;
  std::unique_ptr<BatchSource> source;
  TrainingRun run;
  Schedule schedule{.learning_rate = 0.02};
  TrainingStep step;
};

class ClassifierOn : public testing::TestWithParam<std::tuple<Device, const char*>> {
 protected:
  Device device() const { return std::get<0>(GetParam()); }
  ClassifierConfig config() const { return small(corpus, std::get<1>(GetParam())); }
  const Corpus corpus = words();
};
INSTANTIATE_TEST_SUITE_P(All, ClassifierOn,
                         testing::Combine(testing::ValuesIn(test::devices()),
                                          testing::Values("last", "mean", "max")),
                         [](const auto& how) {
                           return test::device_name(std::get<0>(how.param)) + "_" +
                                  std::get<1>(how.param);
                         });

TEST_P(ClassifierOn, BeginsKnowingNothingAndLearnsABatchByHeart) {
  Training training(config(), corpus, device());
  float loss = training.next();
  EXPECT_NEAR(loss, std::log(3.0), 0.05 * std::log(3.0));
  for (int i = 0; i < 80; ++i) loss = training.next();
  EXPECT_LT(loss, 0.1F);
}

TEST_P(ClassifierOn, PaddingAndRowsThatFillUpTheBatchChangeNothing) {
  Classifier model(config(), device(), DType::f32, 7);
  const Judged plain(model, batches(corpus, device(), kExamples)->next());

  const auto source = batches(corpus, device(), kExamples + 4);
  const Batch filled = source->next();
  ASSERT_EQ(read<std::int32_t>(filled["label"]).back(), -1);
  const Judged with_rows(model, filled);
  EXPECT_NEAR(with_rows.loss, plain.loss, 1e-6);
  EXPECT_TRUE(close(with_rows.gradients, plain.gradients, {.absolute = 1e-7, .relative = 1e-5}));

  // More steps of padding, and other tokens in all of it.
  Field token = filled.at("token");
  const std::int64_t rows = filled.rows, steps = token.values.shape()[0] + 5;
  const auto lengths = read<std::int32_t>(token.lengths);
  auto values = read<std::int32_t>(token.values);
  values.resize(static_cast<std::size_t>(steps * rows));
  int changed = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto row = static_cast<std::int64_t>(i) % rows, t = static_cast<std::int64_t>(i) / rows;
    if (t < lengths[static_cast<std::size_t>(row)]) continue;
    values[i] = 3 + changed++ % 5;
  }
  ASSERT_GT(changed, 5 * rows + 40);
  token.values = test::tensor_of(device(), {steps, rows}, values);
  Batch padded = filled;
  padded.fields = {token, filled.at("label")};
  const Judged with_padding(model, padded);
  EXPECT_NEAR(with_padding.loss, with_rows.loss, 1e-6);
  // A token's gradient is a sum in the order of its places, of which some add 0.
  EXPECT_TRUE(
      close(with_padding.gradients, with_rows.gradients, {.absolute = 1e-7, .relative = 1e-5}));
}

TEST_P(ClassifierOn, TwoBatchesWithTheDenominatorOfBothAreOne) {
  Classifier model(config(), device(), DType::f32, 7);
  const Judged whole(model, batches(corpus, device(), kExamples)->next());
  const auto source = batches(corpus, device(), kExamples / 2);
  const Judged first(model, source->next(), kExamples), second(model, source->next(), kExamples);
  EXPECT_NEAR(first.loss + second.loss, whole.loss, 1e-6);
  std::vector<float> sum = first.gradients;
  for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += second.gradients[i];
  EXPECT_TRUE(close(sum, whole.gradients, {.absolute = 1e-7, .relative = 1e-5}));
}

TEST_P(ClassifierOn, EvaluatesAndPredictsByTheSameLogits) {
  ClassifierConfig smoothed = config();
  smoothed.label_smoothing = 0.3;  // in training alone
  smoothed.encoder.dropout = 0.5;  // likewise
  Classifier model(smoothed, device(), DType::f32, 7);
  const auto source = batches(corpus, device(), kExamples + 4);
  Batch batch = source->next();
  Arena arena(device());
  Tape tape(arena, false);
  Pass pass(tape, {.prediction = true});
  const Objective objective = model.objective(pass, batch, {});
  const auto logits = read<float>(objective.prediction);
  const float loss = read<float>(objective.means(tape)).front();

  const auto labels = read<std::int32_t>(batch["label"]);
  double sum = 0;
  for (std::size_t row = 0; row < kExamples; ++row) {
    double total = 0;
    for (std::size_t c = 0; c < 3; ++c) total += std::exp(double{logits[3 * row + c]});
    sum += std::log(total) - double{logits[3 * row + static_cast<std::size_t>(labels[row])]};
  }
  EXPECT_NEAR(loss, sum / kExamples, 1e-6);

  std::erase_if(batch.fields, [](const Field& field) { return field.name == "label"; });
  EXPECT_EQ(read<float>(model.predict(pass, batch)), logits);
}

TEST_P(ClassifierOn, TrainsAsTheCpuDoes) {
  ClassifierConfig dropped = config();
  dropped.encoder.dropout = 0.3;
  for (const DType compute : {DType::f32, DType::bf16}) {
    Training exact(dropped, corpus, Cpu{}), other(dropped, corpus, device(), compute);
    const double tolerance = compute == DType::f32 ? 1e-5 : 2e-2;
    for (int i = 0; i < 6; ++i) {
      EXPECT_NEAR(exact.next(), other.next(), tolerance) << name(compute) << ", step " << i;
    }
  }
}

}  // namespace
}  // namespace carousel
