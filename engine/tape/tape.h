#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <vector>

#include "engine/tape/tensor.h"
#include "kernels/common/device.h"
#include "kernels/common/range.h"
#include "kernels/common/tolerance.h"

namespace carousel {

class Tape;

/// The dimensions of a value, slowest first, by which reports address an element.
enum class Axes : std::uint8_t {
  sequence,   ///< [T, B, …] time step, row, unit
  state,      ///< [B, H] row, unit
  parameter,  ///< [R, C] row, column, or [N] element
};

/// A value's name in reports, and its tolerance by the contract of its op. Tape rules label their
/// values, so that models need not.
struct Label {
  std::string name = {};  ///< of the layer or op, "lstm layer 1"; empty: the current layer's
  std::string part = {};  ///< the value, if the layer has several: "gate", "cell state"
  std::vector<std::string> blocks = {};  ///< names of equal blocks of a sequence's columns: i, f, …
  Axes axes = Axes::sequence;
  Tolerances forward = {}, backward = {};  ///< of the value and of its inputs' gradients; 0: exact
  /// Of both, on top, between f32 and bf16: for an op whose sums may cancel inputs rounded on one side.
  Tolerance rounded_inputs = {};

  /// "lstm layer 1, gate f" of block 1; of the whole value without a block.
  std::string text(std::size_t block = static_cast<std::size_t>(-1)) const;
};

/// The gradient of a row-sparse parameter [V, E]: of the rows that a step has read.
struct RowGradient {
  Tensor row;     ///< [C] i32 the rows, each once, ascending
  Tensor count;   ///< [1] i32 how many of the C entries are in use; known on the device only
  Tensor values;  ///< [C, E] f32
  bool present() const { return static_cast<bool>(values); }
};

/// A labelled value of a step.
struct LabelledValue {
  Label label;
  Tensor value;        ///< overwritten if the gradient has the same memory
  Tensor gradient;     ///< empty until a rule has written it
  RowGradient rows{};  ///< instead of `gradient`, of a row-sparse parameter
  bool is_parameter = false;
  bool is_constant = false;  ///< not computed: data, a state carried from the last window
};

/// Where a backward rule writes a gradient: it overwrites the tensor or, if `accumulate`, adds to
/// it. If the tensor is empty, the gradient is not needed, and as() is absent.
struct GradientTarget {
  Tensor tensor;
  bool accumulate = false;

  /// The argument of an op.
  template <class T, int R>
  Gradient<T, R> as() const {
    return {tensor.mutable_view<T, R>(), accumulate};
  }
};

/// A value on a tape. A small handle: copy freely; valid until the tape is cleared.
class Var {
 public:
  Var() = default;
  const Tensor& value() const;
  const Shape& shape() const { return value().shape(); }
  DType dtype() const { return value().dtype(); }
  bool needs_gradient() const;
  Tape& tape() const { return *tape_; }
  bool present() const { return tape_ != nullptr; }  ///< false of Var{}: an absent argument

  /// For a backward rule: where to write this input's gradient. Call it once for each write: the
  /// first call in a step says to overwrite and later ones to add, so that no gradient is filled
  /// with zeros. Error for a row-sparse parameter.
  GradientTarget gradient() const;
  /// For the backward rule of a lookup: where to store the gradient of a row-sparse parameter. Null
  /// for any other value. Error at the second call in a step.
  RowGradient* row_gradient() const;
  /// For a backward rule: the gradient of this output; empty if nothing reached it.
  const Tensor& d() const;

 private:
  friend class Tape;
  Var(Tape* tape, std::size_t index) : tape_(tape), index_(index) {}
  Tape* tape_ = nullptr;
  std::size_t index_ = 0;
};

/// Records a computation in order and replays it backwards: no graph search and no recursion, so
/// that a sequence of 10⁶ steps costs no stack. Values and gradients live in the arena.
class Tape {
 public:
  /// `recording` false: values only; nothing needs a gradient and no rule is kept.
  Tape(Arena& arena, bool recording);
  Tape(const Tape&) = delete;
  Tape& operator=(const Tape&) = delete;

  const Device& device() const { return arena_.device(); }
  bool recording() const { return recording_; }
  /// Values and rules recorded during its lifetime belong to the layer of this name. A profiler
  /// shows the layer as a Range in the forward pass, and in the backward pass around its rules.
  /// Layers may nest.
  class Layer {
   public:
    Layer(Tape& tape, std::string name);
    ~Layer();
    Layer(const Layer&) = delete;
    Layer& operator=(const Layer&) = delete;

    const std::string& name() const { return name_; }

   private:
    Tape& tape_;
    std::string name_;
    Range range_;
  };

