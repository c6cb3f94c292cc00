#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "engine/generation/text_writer.h"
#include "engine/run/trained_model.h"
#include "engine/text/prompt.h"
#include "kernels/common/check.h"
#include "models/registry.h"
#include "tools/commands/commands.h"
#include "tools/commands/search_texts.h"
#include "tools/console/explain.h"
#include "tools/console/interrupt.h"
#include "tools/console/json_line.h"
#include "tools/console/line_input.h"
#include "tools/console/progress.h"
#include "tools/console/streams.h"

namespace carousel {
namespace {

void check(const GenerateArguments& a, bool json) {
  if (a.tokens < 0) throw ConfigError(fmt::format("--tokens is {}, expected 0 or more", a.tokens));
  if (a.count < 1) throw ConfigError(fmt::format("--count is {}, expected 1 or more", a.count));
  expect_sampling({.temperature = a.temperature, .top_k = a.top_k, .top_p = a.top_p}, "--greedy");
  for (const std::string& stop : a.stop) {
    if (stop.empty()) throw ConfigError("--stop is empty, expected a text");
  }
  const bool searches = a.search.given();
  if (searches && !a.search.beam) {
    throw ConfigError(
        "--nbest, --length-penalty and --suppress are for --beam, which is not given");
  }
  if (searches && a.tokens < 1) {
    throw ConfigError(fmt::format("--tokens is {}, expected 1 or more of --beam", a.tokens));
  }
  expect_one_of_each({
      {a.interactive && !a.prompt.empty(), "--interactive", "--prompt", "its prompts are lines"},
      {a.interactive && a.count > 1, "--interactive", "--count", "it is one text"},
      {a.interactive && json, "--interactive", "--json", "it is a dialogue"},
      {a.greedy && a.count > 1, "--greedy", "--count", "all texts would be the same"},
      {a.greedy && a.temperature != 1, "--greedy", "--temperature", "nothing is drawn"},
      {a.greedy && a.top_k != 0, "--greedy", "--top-k", "nothing is drawn"},
      {a.greedy && a.top_p != 1, "--greedy", "--top-p", "nothing is drawn"},
      {searches && a.greedy, "--beam", "--greedy", "a beam of 1 is greedy"},
      {searches && a.temperature != 1, "--beam", "--temperature", "nothing is drawn"},
      {searches && a.top_k != 0, "--beam", "--top-k", "nothing is drawn"},
      {searches && a.top_p != 1, "--beam", "--top-p", "nothing is drawn"},
      {searches && a.count > 1, "--beam", "--count", "--nbest says how many texts to write"},
      {searches && a.interactive, "--beam", "--interactive", "a search goes on from no state"},
      {searches && !a.stop.empty(), "--beam", "--stop", "a text ends at its length or its line"},
  });
}

const char* name(TextEnd end) {
  static constexpr const char* kNames[] = {"length", "line", "stop", "interrupted"};
  return kNames[static_cast<int>(end)];
}

/// Prints texts that are written side by side in their order: the first piece by piece, the others
/// when all are complete.
class TextOutput {
 public:
  TextOutput(std::int64_t count, std::string prompt, bool titled)
      : waiting_(static_cast<std::size_t>(count)), prompt_(std::move(prompt)), titled_(titled) {
    begin();
  }
  void show(std::size_t row, std::string_view piece) {
    if (row == current_) {
      write_output(piece);
    } else {
      waiting_[row] += piece;
    }
  }
  /// All texts are complete.
  void finish() {
    for (;;) {
      write_output("\n");
      if (++current_ == waiting_.size()) return;
      begin();
    }
  }

 private:
  void begin() {
    if (titled_)
      write_output(fmt::format("--- text {} of {} ---\n", current_ + 1, waiting_.size()));
    write_output(prompt_ + waiting_[current_]);
  }
  std::vector<std::string> waiting_;
  std::string prompt_;
  bool titled_;
  std::size_t current_ = 0;
};

/// What `generate` works with, and how it answers.
class Generation {
 public:
  Generation(const GenerateArguments& arguments, const CommonArguments& common)
      : arguments_(arguments),
        common_(common),
        trained_(arguments.run, model_registry(), common, arguments.checkpoint) {
    expect_ability(trained_.config().entry->decodes, "generate", *trained_.config().entry);
    if (arguments.tidy && vocabulary().rules().kind != TokenKind::word) {
      throw ConfigError("--tidy is for models of words, and data.tokens of this one is not word");
    }
    if (arguments.search.given()) {
      search_.emplace(trained_.model(), vocabulary(), arguments.tokens,
                      beam_options(arguments.search, vocabulary()));
      return;
    }
    writer_.emplace(trained_.model(), vocabulary(),
                    WritingOptions{.sampling = {.temperature = arguments.temperature,
                                                .top_k = arguments.top_k,
                                                .top_p = arguments.top_p,
                                                .greedy = arguments.greedy,
                                                .seed = arguments.seed},
                                   .tokens = arguments.tokens,
                                   .graph = trained_.config().machine.graph,
                                   .stop = arguments.stop,
                                   .tidy = arguments.tidy},
                    arguments.count);
  }

