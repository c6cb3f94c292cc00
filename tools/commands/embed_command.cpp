#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "engine/files/matrix_file.h"
#include "engine/run/trained_model.h"
#include "engine/text/line_encoder.h"
#include "engine/vectors/vector_file.h"
#include "kernels/common/check.h"
#include "models/registry.h"
#include "tools/commands/commands.h"
#include "tools/console/interrupt.h"
#include "tools/console/json_line.h"
#include "tools/console/line_input.h"
#include "tools/console/progress.h"
#include "tools/console/streams.h"

namespace carousel {
namespace {

constexpr const char* kWhat[] = {"last", "mean", "all", "tokens"};  // in the order of LineEmbedding

/// So many tokens are read at a time: enough to fill batches, few enough for all their states.
constexpr std::int64_t kTokens = 1 << 14;

/// What was read, for the report.
struct Counts {
  std::int64_t lines = 0, empty = 0, tokens = 0, unknown = 0;
};

/// Writes the embeddings of lines as they are read, some at a time.
class LineWriter {
 public:
  LineWriter(TrainedModel& trained, LineEmbedding which, MatrixFile& file)
      : trained_(trained), which_(which), file_(file) {}

  void add(LineIds line) {
    const std::int32_t unknown = trained_.vocabularies()["token"].unknown();
    counts_.lines += 1;
    counts_.empty += line.empty() ? 1 : 0;
    counts_.tokens += std::ssize(line);
    if (unknown >= 0) counts_.unknown += std::count(line.begin(), line.end(), unknown);
    waiting_rows_ += std::ssize(line) + 1;
    waiting_.push_back(std::move(line));
    if (waiting_rows_ >= kTokens) flush();
  }
  /// Returns what was read.
  Counts finish() {
    flush();
    file_.finish(steps_);
    return counts_;
  }

 private:
  void flush() {
    const LineEmbeddings embeddings = trained_.embed(waiting_, which_);
    file_.append(embeddings.rows);
    steps_.insert(steps_.end(), embeddings.steps.begin(), embeddings.steps.end());
    waiting_.clear();
    waiting_rows_ = 0;
  }

  TrainedModel& trained_;
  LineEmbedding which_;
  MatrixFile& file_;
  std::vector<LineIds> waiting_;
  std::int64_t waiting_rows_ = 0;  ///< at most, in what is written
  std::vector<std::int32_t> steps_;
  Counts counts_;
};

/// Nothing at an interrupt, which leaves the file unfinished.
std::optional<Counts> write_lines(TrainedModel& trained, LineInput& input, LineEmbedding which,
                                  MatrixFile& file) {
  LineEncoder encoder(trained.vocabularies()["token"], input.name(), trained.line_end());
  LineWriter writer(trained, which, file);
  for (auto lines = input.next(); !lines.empty(); lines = input.next()) {
    for (const std::string& line : lines) {
      if (interrupted()) return {};
      writer.add(encoder.next(line));
    }
  }
  if (interrupted()) return {};
  return writer.finish();
}

/// Which of kWhat. ConfigError if it is none of them, or for what it cannot be had.
std::size_t checked(const EmbedArguments& arguments) {
  const auto found = std::find(std::begin(kWhat), std::end(kWhat), arguments.what);
  if (found == std::end(kWhat)) {
    throw ConfigError(
        fmt::format("--what is {}, expected last, mean, all or tokens", arguments.what));
  }
  if (arguments.what == "all" && MatrixFile::is_numpy(arguments.out)) {
    throw ConfigError(
        "--what all gives each line as many rows as it has steps, which .npy cannot say; expected "
        "a name that ends in .safetensors");
  }
  if (arguments.what == "tokens" && !arguments.data.empty()) {
    throw ConfigError("--what tokens gives the embeddings of the vocabulary, and reads no --data");
  }
  return static_cast<std::size_t>(found - std::begin(kWhat));
}

/// What a file was made of.
struct Written {
  std::int64_t rows = 0, columns = 0;
  std::optional<Counts> counts{};  ///< of lines
};

void report(const EmbedArguments& arguments, const Written& written) {
  if (const auto& counts = written.counts) {
    tell_unknown("embed", counts->unknown);
    if (counts->empty > 0) {
      talk(fmt::format("embed: {} of {} without tokens: {}\n", counted(counts->empty, "line"),
                       counts->lines, arguments.what == "all" ? "no rows" : "zeros"));
    }
  }
  write_output(fmt::format("{}: [{}, {}]\n", arguments.out, written.rows, written.columns));
}

void report_json(const EmbedArguments& arguments, const TrainedModel& trained,
                 const Written& written) {
  nlohmann::ordered_json result{{"checkpoint", trained.checkpoint()},
                                {"step", trained.step()},
                                {"file", arguments.out},
                                {"what", arguments.what},
                                {"shape", {written.rows, written.columns}}};
  if (const auto& counts = written.counts) {
    result.update({{"lines", counts->lines},
                   {"empty_lines", counts->empty},
                   {"tokens", counts->tokens},
                   {"unknown_tokens", counts->unknown}});
  }
  write_output(json_line(result));
}

Metadata metadata_of(const EmbedArguments& arguments, const TrainedModel& trained) {
  return {{"format", "pt"},
          {"carousel.embedding", arguments.what},
          {"step", std::to_string(trained.step())}};
}

Written write_tokens(const EmbedArguments& arguments, const TrainedModel& trained) {
  const Tensor table = trained.embedder().token_embeddings();
  const Vocabulary& vocabulary = trained.vocabularies()["token"];
  const std::int64_t rows = table.shape()[0], width = table.shape()[1];
  const std::vector<float> numbers = host_floats(table);
  if (VectorWriter::writes(arguments.out)) {
    VectorWriter file(arguments.out, rows, width);
    for (std::int32_t id = 0; id < rows; ++id) {
      file.add(vocabulary.token(id),
               std::span(numbers).subspan(static_cast<std::size_t>(id * width),
                                          static_cast<std::size_t>(width)));
    }
    file.finish();
  } else {
    Metadata metadata = metadata_of(arguments, trained);
    trained.vocabularies().write(metadata);
    MatrixFile file(arguments.out, width, {.matrix = "embedding.weight", .metadata = metadata});
    file.append(numbers);
    file.finish();
  }
  return {rows, width};
}

}  // namespace

int embed_command(const EmbedArguments& arguments, const CommonArguments& common) {
  const std::size_t what = checked(arguments);
  TrainedModel trained(arguments.run, model_registry(), common, arguments.checkpoint);
  expect_ability(trained.config().entry->embeds, "embed", *trained.config().entry);
  Written written;
  if (arguments.what == "tokens") {
    written = write_tokens(arguments, trained);
    if (!common.json) tell_checkpoint("embed", trained);
  } else {
    LineInput input(arguments.data);
    MatrixFile file(arguments.out, trained.embedder().units().all(),
                    {.matrix = "hidden", .metadata = metadata_of(arguments, trained)});
    watch_interrupts(Waiting::ends);
    if (!common.json) tell_checkpoint("embed", trained);
    const std::optional<Counts> counts =
        write_lines(trained, input, static_cast<LineEmbedding>(what), file);
    if (!counts) {
      talk(fmt::format("embed: stopped; {} is not written\n", arguments.out));
      return 130;
    }
    written = {file.rows(), file.columns(), counts};
  }
  if (common.json) {
    report_json(arguments, trained, written);
  } else {
    report(arguments, written);
  }
  return 0;
}

}  // namespace carousel
