#include "engine/tape/tape.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <deque>
#include <map>
#include <utility>

#include "kernels/common/check.h"

namespace carousel {

namespace {

std::uint64_t next_generation() {
  static std::atomic<std::uint64_t> last{0};
  return ++last;
}

}  // namespace

Tape::Tape(Arena& arena, bool recording)
    : arena_(arena), recording_(recording), generation_(next_generation()) {}

const Tensor& Var::value() const { return tape_->slots_[index_].value; }

bool Var::needs_gradient() const { return tape_->slots_[index_].needs_gradient; }

const Tensor& Var::d() const { return tape_->slots_[index_].gradient; }

GradientTarget Var::gradient() const {
  Tape::Slot& slot = tape_->slots_[index_];
  if (!slot.needs_gradient) return {};
  if (slot.rows != nullptr) {
    throw Error("tape: '" + slot.label.text() +
                "' is row-sparse, so that only a lookup can read it; declare it dense where a "
                "product does too, as with tied embeddings");
  }
  if (!slot.gradient) slot.gradient = tape_->tensor(slot.value.shape(), slot.value.dtype());
  return {slot.gradient, std::exchange(slot.written, true)};
}

RowGradient* Var::row_gradient() const {
  Tape::Slot& slot = tape_->slots_[index_];
  if (slot.rows != nullptr && std::exchange(slot.written, true)) {
    throw Error(
        "tape: '" + slot.label.text() +
        "' is row-sparse, and two lookups read it in one step; join their tokens, or declare it "
        "dense");
  }
  return slot.rows;
}

Var Tape::add(Slot slot) {
  slots_.push_back(std::move(slot));
  return Var(this, slots_.size() - 1);
}

std::string Label::text(std::size_t block) const {
  std::string result = part.empty() ? name : name.empty() ? part : name + ", " + part;
  if (block < blocks.size()) result += " " + blocks[block];
  return result;
}

Var Tape::constant(Tensor value) {
  return add({.value = std::move(value), .gradient = {}, .is_constant = true});
}

Var Tape::parameter(Tensor value, Tensor gradient) {
  return add({.value = std::move(value),
              .gradient = std::move(gradient),
              .needs_gradient = recording_,
              .is_parameter = true,
              .written = adding_});
}

Var Tape::row_sparse_parameter(Tensor value, RowGradient* gradient) {
  return add({.value = std::move(value),
              .gradient = {},
              .rows = gradient,
              .needs_gradient = recording_,
              .is_parameter = true});
}

Var Tape::output(Tensor value, std::initializer_list<Var> inputs) {
  const bool needs = std::any_of(inputs.begin(), inputs.end(), [](const Var& input) {
    return input.present() && input.needs_gradient();
  });
  return add({.value = std::move(value), .gradient = {}, .needs_gradient = recording_ && needs});
}

Var Tape::overwritten(Tensor value, std::initializer_list<Var> inputs) {
  const Var result = output(std::move(value), inputs);
  Slot& slot = slots_[result.index_];
  if (slot.needs_gradient) slot.gradient = slot.value;
  return result;
}

Var Tape::weight(Tensor value, std::initializer_list<Var> inputs) {
  const Var result = output(std::move(value), inputs);
  Slot& slot = slots_[result.index_];
  if (slot.needs_gradient && slot.value.dtype() == DType::bf16) {
    slot.gradient = tensor(slot.value.shape(), DType::f32);
  }
  return result;
}

Tape::Layer::Layer(Tape& tape, std::string name)
    : tape_(tape), name_(std::move(name)), range_(name_.c_str()) {
  tape_.rules_.push_back({.mark = Mark::layer_begins});
  tape_.open_.push_back(name_);
}

Tape::Layer::~Layer() {
  tape_.open_.pop_back();
  std::vector<Entry>& rules = tape_.rules_;
  if (rules.back().mark == Mark::layer_begins) {
    rules.pop_back();  // there is nothing to replay in it
  } else {
    rules.push_back({.mark = Mark::layer_ends, .layer = std::move(name_)});
  }
}

void Tape::on_backward(std::initializer_list<Var> outputs, std::function<void()> rule) {
  Entry entry{.run = std::move(rule)};
  for (const Var& output : outputs) {
    if (output.present() && output.needs_gradient()) entry.outputs.push_back(output.index_);
  }
  if (!entry.outputs.empty()) rules_.push_back(std::move(entry));
}

Var Tape::record(Tensor value, std::initializer_list<Var> inputs,
                 std::function<void(const Tensor& d_value)> rule) {
  const Var result = output(std::move(value), inputs);
  on_backward({result}, [result, rule = std::move(rule)] { rule(result.d()); });
  return result;
}

void Tape::backward() {
  std::deque<Range> layers;  // layers open at this point of the replay, innermost last
  for (std::size_t i = rules_.size(); i-- > 0;) {
    const Entry& entry = rules_[i];
    switch (entry.mark) {
      case Mark::layer_ends:
        layers.emplace_back(entry.layer.c_str());
        break;
      case Mark::layer_begins:
        layers.pop_back();
        break;
      case Mark::rule:
        if (std::any_of(entry.outputs.begin(), entry.outputs.end(),
                        [&](std::size_t o) { return slots_[o].written; })) {
          entry.run();
        }
    }
  }
}

void Tape::label(const Var& var, Label label) {
  if (label.name.empty()) label.name = layer_name();
  slots_[var.index_].label = std::move(label);
}

std::vector<LabelledValue> Tape::labelled() const {
  std::vector<LabelledValue> result;
  std::map<std::string, int> times;  // that a label's text has occurred
  for (const Slot& slot : slots_) {
    Label label = slot.label;
    if (label.text().empty()) continue;
    const int time = ++times[label.text()];
    if (time > 1) label.name += " (" + std::to_string(time) + ")";
    result.push_back({.label = std::move(label),
                      .value = slot.value,
                      .gradient = slot.written ? slot.gradient : Tensor{},
                      .rows = slot.written && slot.rows != nullptr ? *slot.rows : RowGradient{},
                      .is_parameter = slot.is_parameter,
                      .is_constant = slot.is_constant});
  }
  return result;
}

namespace {

/// The rows in use; empty if there are none. Waits for the device.
Tensor used_rows(const RowGradient& rows) {
  std::int32_t count = 0;
  if (rows.present()) copy_to_host(rows.count, &count);
  return count == 0 ? Tensor{} : rows.values.slice(0, count);
}

bool all_finite(const Tensor& tensor) {
  if (!tensor || tensor.dtype() == DType::i32 || tensor.dtype() == DType::i64) return true;
  return visit_float(tensor.dtype(), [&]<class T>(std::type_identity<T>) {
    std::vector<T> values(static_cast<std::size_t>(tensor.size()));
    copy_to_host(tensor, values.data());
    return std::all_of(values.begin(), values.end(),
                       [](T v) { return std::isfinite(static_cast<double>(v)); });
  });
}

}  // namespace

std::string Tape::first_non_finite() const {
  const auto text = [](const Slot& slot) {
    const std::string label = slot.label.text();
    return label.empty() ? "a value of shape " + slot.value.shape().text() : label;
  };
  for (const Slot& slot : slots_) {
    // Constants were not computed, and a carried state among them holds the next window's by now.
    if (slot.is_constant || slot.lost()) continue;
    if (!all_finite(slot.value)) return text(slot);
  }
  for (std::size_t i = slots_.size(); i-- > 0;) {
    const Slot& slot = slots_[i];
    const Tensor gradient = slot.rows != nullptr ? used_rows(*slot.rows) : slot.gradient;
    if (slot.written && !all_finite(gradient)) {
      return "the gradient of " + text(slots_[i]);
    }
  }
  return {};
}

std::vector<Tensor> Tape::unreached_parameters() const {
  std::vector<Tensor> result;
  for (const Slot& slot : slots_) {
    if (slot.is_parameter && !slot.written && slot.gradient) result.push_back(slot.gradient);
  }
  return result;
}

void Tape::clear() {
  slots_.clear();
  rules_.clear();
  generation_ = next_generation();
}

}  // namespace carousel
