#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/run/run_config.h"
#include "engine/run/trained_model.h"

namespace carousel {

/// What every command takes.
struct CommonArguments : Overrides {
  bool json = false;
  bool explain = false;  ///< of train, eval and generate
};

/// What is read: a run's folder, one of its checkpoints, or a file of weights.
struct RunArguments {
  std::string run;
  std::string checkpoint;  ///< of the folder; empty: best, or last without one
};

struct TrainArguments {
  std::string config, out;  ///< no config: the run's own
  bool resume = false;
};

struct EvalArguments : RunArguments {
  std::string data;                    ///< "-": standard input
  std::int64_t rows = 1;               ///< of a stream
  std::int64_t stride = 0;             ///< of windows; 0: as the run's config says
  std::optional<std::int64_t> beam{};  ///< of translations; by default that of BeamOptions
  bool accuracy =
      false;  ///< of a language model: the share of tokens that it takes to be likeliest
};

/// How the likeliest texts are searched for; what is not given is as BeamOptions have it.
struct SearchArguments {
  std::optional<std::int64_t> beam, best;
  std::optional<double> length_penalty;
  std::vector<std::string> suppress;

  bool given() const { return beam || best || length_penalty || !suppress.empty(); }
};

/// How lines are translated.
struct TranslationArguments : SearchArguments {
  std::optional<std::int64_t> tokens, top_k;
  std::optional<double> coverage_penalty, temperature, top_p;
  std::optional<std::uint64_t> seed;

  bool draws() const { return temperature || top_k || top_p; }
  bool given() const {
    return SearchArguments::given() || tokens || coverage_penalty || draws() || seed;
  }
};

struct PredictArguments : RunArguments {
  std::string data;  ///< data empty or "-": standard input
  std::string what;  ///< of hidden states; empty: the path
  TranslationArguments translation;
};

struct ScoreArguments : RunArguments {
  std::string data;         ///< as of predict
  bool tokens = false;      ///< also of each token
  std::int64_t stride = 0;  ///< as of eval
};

struct EmbedArguments : RunArguments {
  std::string data;  ///< as of predict
  std::string out, what = "last";
};

struct CompareArguments {
  std::string path;                              ///< a config, or a run's folder
  std::vector<std::string> devices, precisions;  ///< of the two sides; one: of both; none: default
  std::vector<std::string> modes;                ///< of the two sides: eager and graph, or none
  std::int64_t steps = 20;
};

struct GenerateArguments : RunArguments {
  std::string prompt;  ///< "-": standard input
  std::vector<std::string> stop;
  std::int64_t tokens = 200, count = 1;
  double temperature = 1, top_p = 1;
  std::int64_t top_k = 0;
  SearchArguments search;  ///< without a beam: tokens are drawn
  bool greedy = false, interactive = false, tidy = false;
  std::uint64_t seed = 1;
};

struct InspectArguments : RunArguments {  ///< `run` may be a file of vectors
  std::string what;                ///< neighbours, analogy, similarity, analogies, map or attention
  std::vector<std::string> words;  ///< one; three; none; none; those on the map
  std::string file;                ///< of similarity and analogies: of questions
  std::string out;                 ///< of map and attention; empty: standard output
  std::string source, target, only;  ///< of attention: texts, and of which pictures
  std::int64_t top = 10, most_frequent = 0;
  bool ignore_case = false;
};

struct PhrasesArguments {
  std::string text, out;
  std::int64_t discount = 5;
  double threshold = 100;
};

struct RunsArguments {
  std::vector<std::string> folders;
  std::string sort;  ///< a column; empty: in the order of the folders
  bool csv = false;
};

/// Each command returns the process's exit status and throws Error for what went wrong. Standard
/// output gets what was asked for, standard error all talk.
int train_command(const TrainArguments& arguments, const CommonArguments& common);
int eval_command(const EvalArguments& arguments, const CommonArguments& common);
int predict_command(const PredictArguments& arguments, const CommonArguments& common);
int score_command(const ScoreArguments& arguments, const CommonArguments& common);
int embed_command(const EmbedArguments& arguments, const CommonArguments& common);
int compare_command(const CompareArguments& arguments, const CommonArguments& common);
int generate_command(const GenerateArguments& arguments, const CommonArguments& common);
int inspect_command(const InspectArguments& arguments, const CommonArguments& common);
int attention_command(const InspectArguments& arguments, const CommonArguments& common);
int phrases_command(const PhrasesArguments& arguments, const CommonArguments& common);
int runs_command(const RunsArguments& arguments, const CommonArguments& common);
int models_command(const CommonArguments& common);

/// ConfigError, in one line, unless the command can be given to this kind of model.
void expect_ability(bool able, const char* command, const ModelEntry& entry);

/// Tells on standard error which checkpoint a command reads.
void tell_checkpoint(const char* command, const TrainedModel& trained);

/// `common` with model.stride, unless that is 0. ConfigError for one below 0.
CommonArguments with_stride(CommonArguments common, std::int64_t stride);
/// " in windows of 64 that begin every 32", of a model that reads a text so; else nothing.
std::string windows_text(const TrainedModel& trained);

/// Tells on standard error how many tokens of a text the model does not know, if there are any.
void tell_unknown(const char* command, std::int64_t unknown);

}  // namespace carousel
