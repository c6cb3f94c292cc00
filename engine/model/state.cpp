#include "engine/model/state.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "kernels/common/check.h"
#include "kernels/copy/copy.h"

namespace carousel {

void State::reset() const {
  for (const StateTensor& tensor : tensors) {
    // What lies beyond the position is never read: a cache is not cleared, however long it is.
    zero(tensor.growth_axis >= 0 ? tensor.position : tensor.value);
  }
}

void State::gather(const Tensor& row) const {
  for (const StateTensor& tensor : tensors) {
    if (tensor.batch_axis < 0) continue;
    const Shape& shape = tensor.value.shape();
    std::int64_t outer = 1, inner = 1;
    for (int i = 0; i < tensor.batch_axis; ++i) outer *= shape[i];
    for (int i = tensor.batch_axis + 1; i < shape.rank(); ++i) inner *= shape[i];
    const Shape rows{outer, shape[tensor.batch_axis], inner};
    const Tensor gathered(tensor.value.device(), rows, tensor.value.dtype());
    visit_any(tensor.value.dtype(), [&]<class T>(std::type_identity<T>) {
      run(row.device(), GatherRows<T>{.from = tensor.value.reshaped(rows).view<T, 3>(),
                                      .row = row.view<std::int32_t, 1>(),
                                      .to = gathered.mutable_view<T, 3>()});
    });
    copy(gathered, tensor.value);
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
