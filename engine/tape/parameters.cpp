#include "engine/tape/parameters.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/common/check.h"
#include "kernels/copy/copy.h"

namespace carousel {
namespace {

// Every parameter begins on a 256-byte boundary, so that vector accesses and library products see
// aligned pointers in the float and in the bf16 buffer alike.
constexpr std::int64_t kAlignmentElements = 128;

std::int64_t padded(std::int64_t elements) {
  return (elements + kAlignmentElements - 1) / kAlignmentElements * kAlignmentElements;
}

/// FNV-1a, so that a parameter's random stream depends on its name alone.
std::uint64_t stream_of(const std::string& name) {
  std::uint64_t hash = 0xCBF29CE484222325U;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3U;
  return hash;
}

/// Whether the name is the pattern, with any text in place of each *.
bool is_like(std::string_view name, std::string_view pattern) {
  if (pattern.empty()) return name.empty();
  if (pattern.front() == '*') {
    return is_like(name, pattern.substr(1)) || (!name.empty() && is_like(name.substr(1), pattern));
  }
  return !name.empty() && name.front() == pattern.front() &&
         is_like(name.substr(1), pattern.substr(1));
}

}  // namespace

std::size_t Parameters::declare(std::string name, Shape shape, Initializer initializer,
                                const ParameterOptions& options) {
  const bool taken =
      std::any_of(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.name == name; });
  if (taken) throw Error(fmt::format("parameters: '{}' is declared twice", name));
  if (options.row_sparse && shape.rank() != 1 && shape.rank() != 2) {
    throw ShapeError(fmt::format("parameters: row-sparse '{}' is {}, expected a matrix or a vector",
                                 name, shape.text()));
  }
  entries_.push_back({.name = std::move(name),
                      .shape = shape,
                      .initializer = initializer,
                      .options = options,
                      .weight = {},
                      .gradient = {},
                      .working = {},
                      .rows = {},
                      .var = {}});
  return entries_.size() - 1;
}

void Parameters::set_group(std::string_view pattern, const ParameterGroup& group) {
  const auto expect_number = [&](const char* what, double got) {
    if (!(got >= 0 && std::isfinite(got))) {
      throw ConfigError(fmt::format("parameters: {} of group '{}' is {}, expected 0 or more", what,
                                    pattern, got));
    }
  };
  expect_number("learning_rate_factor", group.learning_rate_factor);
  expect_number("weight_decay", group.weight_decay.value_or(0));
  std::vector<std::string_view> names;
  bool found = false;
  for (Entry& entry : entries_) {
    names.push_back(entry.name);
    if (!is_like(entry.name, pattern)) continue;
    entry.options.group = group;
    found = true;
  }
  if (!found) {
    throw ConfigError(
        fmt::format("parameters: no name is like '{}', a group's pattern; they are {}", pattern,
                    fmt::join(names, ", ")));
  }
  if (!weights_) return;
  std::vector<Tensor> values;
  for (const Entry& entry : entries_) values.push_back(entry.weight);
  allocate(device());
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    if (!entries_[i].options.row_sparse) copy(values[i], entries_[i].weight);
  }
  refresh_working();
}

/// Gives every parameter its place in the flat buffers and returns their size: group after group,
/// in the order of their first members, and then all that are frozen.
std::int64_t Parameters::lay_out() {
  stretches_.clear();
  std::int64_t end = 0;
  const auto place = [&](const auto& belongs) {
    const std::int64_t first = end;
    for (Entry& entry : entries_) {
      if (entry.options.row_sparse || !belongs(entry.options.group)) continue;
      entry.first = end;
      end += padded(entry.shape.size());
    }
    return first;
  };
  for (const Entry& entry : entries_) {
    const ParameterGroup& group = entry.options.group;
    const bool placed = std::any_of(stretches_.begin(), stretches_.end(),
                                    [&](const Stretch& s) { return s.group == group; });
    if (group.frozen || entry.options.row_sparse || placed) continue;
    const std::int64_t first = place([&](const ParameterGroup& other) { return other == group; });
    stretches_.push_back({.group = group, .first = first, .count = end - first});
  }
  place([](const ParameterGroup& group) { return group.frozen; });
  return end;
}

