#include "engine/model/state.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "kernels/common/check.h"
#include "kernels/copy/copy.h"

namespace carousel {
namespace {

void gather_rows(const Tensor& from, const Tensor& row, const StateTensor& to) {
  const auto as_rows = [&to](const Tensor& tensor) {
    const Shape& shape = tensor.shape();
    std::int64_t outer = 1, inner = 1;
    for (int i = 0; i < to.batch_axis; ++i) outer *= shape[i];
    for (int i = to.batch_axis + 1; i < shape.rank(); ++i) inner *= shape[i];
    return tensor.reshaped({outer, shape[to.batch_axis], inner});
  };
  visit_any(from.dtype(), [&]<class T>(std::type_identity<T>) {
    run(row.device(), GatherRows<T>{.from = as_rows(from).view<T, 3>(),
                                    .row = row.view<std::int32_t, 1>(),
                                    .to = as_rows(to.value).mutable_view<T, 3>()});
  });
}

}  // namespace

void State::reset() const {
  for (const StateTensor& tensor : tensors) {
    // What lies beyond the position is never read: a cache is not cleared, however long it is.
    zero(tensor.growth_axis >= 0 ? tensor.position : tensor.value);
  }
}

void State::gather(const Tensor& row) const {
  for (const StateTensor& tensor : tensors) {
    if (tensor.batch_axis < 0) continue;
    const Tensor before(tensor.value.device(), tensor.value.shape(), tensor.value.dtype());
    copy(tensor.value, before);
    gather_rows(before, row, tensor);
  }
}

void State::gather(const State& from, const Tensor& row) const {
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const StateTensor &to = tensors[i], &other = from.tensors[i];
    if (to.batch_axis < 0) {
      copy(other.value, to.value);
    } else {
      gather_rows(other.value, row, to);
    }
    if (to.position) copy(other.position, to.position);
  }
}

State State::rows(std::int64_t first, std::int64_t count) const {
  State part = *this;
  for (StateTensor& tensor : part.tensors) {
    if (tensor.batch_axis != 0 || tensor.growth_axis >= 0) {
      throw Error(fmt::format("the state's '{}' cannot be divided into rows", tensor.name));
    }
    tensor.value = tensor.value.slice(first, count);
  }
  return part;
}

const StateTensor& State::at(std::string_view name) const {
  const auto found =
      std::find_if(tensors.begin(), tensors.end(),
                   [name](const StateTensor& tensor) { return tensor.name == name; });
  if (found != tensors.end()) return *found;
  std::vector<std::string> names;
  for (const StateTensor& tensor : tensors) names.push_back(tensor.name);
  throw Error(fmt::format("the state has no tensor '{}'; it has {}", name, fmt::join(names, ", ")));
}

}  // namespace carousel
