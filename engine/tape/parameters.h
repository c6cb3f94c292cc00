#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tape/initializer.h"
#include "engine/tape/tape.h"

namespace carousel {

/// How parameters are trained, beside what the optimiser's config says for all.
struct ParameterGroup {
  double learning_rate_factor = 1;
  std::optional<double> weight_decay{};  ///< absent: the optimiser's
  bool frozen = false;  ///< the weight stays as it is: no gradient, no part of the norm, no moments
  bool operator==(const ParameterGroup&) const = default;
};

struct ParameterOptions {
  ParameterGroup group{};
  /// Of a matrix [V, E], or a vector [V] with rows of one number, of which a step reads few rows, by
  /// one lookup and nothing else: the step costs what these rows cost, in the gradient, the norm,
  /// the update and memory. See WeightUpdate for what the other rows miss.
  bool row_sparse = false;
};

class Parameters;

/// What new parameters begin with: random values, or those of a file.
struct Beginning {
  Beginning(std::uint64_t random_seed) : seed(random_seed) {}  // NOLINT: a seed is a beginning
  std::uint64_t seed;
  /// Set if the caller fills the parameters: called with their names and shapes before any memory is
  /// taken, to throw if they are not what it has. There are no random values then.
  std::function<void(const Parameters&)> expect{};
};

/// The weights of a model, named as PyTorch's modules name theirs. All of them lie in one float
/// buffer, their gradients in a second and, for bf16, the copies the products read in a third.
/// Parameters of one group are neighbours there, so that a norm is one launch and an optimiser's
/// update one per group; frozen ones come last and have no gradient. Row-sparse ones lie by
/// themselves. A model first declares its parameters, then `materialize` gives them memory and
/// values.
class Parameters {
 public:
  /// Declares a parameter and returns its index. Names are unique.
  std::size_t declare(std::string name, Shape shape, Initializer initializer,
                      const ParameterOptions& options = {});

  /// Puts every declared parameter whose name is like `pattern`, in which * stands for any text, into
  /// the group, instead of its own. What was materialised keeps its values, but not its memory: it
  /// is too late once an Optimizer or a tape refers to it. ConfigError if no name is like the
  /// pattern or the group makes no sense.
  void set_group(std::string_view pattern, const ParameterGroup& group);

  /// Allocates and initialises. `compute` is the storage type of the products: f32, or bf16, in
  /// which case matrices are read through a rounded copy while the float weights stay the truth.
  void materialize(const Device& device, DType compute, const Beginning& beginning);

  /// The parameter on a tape, the same Var however often it is asked for in a step, so that uses
  /// of one weight in two places (tied embeddings) share their gradient. Matrices come in the
  /// compute type, vectors (biases) in float.
  Var on(Tape& tape, std::size_t index);

  std::size_t count() const { return entries_.size(); }
  const std::string& name(std::size_t index) const { return entries_[index].name; }
  const Shape& shape(std::size_t index) const { return entries_[index].shape; }
  const Tensor& weight(std::size_t index) const { return entries_[index].weight; }
  const Tensor& working(std::size_t index) const { return entries_[index].working; }  ///< as flat
  const ParameterGroup& group(std::size_t index) const { return entries_[index].options.group; }
  /// Empty if frozen or row-sparse.
  const Tensor& gradient(std::size_t index) const { return entries_[index].gradient; }
  /// Of the last step on a tape, not present if nothing reached the parameter; null if it is not
  /// row-sparse, or frozen.
  const RowGradient* row_gradient(std::size_t index) const { return entries_[index].rows.get(); }
  DType compute_type() const { return compute_; }
  std::int64_t element_count() const;  ///< of all parameters, without padding

  struct Bytes {
    std::size_t weights = 0, working = 0, gradients = 0;
  };
  /// The memory of all parameters, row-sparse ones too. Row-sparse gradients, which are part of a
  /// step's memory, are not counted.
  Bytes bytes() const;

  const Device& device() const { return weights_.device(); }
  const Tensor& flat_weights() const { return weights_; }  ///< [N + frozen] f32, padding is zero
  const Tensor& flat_gradients() const { return gradients_; }  ///< [N] f32
  const Tensor& flat_working() const { return working_; }      ///< [N + frozen] bf16; none for f32

  /// The elements first … first + count − 1 of the flat buffers are a group's.
  struct Stretch {
    ParameterGroup group;
    std::int64_t first = 0, count = 0;
  };
  /// All groups that are not frozen; together they cover flat_gradients().
  const std::vector<Stretch>& stretches() const { return stretches_; }

  /// What belongs to one parameter in a buffer laid out as flat_weights() or flat_gradients(), such
  /// as a moment; empty if there is nothing.
  Tensor part_of(const Tensor& flat, std::size_t index) const;

  /// Rounds the weights into the bf16 copy: after they were loaded. (Optimisers do it as they
  /// update.)
  void refresh_working() const;
  /// Sets gradients that no rule wrote in the step on this tape to zero, row-sparse ones to no
  /// rows.
  void zero_unreached(const Tape& tape) const;

 private:
  struct Entry {
    std::string name;
    Shape shape;
    Initializer initializer;
    ParameterOptions options;
    std::int64_t first = 0;  ///< in the flat buffers
    Tensor weight, gradient, working;
    std::shared_ptr<RowGradient> rows;  ///< of a row-sparse parameter that is not frozen
    Var var;
  };
  std::int64_t lay_out();
  void allocate(const Device& device);

  std::vector<Entry> entries_;
  std::vector<Stretch> stretches_;
  DType compute_ = DType::f32;
  Tensor weights_, gradients_, working_;
  std::uint64_t generation_ = 0;  ///< of the tape that the entries' Vars are on
};

}  // namespace carousel