void Parameters::allocate(const Device& device) {
  const std::int64_t total = lay_out();
  const std::int64_t trained =
      stretches_.empty() ? 0 : stretches_.back().first + stretches_.back().count;
  const auto zeros = [&](const Shape& shape) {
    Tensor result(device, shape, DType::f32);
    run(device, Fill<float>{.to = result.mutable_view<float, 1>(), .value = 0});
    return result;
  };
  const bool rounded = compute_ == DType::bf16;
  weights_ = zeros({total});
  gradients_ = zeros({trained});
  working_ = rounded ? Tensor(device, {total}, DType::bf16) : Tensor{};
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    Entry& entry = entries_[i];
    const bool apart = entry.options.row_sparse;
    const bool sparse_gradient = apart && !entry.options.group.frozen;
    entry.rows = sparse_gradient ? std::make_shared<RowGradient>() : nullptr;
    if (!apart) {
      entry.weight = part_of(weights_, i);
      entry.gradient = part_of(gradients_, i);
      entry.working = rounded ? part_of(working_, i) : Tensor{};
    } else if (!entry.weight) {  // it has a place of its own, which other groups do not move
      entry.weight = Tensor(device, entry.shape, DType::f32);
      if (rounded) entry.working = Tensor(device, entry.shape, DType::bf16);
    }
  }
}

void Parameters::materialize(const Device& device, DType compute, const Beginning& beginning) {
  if (beginning.expect) beginning.expect(*this);
  compute_ = compute;
  allocate(device);
  if (beginning.expect) return;
  for (const Entry& entry : entries_) {
    const auto begun =
        initial_values(entry.initializer, entry.shape, beginning.seed, stream_of(entry.name));
    copy_from_host(entry.weight, begun.data());
  }
  refresh_working();
}

Var Parameters::on(Tape& tape, std::size_t index) {
  if (tape.generation() != generation_) {
    for (Entry& entry : entries_) {
      entry.var = {};
      if (entry.rows) *entry.rows = {};
    }
    generation_ = tape.generation();
  }
  Entry& entry = entries_[index];
  if (!entry.var.present()) {
    const bool vector = entry.shape.rank() < 2;
    const bool rounded = working_ && !vector;
    const Tensor& value = rounded ? entry.working : entry.weight;
    const bool frozen = entry.options.group.frozen;
    entry.var = frozen       ? tape.constant(value)
                : entry.rows ? tape.row_sparse_parameter(value, entry.rows.get())
                             : tape.parameter(value, entry.gradient);
    if (!frozen) tape.label(entry.var, {.name = entry.name, .axes = Axes::parameter});
  }
  return entry.var;
}

Tensor Parameters::part_of(const Tensor& flat, std::size_t index) const {
  const Entry& entry = entries_[index];
  const bool frozen = entry.first + entry.shape.size() > flat.size();
  if (frozen || entry.options.row_sparse) return {};
  return flat.slice(entry.first, entry.shape.size()).reshaped(entry.shape);
}

std::int64_t Parameters::element_count() const {
  std::int64_t total = 0;
  for (const Entry& entry : entries_) total += entry.shape.size();
  return total;
}

Parameters::Bytes Parameters::bytes() const {
  const auto of = [](const Tensor& tensor) { return tensor ? tensor.bytes() : 0; };
  Bytes sum{.weights = of(weights_), .working = of(working_), .gradients = of(gradients_)};
  for (const Entry& entry : entries_) {
    if (!entry.options.row_sparse) continue;
    sum.weights += of(entry.weight);
    sum.working += of(entry.working);
  }
  return sum;
}

void Parameters::refresh_working() const {
  if (!working_) return;
  for (const Entry& entry : entries_) {
    if (!entry.options.row_sparse) continue;
    run(device(), Cast<float, bf16>{.from = entry.weight.view<float, 1>(),
                                    .to = entry.working.mutable_view<bf16, 1>()});
  }
  run(weights_.device(),
      Cast<float, bf16>{.from = weights_.view<float, 1>(), .to = working_.mutable_view<bf16, 1>()});
}

void Parameters::zero_unreached(const Tape& tape) const {
  std::vector<Tensor> unreached = tape.unreached_parameters();
  for (const Entry& entry : entries_) {
    const bool on_tape = tape.generation() == generation_ && entry.var.present();
    if (entry.gradient && !on_tape) unreached.push_back(entry.gradient);
    if (entry.rows && !on_tape) *entry.rows = {};
  }
  for (const Tensor& gradient : unreached) {
    run(device(), Fill<float>{.to = gradient.mutable_view<float, 1>(), .value = 0});
  }
}

}  // namespace carousel
