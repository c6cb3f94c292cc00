#include "engine/tape/parameters.h"

#include <fmt/format.h>

#include <algorithm>
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

Tensor part(const Tensor& flat, std::int64_t first, const Shape& shape) {
  return flat.slice(first, shape.size()).reshaped(shape);
}

}  // namespace

std::size_t Parameters::declare(std::string name, Shape shape, Initializer initializer) {
  const bool taken =
      std::any_of(entries_.begin(), entries_.end(), [&](const Entry& e) { return e.name == name; });
  if (taken) throw Error(fmt::format("parameters: '{}' is declared twice", name));
  entries_.push_back({.name = std::move(name),
                      .shape = shape,
                      .initializer = initializer,
                      .weight = {},
                      .gradient = {},
                      .working = {},
                      .var = {}});
  return entries_.size() - 1;
}

void Parameters::materialize(const Device& device, DType compute, std::uint64_t seed) {
  compute_ = compute;
  std::int64_t total = 0;
  for (const Entry& entry : entries_) total += padded(entry.shape.size());
  weights_ = Tensor(device, {total}, DType::f32);
  gradients_ = Tensor(device, {total}, DType::f32);
  if (compute == DType::bf16) working_ = Tensor(device, {total}, DType::bf16);

  std::vector<float> values(static_cast<std::size_t>(total));
  std::int64_t first = 0;
  for (Entry& entry : entries_) {
    const auto begun = initial_values(entry.initializer, entry.shape, seed, stream_of(entry.name));
    std::copy(begun.begin(), begun.end(), values.begin() + first);
    entry.weight = part(weights_, first, entry.shape);
    entry.gradient = part(gradients_, first, entry.shape);
    if (working_) entry.working = part(working_, first, entry.shape);
    first += padded(entry.shape.size());
  }
  copy_from_host(weights_, values.data());
  run(device, Fill<float>{.to = gradients_.mutable_view<float, 1>(), .value = 0});
  refresh_working();
}

Var Parameters::on(Tape& tape, std::size_t index) {
  if (tape.generation() != generation_) {
    for (Entry& entry : entries_) entry.var = {};
    generation_ = tape.generation();
  }
  Entry& entry = entries_[index];
  if (!entry.var.present()) {
    const bool rounded = working_ && entry.shape.rank() >= 2;
    entry.var = tape.parameter(rounded ? entry.working : entry.weight, entry.gradient);
    tape.label(entry.var, {.name = entry.name, .axes = Axes::parameter});
  }
  return entry.var;
}

Tensor Parameters::part_of(const Tensor& flat, std::size_t index) const {
  std::int64_t first = 0;
  for (std::size_t i = 0; i < index; ++i) first += padded(entries_[i].shape.size());
  return part(flat, first, entries_[index].shape);
}

std::int64_t Parameters::element_count() const {
  std::int64_t total = 0;
  for (const Entry& entry : entries_) total += entry.shape.size();
  return total;
}

void Parameters::refresh_working() const {
  if (!working_) return;
  run(weights_.device(),
      Cast<float, bf16>{.from = weights_.view<float, 1>(), .to = working_.mutable_view<bf16, 1>()});
}

void Parameters::zero_unreached(const Tape& tape) const {
  for (const Tensor& gradient : tape.unreached_parameters()) {
    run(gradient.device(), Fill<float>{.to = gradient.mutable_view<float, 1>(), .value = 0});
  }
}

}  // namespace carousel
