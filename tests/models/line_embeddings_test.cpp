// Hidden states of lines against those of each line in a batch of its own.
#include <gtest/gtest.h>

#include <span>
#include <string>
#include <vector>

#include "engine/run/trained_model.h"
#include "engine/run/training.h"
#include "kernels/common/check.h"
#include "models/registry.h"
#include "tests/support/close.h"
#include "tests/support/device.h"
#include "tests/support/files.h"
#include "tests/support/tensors.h"

namespace carousel {
namespace {

using test::TemporaryFolder;

struct ModelCase {
  const char* name;
  std::string text;
  std::string config;  ///< sections [model] and [data], without data.text
  const char* table = "embedding.weight";
};

const std::vector<ModelCase> kModels{
    {"language model", "the isle of nought\nthe little ships\nsail round the isle\n",
     "[model]\nkind = 'recurrent_lm'\ncell = 'gru'\nhidden = 12\nlearn_initial_state = true\n"
     "[data]\ntokens = 'char'\n"},
    {"with documents", "the isle of nought\nthe little ships\nsail round the isle\n",
     "[model]\nkind = 'recurrent_lm'\nhidden = 12\nprojection = 5\n"
     "[data]\ntokens = 'char'\ndocument_end = 'e'\n"},
    {"classifier", "x\tthe isle\ny\tof nought\nx\tthe ships\ny\tsail on\n",
     "[model]\nkind = 'classifier'\nhidden = 12\nlayers = 1\n[data]\nkind = 'labelled'\n"},
    {"two directions", "x\tthe isle\ny\tof nought\nx\tthe ships\ny\tsail on\n",
     "[model]\nkind = 'classifier'\ncell = 'gru'\nhidden = 6\nbidirectional = true\n"
     "residual = true\npooling = 'mean'\n[data]\nkind = 'labelled'\n"},
    {"transformer", "the isle of nought\nthe little ships\nsail round the isle\n",
     "[model]\nkind = 'transformer_lm'\ncontext = 24\nstride = 16\nlayers = 2\nheads = 2\n"
     "embed = 12\n[data]\ntokens = 'char'\n",
     "transformer.wte.weight"}};

/// A run of one step.
struct OneStep {
  OneStep(const ModelCase& of, const Device& device) {
    folder.write("text", of.text);
    const RunConfig config(of.config + "text = '" + folder.path("text") +
                               "'\n[train]\nsteps = 1\nbatch = 2\nwindow = 6\n"
                               "[optimizer]\nlearning_rate = 0.1\n",
                           "config", model_registry(), {.device = is_cpu(device) ? "cpu" : "cuda"});
    train(config, folder / "run");
    trained.emplace(folder / "run", model_registry());
  }
  std::vector<LineIds> ids(const std::vector<std::string>& lines) const {
    LineEncoder encoder(trained->vocabularies()["token"], "lines", trained->line_end());
    std::vector<LineIds> all;
    for (const std::string& line : lines) all.push_back(encoder.next(line + "\n"));
    return all;
  }
  TemporaryFolder folder;
  std::optional<TrainedModel> trained;
};

/// Every state of a line, [steps, units], by one pass over it.
std::vector<float> states_of(TrainedModel& trained, const LineIds& line) {
  const auto steps = static_cast<std::int64_t>(line.size());
  LineIds reset(line.size(), 0);
  Corpus marks;
  trained.config().data->mark(marks, trained.vocabularies(), "text");
  for (std::size_t i = 0; i < line.size(); ++i) {
    reset[i] = i == 0 || line[i - 1] == marks.document_end ? 1 : 0;
  }
  const Device& device = trained.device();
  const Batch batch{.rows = 1,
                    .fields = {{"token", test::tensor_of(device, {steps, 1}, line)}},
                    .reset = test::tensor_of(device, {steps, 1}, reset)};
  Arena arena(device);
  Tape tape(arena, /*recording=*/false);
  Pass pass(tape);
  return host_floats(trained.embedder().hidden(pass, batch, trained.model().initial_state(1)));
}

class LineEmbeddingsOn : public testing::TestWithParam<Device> {};
/// The emulated device would take half a minute for the transformer.
std::span<const ModelCase> models_on(const Device& device) {
  return std::span(kModels).first(kModels.size() - (is_cpu(device) ? 0 : 1));
}
INSTANTIATE_TEST_SUITE_P(Devices, LineEmbeddingsOn, testing::ValuesIn(test::devices()),
                         [](const auto& device) { return test::device_name(device.param); });

std::vector<std::string> lines_of_many_lengths(bool long_ones) {
  std::string longest;
  for (int i = 0; i < 80; ++i) longest += "sail round the little isle of ships ";
  std::vector<std::string> lines{"the ship", "", "s"};
  for (std::size_t i = 0; i < 40; ++i) lines.push_back(longest.substr(i, 1 + i * i % 90));
  if (long_ones) lines.insert(lines.end(), {longest.substr(0, 700), longest});
  return lines;
}

TEST_P(LineEmbeddingsOn, AllStatesAreThoseOfEachLineAlone) {
  for (const ModelCase& c : models_on(GetParam())) {
    SCOPED_TRACE(c.name);
    OneStep run(c, GetParam());
    TrainedModel& trained = *run.trained;
    // The emulated device takes seconds for a long line.
    const std::vector<LineIds> lines = run.ids(lines_of_many_lengths(is_cpu(GetParam())));
    const auto [steps, rows] = trained.embed(lines, LineEmbedding::all);
    const std::int64_t units = trained.embedder().units().all();
    ASSERT_EQ(steps.size(), lines.size());
    std::span<const float> rest(rows);
    for (std::size_t i = 0; i < lines.size(); ++i) {
      SCOPED_TRACE(i);
      ASSERT_EQ(static_cast<std::size_t>(steps[i]), lines[i].size());
      const auto own = rest.first(lines[i].size() * static_cast<std::size_t>(units));
      rest = rest.subspan(own.size());
      if (lines[i].empty()) continue;
      EXPECT_TRUE(test::close(std::vector<float>(own.begin(), own.end()),
                              states_of(trained, lines[i]), {.absolute = 1e-6, .relative = 1e-5}));
      if (is_cpu(GetParam())) {
        const auto alone = trained.embed(std::span(&lines[i], 1), LineEmbedding::all).rows;
        EXPECT_TRUE(std::equal(own.begin(), own.end(), alone.begin(), alone.end()));
      }
    }
    EXPECT_TRUE(rest.empty());
  }
}

TEST_P(LineEmbeddingsOn, TheLastAndTheMeanAreOfAllStates) {
  for (const ModelCase& c : models_on(GetParam())) {
    SCOPED_TRACE(c.name);
    OneStep run(c, GetParam());
    TrainedModel& trained = *run.trained;
    const std::vector<LineIds> lines = run.ids(lines_of_many_lengths(is_cpu(GetParam())));
    const auto all = trained.embed(lines, LineEmbedding::all),
               last = trained.embed(lines, LineEmbedding::last),
               mean = trained.embed(lines, LineEmbedding::mean);
    EXPECT_EQ(last.steps, all.steps);
    EXPECT_EQ(mean.steps, all.steps);
    const auto forward = static_cast<std::size_t>(trained.embedder().units().forward);
    const auto units = static_cast<std::size_t>(trained.embedder().units().all());
    ASSERT_EQ(last.rows.size(), lines.size() * units);
    ASSERT_EQ(mean.rows.size(), lines.size() * units);
    auto states = all.rows.begin();
    for (std::size_t i = 0; i < lines.size(); ++i) {
      SCOPED_TRACE(i);
      const std::size_t steps = lines[i].size();
      for (std::size_t u = 0; u < units; ++u) {
        double sum = 0;
        for (std::size_t t = 0; t < steps; ++t) {
          sum += static_cast<double>(states[static_cast<std::ptrdiff_t>(t * units + u)]);
        }
        const std::size_t read_all = u < forward ? steps - 1 : 0;
        const float at_last =
            steps == 0 ? 0 : states[static_cast<std::ptrdiff_t>(read_all * units + u)];
        const double average = steps == 0 ? 0 : sum / static_cast<double>(steps);
        ASSERT_EQ(last.rows[i * units + u], at_last);
        ASSERT_EQ(mean.rows[i * units + u], static_cast<float>(average));
      }
      states += static_cast<std::ptrdiff_t>(steps * units);
    }
  }
}

TEST(LineEmbeddings, OfNoLinesThereAreNone) {
  OneStep run(kModels[0], Cpu{});
  EXPECT_TRUE(run.trained->embed({}, LineEmbedding::mean).rows.empty());
}

TEST(LineEmbeddings, TokenEmbeddingsAreTheTable) {
  for (const ModelCase& c : kModels) {
    SCOPED_TRACE(c.name);
    OneStep run(c, Cpu{});
    const Tensor table = run.trained->embedder().token_embeddings();
    EXPECT_EQ(table.shape()[0], run.trained->vocabularies()["token"].size());
    const Parameters& parameters = run.trained->model().parameters();
    EXPECT_EQ(parameters.name(0), c.table);
    EXPECT_EQ(host_floats(table), host_floats(parameters.weight(0)));
  }
}

// What the registry says that a kind can do is what its model gives.
TEST(LineEmbeddings, TheRegistryKnowsWhatModelsGive) {
  for (const ModelCase& c : kModels) {
    SCOPED_TRACE(c.name);
    OneStep run(c, Cpu{});
    const ModelEntry& entry = *run.trained->config().entry;
    Model& model = run.trained->model();
    EXPECT_EQ(entry.embeds, model.embedder() != nullptr);
    EXPECT_EQ(entry.decodes, model.decoder() != nullptr);
    EXPECT_EQ(entry.predicts, model.predictor() != nullptr);
  }
}

}  // namespace
}  // namespace carousel
