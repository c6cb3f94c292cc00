// The driver: parses the command line, calls the command, turns any error into one line.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <exception>
#include <new>
#include <string>
#include <system_error>

#include "tools/commands.h"
#include "tools/streams.h"

namespace carousel {
namespace {

void add_common(CLI::App& command, CommonArguments& common) {
  command.add_option("--set", common.set, "override a config key, e.g. --set model.hidden=512")
      ->type_name("SECTION.KEY=VALUE")
      ->take_all();
  command.add_option("--device", common.device, "auto, cpu or cuda");
  command.add_option("--precision", common.precision, "f32, tf32 (CUDA's products) or bf16");
  command.add_option("--threads", common.threads, "CPU threads; 0: all cores");
  command.add_flag("--json", common.json, "print the result as JSON");
}

void add_run(CLI::App& command, RunArguments& arguments) {
  command.add_option("run", arguments.run, "a run's folder, or one of its checkpoints")->required();
  command.add_option("--checkpoint", arguments.checkpoint,
                     "last, best or step-N; default: best, else last");
}

int run_command_line(int argc, char** argv) {
  CLI::App app{"Carousel trains and runs sequence models.", "carousel"};
  app.require_subcommand(1);
  app.set_version_flag("--version", CAROUSEL_VERSION);
  CommonArguments common;

  TrainArguments train;
  CLI::App* train_app = app.add_subcommand("train", "train a model as a config file says");
  train_app->add_option("config", train.config, "the config, a TOML file")->required();
  train_app->add_option("--out", train.out, "the run's folder: config, metrics, checkpoints")
      ->required();
  train_app->add_flag("--resume", train.resume, "continue the run from its last checkpoint");

  TrainArguments resumed{.config = {}, .out = {}, .resume = true};
  CLI::App* resume_app = app.add_subcommand(
      "resume", "continue a run as its own config says, with what --set changes");
  resume_app->add_option("run", resumed.out, "the run's folder")->required();

  EvalArguments eval;
  CLI::App* eval_app = app.add_subcommand("eval", "measure a trained model on a text");
  add_run(*eval_app, eval);
  eval_app->add_option("--data", eval.data, "of the kind it was trained on; -: standard input")
      ->required();
  eval_app
      ->add_option("--rows", eval.rows,
                   "cut a stream into so many rows, each of which begins without a state: faster")
      ->capture_default_str();

  PredictArguments predict;
  CLI::App* predict_app =
      app.add_subcommand("predict", "label lines of text: label<TAB>probability for each");
  add_run(*predict_app, predict);
  predict_app->add_option("--data", predict.data, "a file of lines; without it, standard input");

  ScoreArguments score;
  CLI::App* score_app = app.add_subcommand(
      "score", "of each line: log-probability (nats), tokens, perplexity, unknown");
  add_run(*score_app, score);
  score_app->add_option("--data", score.data, "a file of lines; without it, standard input");
  score_app->add_flag("--tokens", score.tokens, "after these, each token and its log-probability");

  CompareArguments compare;
  CLI::App* compare_app = app.add_subcommand(
      "compare",
      "train on two devices, in two precisions, eagerly and as graphs, or again, and find the "
      "differences");
  compare_app
      ->add_option("path", compare.path,
                   "a config; or a run's folder: replays its metrics, unless sides are given")
      ->required();
  compare_app->add_option("--devices", compare.devices, "of the two sides, e.g. cpu,cuda")
      ->delimiter(',');
  compare_app->add_option("--precisions", compare.precisions, "of the two sides, e.g. f32,bf16")
      ->delimiter(',');
  compare_app
      ->add_option("--modes", compare.modes, "of the two sides' steps on CUDA, as in eager,graph")
      ->delimiter(',');
  compare_app->add_option("--steps", compare.steps, "optimiser steps")->capture_default_str();

  GenerateArguments generate;
  CLI::App* generate_app = app.add_subcommand("generate", "let a trained model write");
  add_run(*generate_app, generate);
  generate_app->add_option("--prompt", generate.prompt, "what the text begins with");
  generate_app->add_option("--tokens", generate.tokens, "how many tokens to write")
      ->capture_default_str();
  generate_app->add_option("--temperature", generate.temperature, "below 1: safer; above: bolder")
      ->capture_default_str();
  generate_app->add_option("--top-k", generate.top_k, "choose among the k likeliest; 0: all")
      ->capture_default_str();
  generate_app->add_option("--top-p", generate.top_p, "choose among the likeliest that make up p")
      ->capture_default_str();
  generate_app->add_flag("--greedy", generate.greedy, "always the likeliest");
  generate_app->add_option("--seed", generate.seed, "the same seed writes the same text")
      ->capture_default_str();

  CLI::App* models_app = app.add_subcommand("models", "list the kinds of models and their options");
  for (CLI::App* command : {train_app, resume_app, eval_app, predict_app, score_app, compare_app,
                            generate_app, models_app}) {
    add_common(*command, common);
  }
  compare_app->get_option("--device")->excludes("--devices");
  compare_app->get_option("--precision")->excludes("--precisions");

  for (CLI::App* command : {train_app, resume_app, eval_app, generate_app}) {
    command->add_flag("--explain", common.explain,
                      "tell which kernels and algorithms ran, why none faster, and the memory");
  }

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    const int status = app.exit(e);  // prints help, or the error
    return status == 0 ? 0 : 2;
  }
  if (train_app->parsed()) return train_command(train, common);
  if (resume_app->parsed()) return train_command(resumed, common);
  if (eval_app->parsed()) return eval_command(eval, common);
  if (predict_app->parsed()) return predict_command(predict, common);
  if (score_app->parsed()) return score_command(score, common);
  if (compare_app->parsed()) return compare_command(compare, common);
  if (generate_app->parsed()) return generate_command(generate, common);
  return models_command(common);
}

}  // namespace
}  // namespace carousel

int main(int argc, char** argv) {
  carousel::prepare_standard_streams();
  int status = 1;
  int error = 0;
  std::string fault;
  try {
    status = carousel::run_command_line(argc, argv);
  } catch (const std::bad_alloc&) {
    fault = "out of memory";
  } catch (const std::system_error& e) {
    fault = e.what();
    error = e.code().value();
  } catch (const std::exception& e) {
    fault = e.what();
  }
  if (const std::string output = carousel::output_fault(error); !output.empty()) fault = output;
  if (fault.empty()) return status;
  carousel::talk(fmt::format("carousel: {}\n", fault));
  return 1;
}
