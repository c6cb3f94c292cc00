#include "engine/model/model.h"

#include "kernels/common/check.h"
#include "kernels/copy/copy.h"

namespace carousel {

void RecurrentState::zero() const {
  for (const auto& [name, tensor] : tensors) {
    visit_float(tensor.dtype(), [&tensor = tensor]<class T>(std::type_identity<T>) {
      run(tensor.device(), Fill<T>{.to = tensor.mutable_view<T, 1>(), .value = T(0.0F)});
    });
  }
}

RandomSource Pass::random(std::uint64_t place) const {
  RandomSource source = random_;
  source.stream = place;
  return source;
}

void Pass::finish() const {
  for (const auto& [from, to] : carried_) {
    visit_float(from.dtype(), [&from = from, &to = to]<class T>(std::type_identity<T>) {
      run(from.device(), Cast<T, T>{.from = from.view<T, 1>(), .to = to.mutable_view<T, 1>()});
    });
  }
}

}  // namespace carousel
