#include "models/seq2seq/bridge.h"

#include <fmt/format.h>

#include <algorithm>

namespace carousel {

Bridge::Bridge(const EncoderConfig& config, const Encoder& encoder, Parameters& parameters)
    : parameters_(&parameters) {
  for (std::int64_t l = 0; config.bidirectional && l < config.layers; ++l) {
    states_.push_back(encoder.states(l));
    products_.emplace_back();
    for (std::int64_t k = 0; k < std::min<std::int64_t>(2, states_.back()); ++k) {
      const std::int64_t width =
          k == 0 && config.projection > 0 ? config.projection : config.width(l);
      const std::string name = fmt::format("bridge.{}_l{}", k == 0 ? 'h' : 'c', l);
      products_.back().push_back(
          {.name = name,
           .weight = parameters.declare(name + ".weight", {width, 2 * width}, config.matrix(1)),
           .bias = parameters.declare(name + ".bias", {width}, config.vector())});
    }
  }
}

Var Bridge::joined(Tape& tape, Var forward, Var backward, const Product& product) const {
  const Var sum = [&] {
    const Tape::Layer layer(tape, product.name);
    const Var both = convert(concatenate(forward, backward), parameters_->compute_type());
    return linear(both, parameters_->on(tape, product.weight), parameters_->on(tape, product.bias));
  }();
  const Tape::Layer layer(tape, product.name + ", function");
  return convert(activation(sum, Activation::tanh), forward.dtype());
}

std::vector<Var> Bridge::operator()(Tape& tape, const std::vector<Var>& last) const {
  if (states_.empty()) return last;
  std::vector<Var> initial;
  std::size_t first = 0;
  for (std::size_t l = 0; l < states_.size(); ++l) {
    const auto states = static_cast<std::size_t>(states_[l]);
    for (std::size_t k = 0; k < states; ++k) {
      initial.push_back(k < products_[l].size() ? joined(tape, last[first + k],
                                                         last[first + states + k], products_[l][k])
                                                : Var{});
    }
    first += 2 * states;
  }
  return initial;
}

}  // namespace carousel
