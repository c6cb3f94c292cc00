#include "engine/training/checkpoint.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <utility>

#include "engine/files/tensor_names.h"
#include "kernels/common/check.h"

namespace carousel {
namespace fs = std::filesystem;

namespace {

constexpr const char* kStepKey = "step";        // in the metadata of both files
constexpr const char* kScalarsKey = "scalars";  // in that of the state
constexpr std::string_view kStepPrefix = "step-";

std::string step_name(std::int64_t step) { return fmt::format("{}{}", kStepPrefix, step); }

std::optional<std::int64_t> step_of(std::string_view folder_name) {
  if (!folder_name.starts_with(kStepPrefix)) return std::nullopt;
  return parsed_integer(folder_name.substr(kStepPrefix.size()));
}

/// Names must agree, and so must shapes and element types, before any tensor is written.
void expect_same_tensors(const SafetensorsFile& file, std::span<const NamedTensor> tensors,
                         bool may_convert) {
  std::vector<std::string> names;
  for (const NamedTensor& t : tensors) names.push_back(t.name);
  expect_same_names(file.path().string(), file.names(), names);
  for (const NamedTensor& t : tensors) {
    if (file.fit(t.name, t.tensor) != SafetensorsFile::Fit::exact && !may_convert) {
      throw FormatError(fmt::format("{}: '{}' is {}, expected {}", file.path().string(), t.name,
                                    file.info(t.name).text(), name(t.tensor.dtype())));
    }
  }
}

const std::string& metadata_value(const SafetensorsFile& file, const char* key) {
  const auto position = file.metadata().find(key);
  if (position == file.metadata().end()) {
    throw FormatError(fmt::format("{}: metadata has no '{}'", file.path().string(), key));
  }
  return position->second;
}

/// The file beside the weights.
fs::path state_file(const fs::path& folder) {
  if (fs::exists(folder / kStateFile)) return folder / kStateFile;
  throw FormatError(
      fmt::format("{}: the weights are there without {}, expected both to go on with training",
                  folder.string(), kStateFile));
}

std::optional<fs::path> target(const fs::path& link) {
  std::error_code error;
  const fs::path to = fs::read_symlink(link, error);
  if (error) return std::nullopt;
  return link.parent_path() / to;
}

}  // namespace

std::vector<std::string> read_weights(const SafetensorsFile& file,
                                      std::span<const NamedTensor> tensors) {
  expect_same_tensors(file, tensors, /*may_convert=*/true);
  std::vector<std::string> converted;
  for (const NamedTensor& t : tensors) {
    if (file.read_into(t.name, t.tensor) != SafetensorsFile::Fit::exact) {
      converted.push_back(t.name);
    }
  }
  return converted;
}

std::int64_t SavedWeights::step() const {
  const std::string& step = metadata_value(model_, kStepKey);
  const auto number = parsed_integer(step);
  if (number && *number >= 0) return *number;
  throw FormatError(fmt::format("{}: step is '{}', expected a whole number of at least 0",
                                model_.path().string(), step));
}

void SavedWeights::expect_weights(const Parameters& parameters) const {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < parameters.count(); ++i) names.push_back(parameters.name(i));
  expect_same_names(model_.path().string(), model_.names(), names);
  for (std::size_t i = 0; i < parameters.count(); ++i) {
    model_.expect_shape(parameters.name(i), parameters.shape(i));
  }
}

std::vector<std::string> SavedWeights::restore_weights(std::span<const NamedTensor> tensors) const {
  return read_weights(model_, tensors);
}

SavedCheckpoint::SavedCheckpoint(const fs::path& folder)
    : SavedWeights(folder / kModelFile),
      state_(state_file(folder)),
      scalars_(Scalars::from_json(metadata_value(state_, kScalarsKey), state_.path().string())) {
  const std::string &step = metadata_value(model(), kStepKey),
                    &state_step = metadata_value(state_, kStepKey);
  if (step != state_step) {
    throw FormatError(fmt::format("{}: step is '{}', expected '{}' as in {}",
                                  state_.path().string(), state_step, step, kModelFile));
  }
}

void SavedCheckpoint::restore_state(std::span<const NamedTensor> tensors) const {
  expect_same_tensors(state_, tensors, /*may_convert=*/false);
  for (const NamedTensor& t : tensors) state_.read_into(t.name, t.tensor);
}