  void write_texts();
  /// Returns the exit status.
  int converse();
  void tell_graph_refusal() const {
    const std::string why = writer_ ? writer_->graph_refusal() : "";
    if (!why.empty()) talk("generate: steps were eager, not CUDA graphs: " + why + "\n");
  }

 private:
  const Vocabulary& vocabulary() const { return trained_.vocabularies()["token"]; }
  bool writes_lines() const { return vocabulary().begin() >= 0; }
  std::vector<std::int32_t> read(const std::string& prompt, const char* from) const;
  std::string prompt() const;
  void print_json(const std::string& prompt, const std::vector<std::string>& texts) const;

  const GenerateArguments& arguments_;
  const CommonArguments& common_;
  TrainedModel trained_;
  std::optional<TextWriter> writer_;
  std::optional<TextSearch> search_;  ///< instead
};

std::vector<std::int32_t> Generation::read(const std::string& prompt, const char* from) const {
  Encoded encoded = encode_prompt(vocabulary(), prompt, from);
  if (encoded.unknown > 0) {
    talk(fmt::format("generate: {} of the prompt's {} unknown to the model, read as <unk>\n",
                     encoded.unknown, counted(std::ssize(encoded.ids), "token")));
  }
  return std::move(encoded.ids);
}

std::string Generation::prompt() const {
  if (arguments_.prompt != "-") return arguments_.prompt;
  std::string text = standard_input();
  if (writes_lines() && text.ends_with('\n')) text.pop_back();  // the line is meant to go on
  return text;
}

void Generation::print_json(const std::string& prompt,
                            const std::vector<std::string>& texts) const {
  for (std::size_t i = 0; i < texts.size(); ++i) {
    write_output(json_line({{"checkpoint", trained_.checkpoint()},
                            {"step", trained_.step()},
                            {"prompt", prompt},
                            {"text", prompt + texts[i]},
                            {"number", i + 1},
                            {"end", name(writer_->end(i))},
                            {"seed", arguments_.seed}}));
  }
}

void Generation::write_texts() {
  const std::string prompt = this->prompt();
  const std::vector<std::int32_t> ids =
      read(prompt, arguments_.prompt == "-" ? "standard input" : "--prompt");
  std::optional<Explanation> explanation;
  if (common_.explain) explanation.emplace(trained_.device(), trained_.config().machine);
  const std::vector<FoundText> found = search_ ? search_->search(ids) : std::vector<FoundText>();
  if (!common_.json) tell_checkpoint("generate", trained_);
  const auto explain = [&] {  // the first token tells it all
    if (explanation) {
      const std::size_t weights = trained_.model().parameters().bytes().weights;
      talk(explanation->text(false, {{"weights", weights}}) + "\n");
      explanation.reset();
    }
    return true;
  };
  if (search_) {
    print_found(arguments_, trained_, {prompt, found}, common_.json);
    explain();
    return;
  }
  writer_->begin(ids);
  if (common_.json) {
    std::vector<std::string> texts(static_cast<std::size_t>(arguments_.count));
    writer_->write([&](std::size_t row, std::string_view piece) { texts[row] += piece; }, explain);
    print_json(prompt, texts);
    return;
  }
  TextOutput output(arguments_.count, prompt, arguments_.count > 1 && !writes_lines());
  writer_->write([&](std::size_t row, std::string_view piece) { output.show(row, piece); },
                 explain);
  output.finish();
}

int Generation::converse() {
  watch_interrupts(Waiting::ends);
  const bool on_terminal = isatty(STDIN_FILENO) != 0;
  tell_checkpoint("generate", trained_);
  bool first = true;
  for (;;) {
    if (on_terminal) talk("> ");
    std::string line;
    if (!std::getline(std::cin, line)) break;
    const std::vector<std::int32_t> ids = read(line, "standard input");
    if (first || writes_lines()) {
      writer_->begin(ids);
    } else {
      writer_->go_on(ids);
    }
    first = false;
    writer_->write([](std::size_t, std::string_view piece) { write_output(piece); },
                   [&] { return !interrupted(); });
    write_output("\n");
    if (interrupted()) break;
  }
  if (on_terminal) talk("\n");
  return interrupted() ? 130 : 0;
}

}  // namespace

int generate_command(const GenerateArguments& arguments, const CommonArguments& common) {
  check(arguments, common.json);
  Generation generation(arguments, common);
  int status = 0;
  if (arguments.interactive) {
    status = generation.converse();
  } else {
    generation.write_texts();
  }
  generation.tell_graph_refusal();
  return status;
}

}  // namespace carousel
