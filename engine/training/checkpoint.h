#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/files/atomic.h"
#include "engine/files/safetensors.h"
#include "engine/tape/parameters.h"
#include "engine/training/scalars.h"

namespace carousel {

/// Everything training changes.
struct CheckpointData {
  std::vector<NamedTensor> weights;  ///< under PyTorch's names
  std::vector<NamedTensor> state;    ///< optimiser state, recurrent state
  Metadata metadata;                 ///< what the weights mean: gate order, config, vocabulary
  Scalars scalars;                   ///< epoch, data position, schedule, best loss, seed
};

/// Fills the tensors from a file that holds exactly those: FormatError lists the names that are
/// missing and those nobody asked for, or names the tensor whose shape or element type is another,
/// and then no tensor has been touched. Returns the names that were converted between float and
/// bf16.
std::vector<std::string> read_weights(const SafetensorsFile& file,
                                      std::span<const NamedTensor> tensors);

/// Files of a checkpoint.
inline constexpr const char *kModelFile = "model.safetensors", *kStateFile = "state.safetensors";

/// The weights of a checkpoint on the disk, which are enough to run its model.
class SavedWeights {
 public:
  explicit SavedWeights(const std::filesystem::path& file) : model_(file) {}

  std::int64_t step() const;  ///< FormatError if the file is no checkpoint's
  const Metadata& metadata() const { return model_.metadata(); }
  const SafetensorsFile& model() const { return model_; }

  /// FormatError unless the model's tensors are exactly these, by name and shape. Takes no memory.
  void expect_weights(const Parameters& parameters) const;
  /// As read_weights().
  std::vector<std::string> restore_weights(std::span<const NamedTensor> tensors) const;

 private:
  SafetensorsFile model_;
};

/// A checkpoint on the disk: a folder of `model.safetensors` and `state.safetensors`, with which
/// training goes on.
class SavedCheckpoint : public SavedWeights {
 public:
  /// Opens both files and checks that they belong together. `folder` may be a checkpoint or a link
  /// to one. FormatError if the weights are there alone.
  explicit SavedCheckpoint(const std::filesystem::path& folder);

  const Scalars& scalars() const { return scalars_; }
  const SafetensorsFile& state() const { return state_; }
  /// The state without conversion: a run that continues must continue exactly.
  void restore_state(std::span<const NamedTensor> tensors) const;

 private:
  SafetensorsFile state_;
  Scalars scalars_;
};

/// The folder of the checkpoint that a user means: of the folder RUN the one of this name (last, best,
/// step-N), or without a name `best` where there is one and else `last`. A path to a checkpoint,
/// RUN/checkpoints/step-N, needs no name. IoError that lists the checkpoints there are if this is
/// none of them; ConfigError for a name beside a path to a checkpoint.
std::filesystem::path find_checkpoint(const std::filesystem::path& path,
                                      const std::string& name = {});

/// The file of the weights that a user means: the path itself, if it is a file, or that of
/// find_checkpoint().
std::filesystem::path find_weights(const std::filesystem::path& path, const std::string& name = {});

/// The folder RUN/checkpoints: `step-N/` for each checkpoint kept, and the relative links `last`
/// and `best`. At every instant, and so after a kill or a power cut, `last` and `best` lead to
/// complete checkpoints.
class CheckpointFolder {
 public:
  /// Keeps the checkpoints that a link points to, and of the others the `keep_newest` newest.
  explicit CheckpointFolder(const std::filesystem::path& run_folder, int keep_newest = 0,
                            SystemCalls& calls = kernel_calls());

  /// Throws what save() would, were it known beforehand: IoError if the disk has no room for a
  /// checkpoint, FormatError for metadata that no file can hold.
  void expect_room(const CheckpointData& data) const;
  /// The run's folder has another name from now on.
  void move_to(const std::filesystem::path& run_folder) { folder_ = run_folder / "checkpoints"; }

  /// Writes the checkpoint, moves `best` (if it is the best) and then `last` to it, and removes
  /// what need not be kept. An IoError says which checkpoint is still there.
  void save(std::int64_t step, const CheckpointData& data, bool is_best);

  /// Where `last` and `best` lead; nothing before the first save.
  std::optional<std::filesystem::path> last() const;
  std::optional<std::filesystem::path> best() const;
  std::vector<std::int64_t> steps() const;  ///< of the checkpoints there are, ascending

  /// Removes what a killed save left behind or did not come to remove; returns how many temporary
  /// names there were. To call at start, with the run's lock held.
  int remove_leftovers();

 private:
  void write(std::int64_t step, const CheckpointData& data);
  void remove_old(std::int64_t newest_step);
  std::filesystem::path folder_;
  int keep_newest_;
  SystemCalls& calls_;
};

}  // namespace carousel
