#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "engine/run/trained_model.h"
#include "kernels/common/check.h"
#include "models/registry.h"
#include "tools/commands/commands.h"
#include "tools/commands/eval_translations.h"
#include "tools/commands/train_log.h"
#include "tools/console/explain.h"
#include "tools/console/json_line.h"
#include "tools/console/line_input.h"
#include "tools/console/progress.h"
#include "tools/console/streams.h"
#include "tools/console/terminal.h"

namespace carousel {
namespace {

/// Beyond this share of unknown tokens, nats per character would be those of another text.
constexpr double kMostUnknown = 0.01;

/// The words of a text, its longest runs without white space, and the ends of its lines: the tokens
/// per which the literature tells perplexities. Nothing of a text that is not UTF-8.
std::optional<std::int64_t> words_of(const Text& text, Newline newline) {
  class Words final : public TokenSink {
   public:
    bool token(std::string_view) override { return ++count > 0; }
    void begin_line() override {}
    void end_line() override { ++count; }
    std::int64_t count = 0;
  } words;
  try {
    const Newline ends = newline == Newline::line ? newline : Newline::eos;
    tokenize(text, {.kind = TokenKind::word, .newline = ends}, words);
  } catch (const FormatError&) {
    return std::nullopt;
  }
  return words.count;
}

/// What a language model makes of a text.
struct LanguageFigures {
  std::int64_t tokens = 0, rows = 1, characters = 0, unknown = 0;
  double unknown_share = 0, loss = 0;  ///< nats per token
  std::optional<std::int64_t> words{};
  std::optional<double> per_character{}, per_word{};  ///< nats, if all tokens count
  std::optional<double> accuracy{};                   ///< of tokens, if asked for
};

LanguageFigures language_figures(const Evaluation& result, const Corpus& corpus, const Text& text,
                                 Newline newline) {
  const TokenRange& tokens = corpus.validation["token"];
  LanguageFigures figures{.tokens = result.counted,
                          .characters = tokens.store->characters(),
                          .unknown = tokens.store->unknown(),
                          .loss = result.find("loss")->value,
                          .words = words_of(text, newline)};
  figures.unknown_share = static_cast<double>(figures.unknown) / static_cast<double>(tokens.count);
  if (const Score* const accuracy = result.find("token_accuracy"))
    figures.accuracy = accuracy->value;
  if (figures.unknown_share > kMostUnknown || corpus.answer_after >= 0) return figures;
  const double nats = figures.loss * static_cast<double>(result.counted);
  figures.per_character = nats / static_cast<double>(figures.characters);
  if (figures.words > 0) figures.per_word = nats / static_cast<double>(*figures.words);
  return figures;
}

std::string json_of(const LanguageFigures& figures, const TrainedModel& trained) {
  using Json = nlohmann::ordered_json;
  const double bit = std::log(2.0);
  const auto known = [](const auto& figure) { return figure ? Json(*figure) : Json(); };
  Json line{{"checkpoint", trained.checkpoint()},
            {"step", trained.step()},
            {"tokens", figures.tokens},
            {"rows", figures.rows},
            {"unknown_tokens", figures.unknown},
            {"unknown_share", figures.unknown_share},
            {"characters", figures.characters},
            {"words", known(figures.words)},
            {"nats_per_token", figures.loss},
            {"bits_per_token", figures.loss / bit},
            {"perplexity", std::exp(figures.loss)},
            {"nats_per_character", known(figures.per_character)},
            {"bits_per_character", Json()},
            {"nats_per_word", known(figures.per_word)},
            {"perplexity_per_word", Json()}};
  if (figures.per_character) line["bits_per_character"] = *figures.per_character / bit;
  if (figures.per_word) line["perplexity_per_word"] = std::exp(*figures.per_word);
  if (figures.accuracy) line["token_accuracy"] = *figures.accuracy;
  if (const ReadingWindows windows = trained.model().reading_windows(); windows.steps > 0) {
    line["window"] = windows.steps;
    line["stride"] = windows.stride;
  }
  return json_line(line);
}

std::string text_of(const LanguageFigures& figures, const TrainedModel& trained) {
  const double bit = std::log(2.0), loss = figures.loss;
  std::string text = fmt::format("{}{}{}: {:.4f} nats, {:.4f} bits, perplexity {:.3f} per token",
                                 counted(figures.tokens, "token"),
                                 figures.rows > 1 ? fmt::format(" in {} rows", figures.rows) : "",
                                 windows_text(trained), loss, loss / bit, std::exp(loss));
  if (figures.accuracy)
    text += fmt::format(", {:.1f} % of them the likeliest", 100 * *figures.accuracy);
  text += '\n';
  if (figures.unknown > 0) {
    text += fmt::format("{:.2f} % of the tokens are <unk>: {}\n", 100 * figures.unknown_share,
                        figures.per_character ? "the figures count them as one token that is known"
                                              : "too many for a figure per character");
  }
  if (figures.per_character) {
    text += fmt::format("{}: {:.4f} nats, {:.4f} bits per character\n",
                        counted(figures.characters, "character"), *figures.per_character,
                        *figures.per_character / bit);
  }
  const TokenKind kind = trained.vocabularies()["token"].rules().kind;
  const bool subwords = kind == TokenKind::sentencepiece || kind == TokenKind::byte_bpe;
  if (subwords && figures.per_word) {
    text += fmt::format("{} and ends of lines: {:.4f} nats, perplexity {:.3f} per word\n",
                        counted(*figures.words, "word"), *figures.per_word,
                        std::exp(*figures.per_word));
  }
  return text;
}

void print_confusion(const ConfusionMatrix& matrix) {
  const std::size_t width = terminal_width(STDOUT_FILENO), classes = matrix.labels.size();
  std::size_t longest = 1, digits = 1;
  for (const std::string& label : matrix.labels) longest = std::max(longest, columns_of(label));
  for (const std::int64_t count : matrix.counts) {
    digits = std::max(digits, std::to_string(count).size());
  }
  std::size_t title = longest;
  if (width > 0) {  // what there is for each class, with the gap before it
    const std::size_t room = width < longest ? 0 : (width - longest) / classes;
    title = std::clamp(room < 2 ? 0 : room - 2, std::min(digits, longest), longest);
  }
  std::vector<TableColumn> columns{{""}};
  std::vector<std::vector<std::string>> rows;
  for (std::size_t i = 0; i < classes; ++i) {
    columns.push_back({shortened(matrix.labels[i], title), true, 1});
    rows.push_back({matrix.labels[i]});
    for (std::size_t j = 0; j < classes; ++j) {
      rows.back().push_back(std::to_string(matrix.count(i, j)));
    }
  }
  write_output("rows: the true label; columns: the predicted one\n");
  write_output(table_text(columns, rows, width));
}

void print_scores(const Evaluation& result, const TrainedModel& trained, bool json) {
  const std::string counts = trained.config().entry->translates ? "token" : "example";
  if (!json) {
    std::vector<std::string> scores;
    for (const Score& score : result.scores) scores.push_back(score_text(score));
    print(
        fmt::format("{}: {}\n", counted(result.counted, counts.c_str()), fmt::join(scores, ", ")));
    if (result.confusion) print_confusion(*result.confusion);
    return;
  }
  nlohmann::ordered_json line{{"checkpoint", trained.checkpoint()},
                              {"step", trained.step()},
                              {counts + "s", result.counted}};
  for (const Score& score : result.scores) line[score.name] = score.value;
  if (result.confusion) {
    const ConfusionMatrix& matrix = *result.confusion;
    line["labels"] = matrix.labels;
    line["confusion"] = nlohmann::json::array();
    for (std::size_t i = 0; i < matrix.labels.size(); ++i) {
      const auto row =
          matrix.counts.begin() + static_cast<std::ptrdiff_t>(i * matrix.labels.size());
      line["confusion"].push_back(std::vector<std::int64_t>(row, row + std::ssize(matrix.labels)));
    }
  }
  write_output(json_line(line));
}

}  // namespace

void tell_checkpoint(const char* command, const TrainedModel& trained) {
  talk(fmt::format("{}: checkpoint {}, step {}\n", command, trained.checkpoint(), trained.step()));
}

void tell_unknown(const char* command, std::int64_t unknown) {
  if (unknown == 0) return;
  talk(fmt::format("{}: {} unknown to the model, read as <unk>\n", command,
                   counted(unknown, "token")));
}

CommonArguments with_stride(CommonArguments common, std::int64_t stride) {
  if (stride < 0) throw ConfigError(fmt::format("--stride is {}, expected 1 or more", stride));
  if (stride > 0) common.set.push_back(fmt::format("model.stride={}", stride));
  return common;
}

std::string windows_text(const TrainedModel& trained) {
  const ReadingWindows windows = trained.model().reading_windows();
  return windows.steps == 0
             ? ""
             : fmt::format(" in windows of {} that begin every {}", windows.steps, windows.stride);
}

int eval_command(const EvalArguments& arguments, const CommonArguments& common) {
  if (arguments.rows < 1) {
    throw ConfigError(fmt::format("--rows is {}, expected 1 or more", arguments.rows));
  }
  TrainedModel trained(arguments.run, model_registry(), with_stride(common, arguments.stride),
                       arguments.checkpoint);
  const Text text = text_of_input(arguments.data);
  const Corpus corpus = trained.config().data->evaluation(text, trained.vocabularies(), {});
  std::optional<Explanation> explanation;
  if (common.explain) explanation.emplace(trained.device(), trained.config().machine);
  if (corpus.lines && arguments.rows != 1) {
    throw ConfigError(fmt::format(
        "--rows is {}, expected a text that is one stream: here each line begins without a state",
        arguments.rows));
  }
  if (arguments.accuracy && !trained.config().entry->scores) {
    throw ConfigError(fmt::format("--accuracy is of language models, and model.kind is {}",
                                  trained.config().kind));
  }
  if (arguments.beam && !trained.config().entry->translates) {
    throw ConfigError(fmt::format("--beam is of models that translate, and model.kind is {}",
                                  trained.config().kind));
  }
  const Evaluation result = trained.evaluate(corpus, arguments.rows, arguments.accuracy);
  if (!common.json) tell_checkpoint("eval", trained);
  for (const std::string& notice : corpus.notices) talk(fmt::format("eval: {}\n", notice));
  if (explanation) {
    const std::size_t weights = trained.model().parameters().bytes().weights;
    talk(explanation->text(false, {{"weights", weights}}) + "\n");
  }
  if (trained.config().entry->scores) {
    const Newline newline = trained.vocabularies()["token"].rules().newline;
    LanguageFigures figures = language_figures(result, corpus, text, newline);
    figures.rows = arguments.rows;
    if (common.json) {
      write_output(json_of(figures, trained));
    } else {
      print(text_of(figures, trained));
    }
    return 0;
  }
  if (trained.config().entry->translates) {
    evaluate_translations(arguments, text, trained, result, common.json);
  } else {
    print_scores(result, trained, common.json);
  }
  if (!common.json) tell_unknown("eval", corpus.validation["token"].store->unknown());
  return 0;
}

}  // namespace carousel
