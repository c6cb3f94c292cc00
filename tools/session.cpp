#include "tools/session.h"

#include <fmt/format.h>
#include <omp.h>

#include "engine/text/utf8.h"
#include "engine/training/training_run.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

constexpr const char* kVocabularyKey = "carousel.vocabulary";  // in a checkpoint's metadata

// Equal shapes do not make two vocabularies the same: ids follow the counts of a text.
void expect_vocabulary(const SafetensorsFile& file, const Vocabulary& expected) {
  const std::string name = file.path().string();
  const auto found = file.metadata().find(kVocabularyKey);
  if (found == file.metadata().end()) return;
  const Vocabulary theirs = Vocabulary::parse(found->second, name);
  if (theirs.size() != expected.size()) {
    throw FormatError(fmt::format("{}: its vocabulary has {} tokens, expected the {} of data.text",
                                  name, theirs.size(), expected.size()));
  }
  for (std::int32_t id = 0; id < expected.size(); ++id) {
    if (theirs.token(id) != expected.token(id)) {
      throw FormatError(
          fmt::format("{}: token {} of its vocabulary is '{}', expected '{}' as in "
                      "data.text",
                      name, id, escaped(theirs.token(id)), escaped(expected.token(id))));
    }
  }
}

}  // namespace

Device open_device(const MachineConfig& machine) {
  if (machine.threads > 0) omp_set_num_threads(static_cast<int>(machine.threads));
#if CAROUSEL_CUDA
  const bool present = Cuda::count() > 0;
  const bool wanted = machine.device == DeviceChoice::cuda ||
                      (machine.device == DeviceChoice::automatic && present);
  if (wanted && !present) throw ConfigError("run.device is cuda, and this machine has no CUDA GPU");
  if (wanted) return Cuda();
#else
  if (machine.device == DeviceChoice::cuda) {
    throw ConfigError(
        "run.device is cuda, and this build has no CUDA: configure with -DCAROUSEL_CUDA=ON");
  }
#endif
  if (machine.precision == Precision::tf32) {
    throw ConfigError("run.precision is tf32, which only CUDA knows; on the CPU use f32 or bf16");
  }
  return Cpu{};
}

std::string device_text(const Device& device) {
#if CAROUSEL_CUDA
  if (const Cuda* cuda = std::get_if<Cuda>(&device)) return cuda->name();
#endif
  return fmt::format("cpu ({} threads)", is_cpu(device) ? omp_get_max_threads() : 0);
}

DType compute_type(Precision precision) {
  return precision == Precision::bf16 ? DType::bf16 : DType::f32;
}

Metadata run_metadata(const RunConfig& config, const Vocabulary& vocabulary) {
  return {{"format", "pt"},  // what PyTorch's own files say, so that its loaders take these
          {"carousel.version", "1"},
          {"carousel.config", config.toml()},
          {kVocabularyKey, vocabulary.text()},
          {"carousel.gate_order", "i, f, g, o"},
          {"carousel.biases", "bias_ih and bias_hh are both added"}};
}

void load_weights(const SafetensorsFile& file, const Vocabulary& vocabulary, Model& model) {
  expect_vocabulary(file, vocabulary);
  Parameters& parameters = model.parameters();
  read_weights(file, named_weights(parameters));
  parameters.refresh_working();
}

TrainedModel::TrainedModel(const std::filesystem::path& path, const CommonArguments& common) {
  const SavedCheckpoint saved(find_checkpoint(path));
  const std::string file = saved.model().path().string();
  const auto text = [&](const char* key) -> const std::string& {
    const auto found = saved.metadata().find(key);
    if (found == saved.metadata().end()) {
      throw FormatError(
          fmt::format("{}: no '{}' among its metadata, expected one of Carousel's "
                      "own checkpoints",
                      file, key));
    }
    return found->second;
  };
  config_ = std::make_unique<RunConfig>(text("carousel.config"), file, common);
  vocabulary_ = std::make_unique<Vocabulary>(Vocabulary::parse(text(kVocabularyKey), file));
  device_ = open_device(config_->machine);
  model_ =
      config_->model->make(vocabulary_->size(), device_, compute_type(config_->machine.precision),
                           static_cast<std::uint64_t>(config_->train.seed));
  Parameters& parameters = model_->parameters();
  saved.restore_weights(named_weights(parameters));
  parameters.refresh_working();
  step_ = saved.step();
}

std::int32_t first_token(const Vocabulary& vocabulary) {
  if (vocabulary.begin() >= 0) return vocabulary.begin();
  if (vocabulary.end() >= 0) return vocabulary.end();
  const std::int32_t newline = vocabulary.id("\n");
  return newline >= 0 ? newline : static_cast<std::int32_t>(vocabulary.size() - 1);
}

}  // namespace carousel