  /// A number that changes when the tape is cleared and that no other tape has. It tells whether a
  /// stored Var is still valid.
  std::uint64_t generation() const { return generation_; }

  /// Whether products of float tensors may round their inputs to tf32, where the device can.
  bool tf32() const { return tf32_; }
  void allow_tf32(bool allowed) { tf32_ = allowed; }

  /// Whether parameters' gradients are added to what the gradients have: to those of the batches
  /// before, of the same step.
  void add_gradients(bool add) { adding_ = add; }

  /// Uninitialised memory, valid until the arena is reset: for an op's outputs, and for values that
  /// it keeps for the backward pass.
  Tensor tensor(Shape shape, DType dtype) { return arena_.tensor(shape, dtype); }

  /// Checks an op and runs it on this tape's device, with scratch memory of this step.
  template <class Op>
  void run_with_scratch(Op op) {
    const auto bytes = static_cast<std::int64_t>(scratch_bytes(device(), op));
    const Tensor memory = tensor({(bytes + 3) / 4}, DType::i32);  // there is no tensor of bytes
    op.scratch = {static_cast<std::byte*>(memory.mutable_data()), {bytes}};
    run(device(), op);
  }

  /// A value without a gradient: data, a state carried from the last window.
  Var constant(Tensor value);
  /// A leaf with a gradient at a fixed address: a weight, whose gradient is float though the
  /// value may be bf16. The first writer of the step overwrites it, or adds to it: add_gradients().
  Var parameter(Tensor value, Tensor gradient);
  /// A leaf whose gradient is row-sparse: a lookup alone can read it, once. `gradient` must outlive
  /// the step; where nothing reaches the leaf it stays as it is.
  Var row_sparse_parameter(Tensor value, RowGradient* gradient);

  /// A value that an op keeps for its backward rule, which overwrites it with the gradient. It is
  /// here for reports alone: no other op may read it.
  Var overwritten(Tensor value, std::initializer_list<Var> inputs);

  /// An op's output. It needs a gradient if one of the inputs does; absent inputs do not.
  Var output(Tensor value, std::initializer_list<Var> inputs);
  /// An output that takes the place of a parameter: its gradient is float though the value may be
  /// bf16.
  Var weight(Tensor value, std::initializer_list<Var> inputs);
  /// The rule that computes the gradients of the op's inputs from those of `outputs`. backward()
  /// calls it if the gradient of at least one output was written. Ignored if no output needs a
  /// gradient; absent outputs need none.
  void on_backward(std::initializer_list<Var> outputs, std::function<void()> rule);
  /// output() and on_backward() for the common case of one output; the rule gets its gradient.
  Var record(Tensor value, std::initializer_list<Var> inputs,
             std::function<void(const Tensor& d_value)> rule);

  /// Replays every rule in reverse order. It needs no root: a loss writes its inputs' gradients
  /// when it is recorded, and has no rule.
  void backward();
  /// Names a value for reports and messages.
  void label(const Var& var, Label label);
  /// The name of the innermost open layer; empty if there is none.
  std::string layer_name() const { return open_.empty() ? std::string() : open_.back(); }
  /// The values that have a label, in recording order; their gradients are computed in the reverse
  /// order. If several labels have the same text, the second one gets the name "… (2)", and so on.
  std::vector<LabelledValue> labelled() const;
  /// The label of the first value, in the order of computation, that holds a NaN or an infinity;
  /// then of the first such gradient, "the gradient of …". Empty if there is none. Waits for the
  /// device.
  std::string first_non_finite() const;
  /// The gradients of parameters that no rule has written since the tape was cleared. The caller
  /// sets them to zero.
  std::vector<Tensor> unreached_parameters() const;
  void clear();  ///< removes all values and rules; does not reset the arena

 private:
  friend class Var;
  struct Slot {
    Tensor value, gradient;
    Label label{};
    RowGradient* rows = nullptr;  ///< of a row-sparse parameter
    bool needs_gradient = false, is_parameter = false, is_constant = false, written = false;
    bool lost() const { return written && value.data() == gradient.data(); }
  };
  enum class Mark : std::uint8_t { rule, layer_begins, layer_ends };
  /// An entry of the record: a rule, or the begin or end of a layer.
  struct Entry {
    Mark mark = Mark::rule;
    std::vector<std::size_t> outputs{};  ///< of a rule
    std::function<void()> run{};
    std::string layer{};  ///< name of the layer that ends
  };
  Var add(Slot slot);
  Arena& arena_;
  bool recording_;
  std::uint64_t generation_;
  bool tf32_ = false, adding_ = false;
  std::vector<Slot> slots_;
  std::vector<Entry> rules_;
  std::vector<std::string> open_;  ///< names of the layers being recorded, innermost last
};

}  // namespace carousel
