#include "engine/comparison/step_trace.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace carousel {

namespace {

bool is_real(const Tensor& tensor) {
  return tensor.dtype() != DType::i32 && tensor.dtype() != DType::i64;
}

/// Copies numbers between devices and types.
void copy_values(const Tensor& from, const Tensor& to) {
  if (!is_real(from)) {
    std::vector<std::byte> bytes(from.bytes());
    copy_to_host(from, bytes.data());
    return copy_from_host(to, bytes.data());
  }
  const std::vector<float> values = host_floats(from);
  visit_float(to.dtype(), [&]<class T>(std::type_identity<T>) {
    std::vector<T> stored;
    stored.reserve(values.size());
    for (const float v : values) stored.push_back(static_cast<T>(v));
    copy_from_host(to, stored.data());
  });
}

double scalar(const Tensor& tensor) { return static_cast<double>(host_floats(tensor).front()); }

Tolerance combined(const Tolerance& a, const Tolerance& b) {
  return {.absolute = std::hypot(a.absolute, b.absolute),
          .relative = std::hypot(a.relative, b.relative)};
}

Tolerances combined(const Tolerances& a, const Tolerances& b) {
  return {.f32 = combined(a.f32, b.f32), .bf16 = combined(a.bf16, b.bf16)};
}

/// The objective of the last step.
double total(const TrainingStep& step) {
  const std::vector<float> means = host_floats(step.means());
  double sum = 0;
  for (std::size_t i = 0; i < means.size(); ++i) {
    sum += static_cast<double>(step.objective().terms[i].weight) * static_cast<double>(means[i]);
  }
  return sum;
}

/// Columns [first, first + count) of every row.
std::vector<float> columns(const std::vector<float>& values, std::size_t width, std::size_t first,
                           std::size_t count) {
  std::vector<float> result;
  result.reserve(values.size() / width * count);
  for (std::size_t row = 0; row < values.size(); row += width) {
    const auto begin = values.begin() + static_cast<std::ptrdiff_t>(row + first);
    result.insert(result.end(), begin, begin + static_cast<std::ptrdiff_t>(count));
  }
  return result;
}

std::vector<std::int32_t> host_ids(const Tensor& tensor) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(tensor.size()));
  copy_to_host(tensor, ids.data());
  return ids;
}

/// A row-sparse gradient as the dense one of its parameter, so that reports name its rows.
std::vector<float> dense(const RowGradient& gradient, const Shape& shape) {
  std::vector<float> result(static_cast<std::size_t>(shape.size()));
  const std::vector<float> values = host_floats(gradient.values);
  const std::vector<std::int32_t> row = host_ids(gradient.row);
  const auto count = static_cast<std::size_t>(host_ids(gradient.count).front());
  const auto width = static_cast<std::size_t>(gradient.values.shape()[1]);
  for (std::size_t i = 0; i < count * width; ++i) {
    result[static_cast<std::size_t>(row[i / width]) * width + i % width] = values[i];
  }
  return result;
}

/// Adds a labelled tensor, split into its blocks. `like` has all but shape and values.
void add(Trace& trace, TracedTensor like, const Label& label, const Shape& shape,
         std::vector<float> values) {
  const std::string prefix = like.phase == Phase::backward ? "gradient of " : "";
  like.axes = label.axes;
  like.shape = shape;
  like.values = std::move(values);
  if (label.blocks.empty()) {
    like.name = prefix + label.text();
    trace.push_back(std::move(like));
    return;
  }
  const auto width = static_cast<std::size_t>(shape.back());
  const std::size_t count = width / label.blocks.size();
  for (std::size_t block = 0; block < label.blocks.size(); ++block) {
    TracedTensor part = like;
    part.name = prefix + label.text(block);
    part.shape = {shape[0], shape[1], static_cast<std::int64_t>(count)};
    part.values = columns(like.values, width, block * count, count);
    trace.push_back(std::move(part));
  }
}

void add(Trace& trace, TracedTensor like, const Label& label, const Tensor& tensor) {
  add(trace, std::move(like), label, tensor.shape(), host_floats(tensor));
}

/// Gradients, in the order in which they are computed.
void add_backward(Trace& trace, const std::vector<LabelledValue>& values) {
  TracedTensor like{.phase = Phase::backward, .stage = trace.back().stage};
  std::string op;  // the last one whose contract is part of the tolerance
  for (auto entry = values.rbegin(); entry != values.rend(); ++entry) {
    const bool computed = !entry->is_parameter && !entry->is_constant;
    if (computed && op != entry->label.name) {
      like.tolerance = combined(like.tolerance, entry->label.backward);
      like.rounded_inputs = combined(like.rounded_inputs, entry->label.rounded_inputs);
      op = entry->label.name;
    }
    if (!entry->gradient && !entry->rows.present()) continue;
    ++like.stage;
    if (entry->gradient) {
      add(trace, like, entry->label, entry->gradient);
    } else {
      const Shape& shape = entry->value.shape();
      add(trace, like, entry->label, shape, dense(entry->rows, shape));
    }
  }
}

}  // namespace

const char* name(Phase phase) {
  switch (phase) {
    case Phase::forward:
      return "forward";
    case Phase::backward:
      return "backward";
    case Phase::update:
      return "update";
    case Phase::replay:
      return "replay";
  }
  return "?";
}

