// The driver: parses the command line, calls the command, turns any error into one line.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <exception>
#include <functional>
#include <new>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "tools/command_fault.h"
#include "tools/commands/commands.h"
#include "tools/console/streams.h"
#include "tools/inspect_options.h"
#include "tools/predict_options.h"

namespace carousel {
namespace {

/// The arguments of all commands.
struct Arguments {
  CommonArguments common;
  TrainArguments train, resume{.config = {}, .out = {}, .resume = true};
  EvalArguments eval;
  PredictArguments predict;
  ScoreArguments score;
  EmbedArguments embed;
  CompareArguments compare;
  GenerateArguments generate;
  InspectArguments inspect;
  PhrasesArguments phrases;
  RunsArguments runs;
};

void add_json(CLI::App& command, CommonArguments& common) {
  command.add_flag("--json", common.json, "print the result as JSON");
}

void add_common(CLI::App& command, CommonArguments& common, const char* example = "run.threads=2") {
  command
      .add_option("--set", common.set, fmt::format("override a config key, e.g. --set {}", example))
      ->type_name("SECTION.KEY=VALUE")
      ->take_all();
  command.add_option("--device", common.device, "auto, cpu or cuda");
  command.add_option("--precision", common.precision, "f32, tf32 (CUDA's products) or bf16");
  command.add_option("--threads", common.threads, "CPU threads; 0: all cores");
  add_json(command, common);
}

void add_explain(CLI::App& command, CommonArguments& common) {
  command.add_flag("--explain", common.explain,
                   "tell which kernels and algorithms ran, why none faster, and the memory");
}

void add_run(CLI::App& command, RunArguments& arguments) {
  command
      .add_option("run", arguments.run,
                  "a run's folder, one of its checkpoints, or a model.safetensors")
      ->required();
  command.add_option("--checkpoint", arguments.checkpoint,
                     "last, best or step-N; default: best, else last");
}

void add_stride(CLI::App& command, std::int64_t& stride) {
  command.add_option(
      "--stride", stride,
      "of a transformer: what is longer than its context is read in windows that begin "
      "every so many tokens; a small one is slower and better");
}

void add_lines(CLI::App& command, std::string& data) {
  command.add_option("--data", data, "a file of lines; without it, standard input");
}

CLI::App* add_train(CLI::App& app, Arguments& a) {
  CLI::App* command = app.add_subcommand("train", "train a model as a config file says");
  command->add_option("config", a.train.config, "the config, a TOML file")->required();
  command->add_option("--out", a.train.out, "the run's folder: config, metrics, checkpoints")
      ->required();
  command->add_flag("--resume", a.train.resume, "continue the run from its last checkpoint");
  add_common(*command, a.common, "model.hidden=512");
  add_explain(*command, a.common);
  return command;
}

CLI::App* add_resume(CLI::App& app, Arguments& a) {
  CLI::App* command = app.add_subcommand(
      "resume", "continue a run as its own config says, with what --set changes");
  command->add_option("run", a.resume.out, "the run's folder")->required();
  add_common(*command, a.common, "train.steps=9000");
  add_explain(*command, a.common);
  return command;
}

CLI::App* add_eval(CLI::App& app, Arguments& a) {
  CLI::App* command = app.add_subcommand("eval", "measure a trained model on a text");
  add_run(*command, a.eval);
  command->add_option("--data", a.eval.data, "of the kind it was trained on; -: standard input")
      ->required();
  command
      ->add_option("--rows", a.eval.rows,
                   "cut a stream into so many rows, each of which begins without a state: faster")
      ->capture_default_str();
  add_stride(*command, a.eval.stride);
  command->add_option(
      "--beam", a.eval.beam,
      "of translations, which are scored by BLEU and chrF: as of predict; 1: greedy");
  command->add_flag(
      "--accuracy", a.eval.accuracy,
      "of a language model: how many of the tokens are those it takes to be likeliest");
  add_common(*command, a.common);
  add_explain(*command, a.common);
  return command;
}

CLI::App* add_predict(CLI::App& app, Arguments& a) {
  CLI::App* command =
      app.add_subcommand("predict",
                         "label lines of text: label<TAB>probability for each; or translate them; "
                         "or tell the hidden states they came from");
  add_run(*command, a.predict);
  add_lines(*command, a.predict.data);
  add_prediction(*command, a.predict);
  add_common(*command, a.common);
  return command;
}

CLI::App* add_score(CLI::App& app, Arguments& a) {
  CLI::App* command = app.add_subcommand(
      "score", "of each line: log-probability (nats), tokens, perplexity, unknown");
  add_run(*command, a.score);
  add_lines(*command, a.score.data);
  command->add_flag("--tokens", a.score.tokens, "after these, each token and its log-probability");
  add_stride(*command, a.score.stride);
  add_common(*command, a.common);
  return command;
}

CLI::App* add_embed(CLI::App& app, Arguments& a) {
  CLI::App* command =
      app.add_subcommand("embed", "write a model's hidden states of lines, or token embeddings");
  add_run(*command, a.embed);
  add_lines(*command, a.embed.data);
  command
      ->add_option(
          "--out", a.embed.out,
          "the file: its name ends in .safetensors or .npy; of tokens also in .vec or .txt "
          "(word2vec's text) or .bin (its binary form)")
      ->required();
  command
      ->add_option("--what", a.embed.what,
                   "of each line the state after its last step, the mean of all states, or all; or "
                   "tokens: the embedding of each token of the vocabulary")
      ->capture_default_str();
  add_common(*command, a.common);
  return command;
}

CLI::App* add_compare(CLI::App& app, Arguments& a) {
  CLI::App* command = app.add_subcommand(
      "compare",
      "train on two devices, in two precisions, eagerly and as graphs, or again, and find the "
      "differences");
  command
      ->add_option("path", a.compare.path,
                   "a config; or a run's folder: replays its metrics, unless sides are given")
      ->required();
  command->add_option("--devices", a.compare.devices, "of the two sides, e.g. cpu,cuda")
      ->delimiter(',');
  command->add_option("--precisions", a.compare.precisions, "of the two sides, e.g. f32,bf16")
      ->delimiter(',');
  command
      ->add_option("--modes", a.compare.modes, "of the two sides' steps on CUDA, as in eager,graph")
      ->delimiter(',');
  command->add_option("--steps", a.compare.steps, "optimiser steps")->capture_default_str();
  add_common(*command, a.common, "model.hidden=512");
  command->get_option("--device")->excludes("--devices");
  command->get_option("--precision")->excludes("--precisions");
  return command;
}

CLI::App* add_generate(CLI::App& app, Arguments& a) {
  CLI::App* command = app.add_subcommand("generate", "let a trained model write");
  GenerateArguments& generate = a.generate;
  add_run(*command, generate);
  command->add_option("--prompt", generate.prompt,
                      "what the text begins with, also <unk>, <bos>, <eos>; -: standard input");
  command->add_option("--count", generate.count, "how many texts to write, or lines")
      ->capture_default_str();
  command->add_option("--tokens", generate.tokens, "of a text, at most")->capture_default_str();
  command
      ->add_option("--stop", generate.stop,
                   "ends a text where it first occurs, and is not printed; may be repeated")
      ->type_name("TEXT")
      ->take_all();
  command->add_flag("--interactive", generate.interactive,
                    "answer each line of standard input with what follows it; the state is kept, "
                    "but for a model of lines");
  command->add_flag("--tidy", generate.tidy,
                    "of words: no blanks before marks, and a capital where a sentence begins");
  command->add_option("--temperature", generate.temperature, "below 1: safer; above: bolder")
      ->capture_default_str();
  command->add_option("--top-k", generate.top_k, "choose among the k likeliest; 0: all")
      ->capture_default_str();
  command->add_option("--top-p", generate.top_p, "choose among the likeliest that make up p")
      ->capture_default_str();
  command->add_flag("--greedy", generate.greedy, "always the likeliest");
  add_search(*command, generate.search,
             {"write the likeliest texts, found with so many that are written on side by side",
              "so many texts, the best first"});
  command->add_option("--seed", generate.seed, "the same seed writes the same text")
      ->check(wrong_seed)
      ->capture_default_str();
  add_common(*command, a.common);
  add_explain(*command, a.common);
  return command;
}

CLI::App* add_phrases(CLI::App& app, Arguments& a) {
  CLI::App* command = app.add_subcommand(
      "phrases", "write a text with words that often stand together joined to one, as new_york");
  command->add_option("text", a.phrases.text, "a UTF-8 text of words and blanks")->required();
  command->add_option("--out", a.phrases.out, "the new file")->required();
  command
      ->add_option("--threshold", a.phrases.threshold,
                   "(count of both - discount) x words / (count of one x count of the other) must "
                   "exceed this")
      ->capture_default_str();
  command
      ->add_option("--discount", a.phrases.discount,
                   "so many times two words stand together by chance")
      ->capture_default_str();
  add_json(*command, a.common);
  return command;
}

CLI::App* add_runs(CLI::App& app, Arguments& a) {
  CLI::App* command =
      app.add_subcommand("runs", "a table of runs: how they differ, how far, how good");
  command->add_option("folders", a.runs.folders, "runs, or folders of runs")
      ->type_name("DIR")
      ->required();
  command->add_option("--sort", a.runs.sort, "by a column, ascending; by best: the best first")
      ->type_name("COLUMN");
  command->add_flag("--csv", a.runs.csv, "print all of it as comma-separated values");
  add_json(*command, a.common);
  return command;
}

CLI::App* add_models(CLI::App& app, Arguments& a) {
  CLI::App* command = app.add_subcommand("models", "list the kinds of models and their options");
  add_json(*command, a.common);
  return command;
}

int run_command_line(int argc, char** argv) {
  CLI::App app{"Carousel trains and runs sequence models.", "carousel"};
  app.require_subcommand(1);
  app.set_version_flag("--version", CAROUSEL_VERSION);
  // Two blanks after the longest option: what is wrapped goes on under its explanation.
  app.get_formatter()->column_width(32);
  Arguments a;
  const std::pair<CLI::App*, std::function<int()>> commands[] = {
      {add_train(app, a), [&] { return train_command(a.train, a.common); }},
      {add_resume(app, a), [&] { return train_command(a.resume, a.common); }},
      {add_eval(app, a), [&] { return eval_command(a.eval, a.common); }},
      {add_predict(app, a), [&] { return predict_command(a.predict, a.common); }},
      {add_score(app, a), [&] { return score_command(a.score, a.common); }},
      {add_embed(app, a), [&] { return embed_command(a.embed, a.common); }},
      {add_compare(app, a), [&] { return compare_command(a.compare, a.common); }},
      {add_generate(app, a), [&] { return generate_command(a.generate, a.common); }},
      {add_inspect(app, a.inspect, a.common), [&] { return inspect_command(a.inspect, a.common); }},
      {add_phrases(app, a), [&] { return phrases_command(a.phrases, a.common); }},
      {add_runs(app, a), [&] { return runs_command(a.runs, a.common); }},
      {add_models(app, a), [&] { return models_command(a.common); }}};
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {
    std::ostringstream help;
    app.exit(asked, help, help);
    print(help.str());
    return 0;
  } catch (const CLI::ParseError& error) {
    talk(fmt::format("carousel: {}; --help lists what there is\n", fault_of(app, error)));
    return 2;
  }
  for (const auto& [command, run] : commands) {
    if (command->parsed()) return run();
  }
  return 2;
}

}  // namespace
}  // namespace carousel

int main(int argc, char** argv) {
  carousel::prepare_standard_streams();
  int status = 1;
  std::string fault;
  try {
    status = carousel::run_command_line(argc, argv);
  } catch (const std::bad_alloc&) {
    fault = "out of memory";
  } catch (const std::exception& e) {
    fault = e.what();
  }
  if (const std::string output = carousel::output_fault(); !output.empty()) fault = output;
  if (fault.empty()) return status;
  carousel::talk(fmt::format("carousel: {}\n", fault));
  return 1;
}
