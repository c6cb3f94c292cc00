#include "engine/step_trace.h"

#include <algorithm>
#include <utility>

namespace carousel {

std::vector<float> host_floats(const Tensor& tensor) {
  return visit_float(tensor.dtype(), [&]<class T>(std::type_identity<T>) {
    std::vector<T> stored(static_cast<std::size_t>(tensor.size()));
    copy_to_host(tensor, stored.data());
    return std::vector<float>(stored.begin(), stored.end());
  });
}

namespace {

using Axes = TracedTensor::Axes;

/// Copies numbers between devices and types.
void copy_values(const Tensor& from, const Tensor& to) {
  const std::vector<float> values = host_floats(from);
  visit_float(to.dtype(), [&]<class T>(std::type_identity<T>) {
    std::vector<T> stored;
    stored.reserve(values.size());
    for (const float v : values) stored.push_back(static_cast<T>(v));
    copy_from_host(to, stored.data());
  });
}

double scalar(const Tensor& tensor) { return static_cast<double>(host_floats(tensor).front()); }

Axes axes_of(const LabelledValue& entry) {
  if (entry.is_parameter) return Axes::parameter;
  return entry.value.shape().rank() == 3 ? Axes::sequence : Axes::state;
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

/// Adds a labelled tensor, split into its blocks. `like` has all but shape and values.
void add(Trace& trace, TracedTensor like, const Label& label, const Tensor& tensor) {
  const std::string prefix = like.phase == Phase::backward ? "gradient of " : "";
  like.shape = tensor.shape();
  like.values = host_floats(tensor);
  if (label.blocks.empty()) {
    like.name = prefix + label.text();
    trace.push_back(std::move(like));
    return;
  }
  const auto width = static_cast<std::size_t>(tensor.shape().back());
  const std::size_t count = width / label.blocks.size();
  for (std::size_t block = 0; block < label.blocks.size(); ++block) {
    TracedTensor part = like;
    part.name = prefix + label.text(block);
    part.shape = {tensor.shape()[0], tensor.shape()[1], static_cast<std::int64_t>(count)};
    part.values = columns(like.values, width, block * count, count);
    trace.push_back(std::move(part));
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

TracedTraining::TracedTraining(TrainingRun& run, const TracedTrainingParts& parts)
    : run_(run),
      parts_(parts),
      arena_(run.model.parameters().flat_weights().device()),
      tape_(arena_, true),
      step_(arena_.device(), {1}, DType::i64),
      learning_rate_(arena_.device(), {1}, DType::f32) {
  tape_.allow_tf32(parts.tf32);
}

double TracedTraining::rate() const {
  return learning_rate(parts_.schedule, run_.step) * run_.plateau.factor;
}

void TracedTraining::record(Trace* trace) {
  batch_ = run_.data.next();
  ++run_.step;
  run_.tokens += batch_.tokens;
  copy_from_host(step_, &run_.step);
  if (batch_.first) run_.state.zero();
  tape_.clear();
  arena_.reset();
  Pass pass(tape_, {.seed = parts_.seed, .step = step_.view<std::int64_t, 1>()});
  loss_ = run_.model.loss(pass, batch_, run_.state);
  if (trace != nullptr) add_forward(*trace);
  tape_.backward();
  run_.model.parameters().zero_unreached(tape_);
  pass.finish();
  if (trace != nullptr) {
    add_backward(*trace);
    add_carried(*trace);
  }
}

void TracedTraining::apply() const {
  const auto rate_now = static_cast<float>(rate());
  copy_from_host(learning_rate_, &rate_now);
  run_.optimizer.step(learning_rate_, step_, loss_.mean);
}

void TracedTraining::add_forward(Trace& trace) const {
  TracedTensor like{.phase = Phase::forward, .stage = -1};
  std::string stage_name;
  for (const LabelledValue& entry : tape_.labelled()) {
    if (entry.is_parameter) continue;  // set by start_as, and looked at after the update
    if (entry.label.name != stage_name) ++like.stage;
    stage_name = entry.label.name;
    like.axes = axes_of(entry);
    like.depth = like.stage + 1;
    add(trace, like, entry.label, entry.value);
  }
  like.axes = Axes::sequence;
  ++like.stage, ++like.depth;
  add(trace, like, {"loss per token"}, loss_.rows.reshaped(batch_.target.shape()));
  like.axes = Axes::parameter;
  ++like.stage;
  add(trace, like, {"mean loss"}, loss_.mean);
}

void TracedTraining::add_backward(Trace& trace) const {
  TracedTensor like{.phase = Phase::backward, .stage = trace.back().stage, .depth = 1};
  const std::vector<LabelledValue> entries = tape_.labelled();
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
    if (!entry->gradient) continue;
    ++like.stage;
    // A weight's gradient is no step of the way back.
    if (!entry->is_parameter) ++like.depth;
    like.axes = axes_of(*entry);
    add(trace, like, entry->label, entry->gradient);
  }
}

void TracedTraining::add_carried(Trace& trace) const {
  const int stage = trace.back().stage + 1;
  int depth = 0;
  for (const TracedTensor& tensor : trace) {
    if (tensor.phase == Phase::forward) depth = std::max(depth, tensor.depth);
  }
  for (const auto& [state, tensor] : run_.state.tensors) {
    add(trace, {.phase = Phase::forward, .axes = Axes::state, .stage = stage, .depth = depth},
        {"carried " + state}, tensor);
  }
}

Trace TracedTraining::gradients() {
  Trace trace;
  record(&trace);
  return trace;
}

Trace TracedTraining::update() {
  apply();
  Trace trace;
  TracedTensor like{.phase = Phase::update, .depth = 1};
  add(trace, like, {"gradient norm"}, run_.optimizer.gradient_norm());
  const Parameters& parameters = run_.model.parameters();
  const auto state = run_.optimizer.state();
  for (std::size_t i = 0; i < parameters.count(); ++i) {
    ++like.stage;
    for (const auto& [moment, flat] : state) {
      add(trace, like, {parameters.name(i), moment}, parameters.part_of(flat, i));
    }
    add(trace, like, {parameters.name(i), "new weight"}, parameters.weight(i));
  }
  return trace;
}

void TracedTraining::step() {
  record(nullptr);
  apply();
}

TracedTraining::Result TracedTraining::result() const {
  return {.loss = scalar(loss_.mean),
          .gradient_norm = scalar(run_.optimizer.gradient_norm()),
          .learning_rate = rate()};
}

void TracedTraining::start_as(const TracedTraining& other) const {
  const TrainingRun &from = other.run_, &to = run_;
  copy_values(from.model.parameters().flat_weights(), to.model.parameters().flat_weights());
  to.model.parameters().refresh_working();
  const auto moments = from.optimizer.state(), own = to.optimizer.state();
  for (std::size_t i = 0; i < moments.size(); ++i) copy_values(moments[i].second, own[i].second);
  for (std::size_t i = 0; i < from.state.tensors.size(); ++i) {
    copy_values(from.state.tensors[i].second, to.state.tensors[i].second);
  }
}

void TracedTraining::take_gradients(const TracedTraining& other) const {
  copy_values(other.run_.model.parameters().flat_gradients(),
              run_.model.parameters().flat_gradients());
}

}  // namespace carousel
