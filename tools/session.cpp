#include "tools/session.h"

#include <fmt/format.h>
#include <omp.h>

#include "engine/training/training_run.h"
#include "kernels/common/check.h"

namespace carousel {
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

Metadata run_metadata(const RunConfig& config, const Vocabularies& vocabularies) {
  Metadata metadata{
      {"format", "pt"},  // what PyTorch's own files say, so that its loaders take these
      {"carousel.version", "1"},
      {"carousel.config", config.toml()},
      {"carousel.gate_order", "i, f, g, o"},
      {"carousel.biases", "bias_ih and bias_hh are both added"}};
  vocabularies.write(metadata);
  return metadata;
}

void load_weights(const SafetensorsFile& file, const Vocabularies& vocabularies, Model& model) {
  const std::string name = file.path().string();
  Vocabularies::read(file.metadata(), name).expect_same_tokens(vocabularies, name);
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
  text("carousel.vocabulary");
  vocabularies_ = Vocabularies::read(saved.metadata(), file);
  device_ = open_device(config_->machine);
  model_ =
      config_->model->make(vocabulary().size(), device_, compute_type(config_->machine.precision),
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