fs::path find_checkpoint(const fs::path& path, const std::string& name) {
  if (!fs::exists(path)) throw IoError(fmt::format("there is no run {}", path.string()));
  if (fs::exists(path / kModelFile)) {
    if (name.empty()) return path;
    throw ConfigError(fmt::format("--checkpoint is {}, and {} is a checkpoint, expected a run",
                                  name, path.string()));
  }
  const fs::path folder = path / "checkpoints";
  const auto there = [&](const std::string& one) { return fs::exists(folder / one / kModelFile); };
  for (const std::string& one :
       name.empty() ? std::vector<std::string>{"best", "last"} : std::vector<std::string>{name}) {
    if (there(one)) return folder / one;
  }
  std::vector<std::string> names;
  for (const char* const link : {"last", "best"}) {
    if (there(link)) names.emplace_back(link);
  }
  for (const std::int64_t step : CheckpointFolder(path).steps()) names.push_back(step_name(step));
  if (!names.empty()) {
    throw IoError(fmt::format("{} has no checkpoint '{}', expected one of: {}", path.string(),
                              name.empty() ? "last" : name, fmt::join(names, ", ")));
  }
  throw IoError(fmt::format("{} holds no checkpoint: neither {} nor checkpoints/last/{} is there",
                            path.string(), kModelFile, kModelFile));
}

fs::path find_weights(const fs::path& path, const std::string& name) {
  if (!fs::is_regular_file(path)) return find_checkpoint(path, name) / kModelFile;
  if (name.empty()) return path;
  throw ConfigError(
      fmt::format("--checkpoint is {}, and {} is a file, expected a run", name, path.string()));
}

CheckpointFolder::CheckpointFolder(const fs::path& run_folder, int keep_newest, SystemCalls& calls)
    : folder_(run_folder / "checkpoints"), keep_newest_(keep_newest), calls_(calls) {}

std::optional<fs::path> CheckpointFolder::last() const { return target(folder_ / "last"); }
std::optional<fs::path> CheckpointFolder::best() const { return target(folder_ / "best"); }

std::vector<std::int64_t> CheckpointFolder::steps() const {
  std::vector<std::int64_t> result;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    const auto step = step_of(entry.path().filename().string());
    if (step && entry.is_directory() && !entry.is_symlink()) result.push_back(*step);
  }
  std::sort(result.begin(), result.end());
  return result;
}

void CheckpointFolder::expect_room(const CheckpointData& data) const {
  const std::uint64_t bytes =
      safetensors_bytes(folder_ / kModelFile, data.weights, data.metadata) +
      safetensors_bytes(folder_ / kStateFile, data.state, {{kScalarsKey, data.scalars.json()}});
  const fs::path run = folder_.parent_path();
  const std::uint64_t room = calls_.available(run.c_str());
  if (bytes <= room) return;
  throw IoError(fmt::format("{}: a checkpoint takes {:.1f} MB, and its disk has {:.1f} MB left",
                            run.string(), static_cast<double>(bytes) / 1e6,
                            static_cast<double>(room) / 1e6));
}

void CheckpointFolder::write(std::int64_t step, const CheckpointData& data) {
  NewFolder folder(folder_ / step_name(step), calls_);
  Metadata metadata = data.metadata;
  metadata[kStepKey] = std::to_string(step);
  OutputFile model(folder.temporary_path() / kModelFile, OutputFile::Mode::create, calls_);
  write_safetensors(model, data.weights, metadata);
  model.finish();
  OutputFile state(folder.temporary_path() / kStateFile, OutputFile::Mode::create, calls_);
  write_safetensors(state, data.state,
                    {{kStepKey, std::to_string(step)}, {kScalarsKey, data.scalars.json()}});
  state.finish();
  folder.commit();
}

void CheckpointFolder::save(std::int64_t step, const CheckpointData& data, bool is_best) {
  try {
    make_folders(folder_, calls_);
    write(step, data);
    // `best` first: a run that resumes from `last` knows its best loss, and must find `best` there.
    if (is_best) replace_link(folder_ / "best", step_name(step), calls_);
    replace_link(folder_ / "last", step_name(step), calls_);
    remove_old(step);
  } catch (const IoError& error) {
    const auto kept = last();
    throw IoError(fmt::format("{}; {}", error.what(),
                              kept ? fmt::format("{} is complete and kept", kept->string())
                                   : std::string("there is no earlier checkpoint")));
  }
}

void CheckpointFolder::remove_old(std::int64_t newest_step) {
  std::set<std::string> linked;  // by any link, also one the user made
  for (const auto& entry : fs::directory_iterator(folder_)) {
    std::error_code error;
    const fs::path to = entry.is_symlink() ? fs::canonical(entry.path(), error) : fs::path();
    if (!error) linked.insert(to.filename().string());
  }
  // Steps beyond this one are of a run that was wound back: neither counted nor removed.
  std::vector<std::int64_t> others = steps();
  std::erase_if(others, [&](std::int64_t step) {
    return step > newest_step || linked.contains(step_name(step));
  });
  const auto count = static_cast<std::int64_t>(others.size());
  for (std::int64_t i = 0; i < count - keep_newest_; ++i) {
    remove_folder(folder_ / step_name(others[static_cast<std::size_t>(i)]), calls_);
  }
}

int CheckpointFolder::remove_leftovers() {
  const int removed = carousel::remove_leftovers(folder_, calls_);
  const auto newest = last();
  const auto step = newest ? step_of(newest->filename().string()) : std::nullopt;
  if (step) remove_old(*step);
  return removed;
}

}  // namespace carousel