void TracedTraining::add_forward(Trace& trace, const Values& values) const {
  TracedTensor like{.phase = Phase::forward, .stage = -1};
  std::string stage, op;  // names of the last value, and of the last one that was computed
  for (const LabelledValue& entry : values) {
    if (entry.is_parameter) continue;  // weights are looked at after the update
    if (stage != entry.label.name) ++like.stage;
    stage = entry.label.name;
    if (!entry.is_constant && op != stage) {
      like.tolerance = combined(like.tolerance, entry.label.forward);
      like.rounded_inputs = combined(like.rounded_inputs, entry.label.rounded_inputs);
      op = stage;
    }
    if (entry.value) add(trace, like, entry.label, entry.value);
  }
}

void TracedTraining::add_carried(Trace& trace) const {
  TracedTensor like{.phase = Phase::forward, .stage = trace.back().stage + 1};
  for (const TracedTensor& tensor : trace) {  // the last value's tolerance has all before it
    if (tensor.phase != Phase::forward) continue;
    like.tolerance = tensor.tolerance;
    like.rounded_inputs = tensor.rounded_inputs;
  }
  for (const StateTensor& state : run_.state.tensors) {
    if (!is_real(state.value)) continue;  // a count has no error
    add(trace, like, {.name = "carried " + state.name, .axes = Axes::state}, state.value);
  }
}

void TracedTraining::add_update(Trace& trace) const {
  const Tolerance update = run_.optimizer.tolerance();  // float in every precision
  TracedTensor like{.phase = Phase::update,
                    .stage = trace.empty() ? 0 : trace.back().stage + 1,
                    .tolerance = {.f32 = update, .bf16 = update}};
  const auto label = [](std::string name, std::string part) {
    return Label{.name = std::move(name), .part = std::move(part), .axes = Axes::parameter};
  };
  add(trace, like, label("gradient norm", ""), run_.optimizer.gradient_norm());
  const Parameters& parameters = run_.model.parameters();
  for (std::size_t i = 0; i < parameters.count(); ++i) {
    ++like.stage;
    for (const auto& [name, moment] : run_.optimizer.state_of(i)) {
      add(trace, like, label(parameters.name(i), name), moment);
    }
    add(trace, like, label(parameters.name(i), "new weight"), parameters.weight(i));
  }
}

std::size_t TracedTraining::begin() {
  step_.begin();
  return step_.micro_batches();
}

Trace TracedTraining::forward(std::size_t micro_batch) {
  step_.forward(micro_batch);
  Trace trace;
  add_forward(trace, step_.tape().labelled());
  return trace;
}

Trace TracedTraining::backward(std::size_t micro_batch, Trace trace) {
  step_.backward(micro_batch);
  add_backward(trace, step_.tape().labelled());
  add_carried(trace);
  return trace;
}

Trace TracedTraining::gradients() {
  Trace trace;
  const std::size_t count = begin();
  for (std::size_t k = 0; k < count; ++k) trace = backward(k, forward(k));
  return trace;
}

Trace TracedTraining::update() {
  step_.update();
  Trace trace;
  add_update(trace);
  return trace;
}

TracedTraining::Values TracedTraining::standing_values() {
  Values values = step_.tape().labelled();
  for (LabelledValue& entry : values) {
    const bool overwritten = entry.gradient && entry.gradient.data() == entry.value.data();
    if (overwritten) overwritten_.insert(entry.label.text());
    if (overwritten || entry.is_constant) entry.value = {};
  }
  return values;
}

Trace TracedTraining::whole_step() {
  const std::uint64_t before = step_.tape().generation();
  step_.begin();
  step_.run();
  Values& values = standing_[step_.key()];
  if (step_.tape().generation() != before) values = standing_values();
  Trace trace;
  add_forward(trace, values);
  add_backward(trace, values);
  add_carried(trace);
  add_update(trace);
  return trace;
}

void TracedTraining::step() {
  step_.begin();
  step_.run();
}

TracedTraining::Result TracedTraining::result() const {
  return {.loss = total(step_),
          .gradient_norm = scalar(run_.optimizer.gradient_norm()),
          .learning_rate = step_.learning_rate()};
}

void TracedTraining::start_as(const TracedTraining& other) const {
  const TrainingRun &from = other.run_, &to = run_;
  for (std::size_t i = 0; i < from.model.parameters().count(); ++i) {
    copy_values(from.model.parameters().weight(i), to.model.parameters().weight(i));
  }
  to.model.parameters().refresh_working();
  const auto moments = from.optimizer.state(), own = to.optimizer.state();
  for (std::size_t i = 0; i < moments.size(); ++i) copy_values(moments[i].second, own[i].second);
  for (std::size_t i = 0; i < from.state.tensors.size(); ++i) {
    copy_values(from.state.tensors[i].value, to.state.tensors[i].value);
  }
}

void TracedTraining::take_values(const TracedTraining& other) const {
  const Values from = other.step_.tape().labelled(), to = step_.tape().labelled();
  for (std::size_t i = 0; i < std::min(from.size(), to.size()); ++i) {
    if (to[i].is_parameter || to[i].is_constant || !to[i].value) continue;
    // Sides that compute different values are no pair, as Comparison::add() says.
    if (!from[i].value || from[i].value.shape() != to[i].value.shape()) return;
    copy_values(from[i].value, to[i].value);
  }
}

void TracedTraining::take_gradients(const TracedTraining& other) const {
  const Parameters &from = other.run_.model.parameters(), &to = run_.model.parameters();
  copy_values(from.flat_gradients(), to.flat_gradients());
  for (std::size_t i = 0; i < from.count(); ++i) {
    const RowGradient *const theirs = from.row_gradient(i), *const own = to.row_gradient(i);
    if (theirs == nullptr || !theirs->present()) continue;
    copy_from_host(own->row, host_ids(theirs->row).data());
    copy_from_host(own->count, host_ids(theirs->count).data());
    copy_values(theirs->values, own->values);
  }
}

}  // namespace carousel
