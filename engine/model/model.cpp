#include "engine/model/model.h"

namespace carousel {

RandomSource Pass::random(std::uint64_t place) const {
  RandomSource source = options_.random;
  source.stream += place;
  return source;
}

void Pass::finish() const {
  for (const auto& [from, to] : carried_) copy(from, to);
}

Tensor Objective::means(Tape& tape) const {
  if (terms.size() == 1) return terms.front().loss.mean.value();
  const Tensor all = tape.tensor({static_cast<std::int64_t>(terms.size())}, DType::f32);
  for (std::size_t i = 0; i < terms.size(); ++i) {
    copy(terms[i].loss.mean.value(), all.slice(static_cast<std::int64_t>(i), 1));
  }
  return all;
}

State Model::initial_state(std::int64_t) const { return {}; }

}  // namespace carousel
