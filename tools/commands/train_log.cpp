#include "tools/commands/train_log.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <string_view>

#include "engine/generation/text_writer.h"
#include "kernels/common/memory.h"

namespace carousel {
namespace {

std::size_t bytes_of(const Tensor& tensor) { return tensor ? tensor.bytes() : 0; }

std::size_t bytes_of(const std::vector<std::pair<std::string, Tensor>>& tensors) {
  std::size_t bytes = 0;
  for (const auto& [name, tensor] : tensors) bytes += bytes_of(tensor);
  return bytes;
}

std::size_t bytes_of(const State& state) {
  std::size_t bytes = 0;
  for (const StateTensor& tensor : state.tensors) bytes += bytes_of(tensor.value);
  return bytes;
}

}  // namespace

std::string score_text(const Score& score) {
  return fmt::format("{} {:.4f}{}{}", score.name, score.value, score.unit.empty() ? "" : " ",
                     score.unit);
}

namespace {
bool predicts_words(const RunConfig& config, const Corpus& corpus) {
  return config.entry->scores && corpus.vocabularies["token"].rules().kind == TokenKind::word;
}
}  // namespace

std::string score_text(const Score& score, const RunConfig& config, const Corpus& corpus) {
  const bool of_words = score.name == "loss" && predicts_words(config, corpus);
  return score_text(score) +
         (of_words ? fmt::format(", perplexity {:.2f}", std::exp(score.value)) : "");
}

const char* counted_name(const Corpus& corpus) {
  return corpus.train.find("label") != nullptr ? "example" : "token";
}

void TrainLog::begin(const RunStatus& run) {
  corpus_ = &run.corpus;
  device_ = run.device;
  if (explaining_) explanation_.emplace(run.device, config_.machine);
}

void TrainLog::on_step(const TrainingRun& run, const Arena& arena) {
  const Parameters::Bytes bytes = run.model.parameters().bytes();
  if (!memory_told_) {
    progress_.line(fmt::format("memory: peak {} on {}, of it {} weights",
                               bytes_text(memory_use(*device_).peak), device_text(*device_),
                               bytes_text(bytes.weights)));
    memory_told_ = true;
  }
  if (explanation_) {
    progress_.line(
        explanation_->text(true, {{"weights", bytes.weights},
                                  {"their bf16 copies", bytes.working},
                                  {"gradients", bytes.gradients},
                                  {"optimizer", bytes_of(run.optimizer.state())},
                                  {"carried state", bytes_of(run.state)},
                                  {"a step's values, gradients and scratch", arena.reserved()}}));
    explanation_.reset();
  }
  progress_.show(run.step, config_.train.steps, note_);
}

std::string TrainLog::validation_text(const Evaluation& validation, std::int64_t step) {
  validation_ = validation;
  fault_.clear();
  std::vector<std::string> scores;
  for (const Score& score : validation.scores) {
    scores.push_back(score_text(score, config_, *corpus_));
    if (fault_.empty() && !std::isfinite(score.value)) {
      fault_ = fmt::format("the validation {} of step {} is {}, no finite number", score.name, step,
                           score.value);
    }
  }
  return fmt::format("{}", fmt::join(scores, ", "));
}

void TrainLog::on_progress(std::string_view phase, std::int64_t done, std::int64_t all) {
  progress_.show(done, all, std::string(phase));
}

void TrainLog::on_fit(const FitReport& r) {
  if (r.validation) {
    progress_.line(
        fmt::format("step {}: validation {}", r.step, validation_text(*r.validation, r.step)));
    return;
  }
  loss_ = r.loss;
  if (r.loss) progress_.line(fmt::format("step {}: loss {:.4f}", r.step, *r.loss));
}

void TrainLog::on_report(const Report& r) {
  loss_.reset();
  validation_.reset();
  if (!r.belated) {
    loss_ = r.loss;
    note_ = fmt::format("loss {:.4f}  {}{} {}s/s", r.loss,
                        predicts_words(config_, *corpus_)
                            ? fmt::format("perplexity {:.2f}  ", std::exp(r.loss))
                            : "",
                        count_text(r.tokens_per_second), counted_name(*corpus_));
  }
  for (const Score& term : r.terms) note_ += fmt::format("  {} {:.4f}", term.name, term.value);
  if (r.validation) {
    progress_.line(fmt::format(
        "step {}: {}validation{} {}", r.step, r.belated ? "" : fmt::format("loss {:.4f}, ", r.loss),
        r.averaged > 0 ? " of averaged weights" : "", validation_text(*r.validation, r.step)));
  } else if (!progress_.on_terminal()) {
    progress_.line(fmt::format("step {}/{}: {}", r.step, config_.train.steps, note_));
  }
}

void TrainLog::on_save(std::int64_t step, bool is_best) {
  if (is_best) progress_.line(fmt::format("step {}: saved, the best so far", step));
}

void TrainLog::on_sample(const TrainingRun& run) {
  const Vocabulary& vocabulary = corpus_->vocabularies["token"];
  TextWriter writer(run.model, vocabulary,
                    {.sampling = {.temperature = 0.8}, .tokens = config_.train.sample_tokens});
  std::string text;
  writer.begin({});
  writer.write([&](std::size_t, std::string_view piece) { text += piece; });
  progress_.verbatim(fmt::format("step {}: a sample\n{}", run.step, text));
}

void TrainLog::on_graph_refused(const std::string& why) {
  progress_.line(fmt::format("steps are eager from here on, not CUDA graphs: {}", why));
}

}  // namespace carousel
