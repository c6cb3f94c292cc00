// Scores of lines against the evaluation of each as a text of its own.
#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/run/trained_model.h"
#include "engine/run/training.h"
#include "engine/text/line_encoder.h"
#include "kernels/common/check.h"
#include "models/registry.h"
#include "tests/support/device.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

using test::TemporaryFolder;

std::string text_of(int lines) {
  std::string text;
  for (int i = 0; i < lines; ++i) {
    const std::string number = std::to_string(i * i % 97);
    text += "sum " + number + " ; it is " + std::to_string(i * i % 7) + "\n";
  }
  return text;
}

const std::string kRecurrent = "kind = 'recurrent_lm'\nembed = 12\nhidden = 20\ncell = 'gru'\n";

/// A run of one step.
struct OneStep {
  OneStep(const Device& device, const std::vector<std::string>& set,
          const std::string& model = kRecurrent) {
    folder.write("text", text_of(40));
    const RunConfig config("[model]\n" + model + "[data]\ntext = '" + folder.path("text") +
                               "'\n[train]\nsteps = 1\n"
                               "batch = 4\nwindow = 6\n[optimizer]\nlearning_rate = 0.1\n",
                           "config", model_registry(),
                           {.set = set, .device = is_cpu(device) ? "cpu" : "cuda"});
    train(config, folder / "run");
    trained.emplace(folder / "run", model_registry());
  }
  std::vector<LineIds> ids(const std::vector<std::string>& lines) const {
    LineEncoder encoder(trained->vocabularies()["token"], "lines", LineEncoder::End::closed);
    std::vector<LineIds> all;
    for (const std::string& line : lines) all.push_back(encoder.next(line));
    return all;
  }
  TemporaryFolder folder;
  std::optional<TrainedModel> trained;
};

class LineScores : public testing::TestWithParam<Device> {};
INSTANTIATE_TEST_SUITE_P(Devices, LineScores, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

TEST_P(LineScores, ALineScoresAsATextOfItsOwnAndTheSameBitsAloneAndAmongOthers) {
  struct Case {
    std::vector<std::string> set;
    std::string model = kRecurrent;
  };
  const Case cases[] = {
      {{"data.tokens=char"}},
      {{"data.tokens=char", "data.unit=line"}},
      {{"data.tokens=char", "model.context=24", "model.stride=16"},
       "kind = 'transformer_lm'\nembed = 12\nheads = 2\nlayers = 2\n"},
      {{"data.tokens=byte", "data.unit=line", "model.learn_initial_state=true"}},
      {{"data.tokens=char", "data.document_end=;"}},
      {{"data.tokens=char", "data.unit=line", "data.answer_after=;"}},
      {{"data.tokens=word", "data.newline=eos", "data.minimum_count=3", "model.cell=lstm"}}};
  std::string longest;  // beyond the length at which lines have batches of another shape
  for (int i = 0; i < 70; ++i) longest += "sum 49 ; it is no number of them all ; ";
  std::vector<std::string> lines{longest + "\n", "sum ; 7\n", "sum 9 ; it is 2\n", "it is ;"};
  for (int i = 0; i < 40; ++i) {
    lines.insert(lines.end() - 1,
                 longest.substr(0, 5 + static_cast<std::size_t>(i * i % 90)) + "\n");
  }
  // The emulated device takes seconds for a case.
  for (const auto& [set, model] :
       std::span(cases).first(is_cpu(GetParam()) ? std::size(cases) : 2)) {
    SCOPED_TRACE(model + set[0] + " " + (set.size() > 1 ? set[1] : ""));
    OneStep run(GetParam(), set, model);
    TrainedModel& trained = *run.trained;
    const std::vector<LineIds> ids = run.ids(lines);
    const std::vector<LineScore> scores = trained.score(ids);
    ASSERT_EQ(scores.size(), lines.size());
    for (const std::size_t i : {0U, 1U, 2U, 30U, 43U}) {
      SCOPED_TRACE(i);
      const std::string line = lines[i].find(';') == std::string::npos ? "sum ; 7\n" : lines[i];
      const LineIds one = run.ids({line})[0];
      const LineScore score = trained.score(std::span(&one, 1))[0];
      const Corpus corpus =
          trained.config().data->evaluation(Text::in_memory(line), trained.vocabularies(), {});
      const Evaluation expected = trained.evaluate(corpus);
      EXPECT_EQ(score.counted(), expected.counted);
      const double nats = expected.find("loss")->value * static_cast<double>(expected.counted);
      EXPECT_NEAR(-score.log_probability(), nats, 1e-6 * nats);
      EXPECT_NEAR(score.perplexity(), std::exp(expected.find("loss")->value),
                  1e-5 * score.perplexity());
    }
    if (!is_cpu(GetParam())) continue;
    for (std::size_t i = 0; i < lines.size(); ++i) {
      EXPECT_EQ(trained.score(std::span(&ids[i], 1))[0].tokens, scores[i].tokens) << lines[i];
    }
  }
}

TEST_P(LineScores, LinesWithoutTokensOrTargetsHaveNoPerplexity) {
  OneStep run(GetParam(), {"data.tokens=char"});
  const std::vector<LineScore> scores =
      run.trained->score(std::vector<LineIds>{{}, {3}, {3, 4}, {}});
  EXPECT_EQ(scores[0].tokens.size(), 0U);
  EXPECT_EQ(scores[1].counted(), 0);
  EXPECT_EQ(scores[1].log_probability(), 0);
  EXPECT_TRUE(std::isnan(scores[1].perplexity()));
  EXPECT_EQ(scores[2].counted(), 1);
  EXPECT_FALSE(scores[2].tokens[0].has_value());
  EXPECT_TRUE(run.trained->score({}).empty());
}

TEST(LineScoring, IsNotForModelsThatDoNotScore) {
  const TemporaryFolder folder;
  folder.write("text", "x\tab\ny\tcd\nx\tae\ny\tcf\n");
  train(RunConfig("[model]\nkind = 'classifier'\nhidden = 4\n[data]\nkind = 'labelled'\ntext = '" +
                      folder.path("text") +
                      "'\n[train]\nsteps = 1\nbatch = 2\n[run]\ndevice = 'cpu'\n",
                  "config", model_registry()),
        folder / "run");
  TrainedModel trained(folder / "run", model_registry());
  EXPECT_EQ(test::error_text<ConfigError>([&] {
              trained.score(std::vector<LineIds>{{1, 2}});
            }),
            "score: model.kind = classifier does not score");
}

}  // namespace
}  // namespace carousel
