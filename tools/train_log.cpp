#include "tools/train_log.h"

#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "tools/session.h"

namespace carousel {

namespace {

std::size_t bytes_of(const Tensor& tensor) { return tensor ? tensor.bytes() : 0; }

std::size_t bytes_of(const std::vector<std::pair<std::string, Tensor>>& tensors) {
  std::size_t bytes = 0;
  for (const auto& [name, tensor] : tensors) bytes += bytes_of(tensor);
  return bytes;
}

}  // namespace

double seconds_so_far(const std::filesystem::path& metrics_file) {
  std::ifstream file(metrics_file);
  double seconds = 0;
  for (std::string line; std::getline(file, line);) {
    seconds = nlohmann::json::parse(line).value("seconds", seconds);
  }
  return seconds;
}

TrainLog::TrainLog(const std::filesystem::path& run_folder, std::int64_t step,
                   const TrainConfig& config, const Vocabulary& vocabulary, const Device& device)
    : metrics_(run_folder / "metrics.jsonl", step),
      config_(config),
      vocabulary_(vocabulary),
      device_(device) {}

void TrainLog::on_step(const TrainingRun& run, const Arena& arena) {
  if (!memory_told_) {
    const auto weights = run.model.parameters().flat_weights().bytes();
    progress_.line(fmt::format("memory: peak {} on {}, of it {} weights",
                               bytes_text(memory_use(device_).peak), device_text(device_),
                               bytes_text(weights)));
    memory_told_ = true;
  }
  if (explanation_) {
    const Parameters& parameters = run.model.parameters();
    progress_.line(
        explanation_->text(true, {{"weights", parameters.flat_weights().bytes()},
                                  {"their bf16 copies", bytes_of(parameters.flat_working())},
                                  {"gradients", parameters.flat_gradients().bytes()},
                                  {"optimizer", bytes_of(run.optimizer.state())},
                                  {"carried state", bytes_of(run.state.tensors)},
                                  {"a step's values, gradients and scratch", arena.reserved()}}));
    explanation_.reset();
  }
  progress_.show(run.step, config_.steps, note_);
}

void TrainLog::on_report(const Report& r) {
  std::vector<MetricField> line{{"step", r.step},
                                {"epoch", r.epoch},
                                {"tokens", r.tokens},
                                {"seconds", r.seconds},
                                {"loss", r.loss},
                                {"gradient_norm", r.gradient_norm},
                                {"learning_rate", r.learning_rate},
                                {"tokens_per_second", r.tokens_per_second}};
  if (r.validation_loss) line.push_back({"validation_loss", *r.validation_loss});
  metrics_.append(line);

  note_ = fmt::format("loss {:.4f}  {} tokens/s", r.loss, count_text(r.tokens_per_second));
  if (r.validation_loss) {
    progress_.line(fmt::format("step {}: loss {:.4f}, validation loss {:.4f} nats per token",
                               r.step, r.loss, *r.validation_loss));
  } else if (!progress_.on_terminal()) {
    progress_.line(fmt::format("step {}/{}: {}", r.step, config_.steps, note_));
  }
}

void TrainLog::on_save(std::int64_t step, bool is_best) {
  if (is_best) progress_.line(fmt::format("step {}: saved, the best so far", step));
}

void TrainLog::on_sample(const TrainingRun& run) {
  Generator generator(run.model, {.temperature = 0.8, .suppressed_token = vocabulary_.unknown()});
  TextDecoder decoder(vocabulary_);
  std::string text;
  generator.read(first_token(vocabulary_));
  for (std::int64_t i = 0; i < config_.sample_tokens; ++i) text += decoder.next(generator.next());
  progress_.line(fmt::format("step {}: a sample\n{}{}", run.step, text, decoder.finish()));
}

void TrainLog::on_graph_refused(const std::string& why) {
  progress_.line(fmt::format("steps are eager from here on, not CUDA graphs: {}", why));
}

}  // namespace carousel
