#include "tools/inspect_options.h"

#include <string>

namespace carousel {
namespace {

/// A command of `inspect`, with what all of them take.
CLI::App* add_any(CLI::App& inspect, const char* name, const char* help, InspectArguments& a,
                  CommonArguments& common) {
  CLI::App* const command = inspect.add_subcommand(name, help);
  command->callback([&a, name] { a.what = name; });
  command->add_option("--checkpoint", a.checkpoint,
                      "last, best or step-N; default: best, else last");
  command->add_option("--device", common.device, "auto, cpu or cuda");
  command->add_option("--threads", common.threads, "CPU threads; 0: all cores");
  command->add_flag("--json", common.json, "print the result as JSON");
  return command;
}

/// One about vectors of words.
CLI::App* add(CLI::App& inspect, const char* name, const char* help, InspectArguments& a,
              CommonArguments& common) {
  CLI::App* const command = add_any(inspect, name, help, a, common);
  command
      ->add_option("run", a.run,
                   "a run's folder, one of its checkpoints, a model.safetensors, or a file of "
                   "vectors: .vec, .txt, .bin")
      ->required();
  command->add_flag("--ignore-case", a.ignore_case,
                    "find a word by the first that is the same but for case");
  return command;
}

void add_attention(CLI::App& inspect, InspectArguments& a, CommonArguments& common) {
  CLI::App* const command =
      add_any(inspect, "attention", "what each head of a model looks at, as heat maps", a, common);
  command
      ->add_option("run", a.run, "a run's folder, one of its checkpoints, or a model.safetensors")
      ->required();
  command->add_option("--source", a.source, "the text to read, a line")->required();
  command->add_option("--target", a.target,
                      "of a model that translates, the text to write; without it, its own");
  command->add_option("--only", a.only, "those pictures whose title has this, as in \"layer 0\"");
  command->add_option("--out", a.out,
                      "a new file, .svg or .html; without it, SVG to standard output");
}

void add_top(CLI::App& command, InspectArguments& a) {
  command.add_option("--top", a.top, "so many words, the nearest first")->capture_default_str();
}

}  // namespace

CLI::App* add_inspect(CLI::App& app, InspectArguments& a, CommonArguments& common) {
  CLI::App* const inspect = app.add_subcommand(
      "inspect", "what a model's embeddings or its attention say: see inspect --help");
  inspect->require_subcommand(1);

  CLI::App* command =
      add(*inspect, "neighbours", "the words nearest to a word: word<TAB>cosine", a, common);
  command->add_option("word", a.words, "the word, exactly as the text has it")
      ->required()
      ->expected(1);
  add_top(*command, a);

  command = add(*inspect, "analogy", "the words nearest to B - A + C: A is to B as C is to which?",
                a, common);
  command->add_option("words", a.words, "A, B and C")->required()->expected(3);
  add_top(*command, a);

  command = add(*inspect, "similarity",
                "Spearman's correlation of cosines with scores that people gave", a, common);
  command->add_option("file", a.file, "lines of two words and a score: tabs, commas or blanks")
      ->required();

  command = add(*inspect, "analogies", "how many analogies of a file come out right, by section", a,
                common);
  command->add_option("file", a.file, "in the format of word2vec's questions-words.txt")
      ->required();
  command
      ->add_option("--most-frequent", a.most_frequent,
                   "know only the first so many words, as in 30000; 0: all")
      ->capture_default_str();

  command = add(*inspect, "map", "words in the plane in which they vary most, as an SVG image", a,
                common);
  command->add_option("words", a.words, "two words or more")->required();
  command->add_option("--out", a.out, "a new file; without it, standard output");

  add_attention(*inspect, a, common);
  return inspect;
}

}  // namespace carousel
