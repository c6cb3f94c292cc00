#include "models/transformer/transformer_parts.h"

#include <fmt/format.h>

#include "kernels/attention/heads.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

constexpr std::size_t kAbsent = SIZE_MAX;

}  // namespace

TransformerParts::Product TransformerParts::declare_product(const std::string& name,
                                                            const Shape& shape,
                                                            const Initializer& matrix) {
  Product product = declare_matrix(name, shape, matrix);
  if (options_.bias) product.bias = parameters_.declare(name + "bias", {shape[0]}, {});
  return product;
}

TransformerParts::Product TransformerParts::declare_matrix(const std::string& name,
                                                           const Shape& shape,
                                                           const Initializer& matrix) {
  return {parameters_.declare(name + "weight", shape, matrix), kAbsent};
}

TransformerParts::Norm TransformerParts::declare_norm(const std::string& name) {
  const std::size_t gain = parameters_.declare(name + "weight", {options_.embed},
                                               {.kind = Initializer::Kind::constant, .scale = 1});
  const bool biased = options_.bias && !options_.rms;
  return {gain, biased ? parameters_.declare(name + "bias", {options_.embed}, {}) : kAbsent};
}

Var TransformerParts::product(Tape& tape, Var x, const Product& product) const {
  const Tape::Layer layer(tape, tape.layer_name() + ", product");
  const Var weight = parameters_.on(tape, product.weight);
  if (product.bias == kAbsent) return matmul(x, weight, true);
  return linear(x, weight, parameters_.on(tape, product.bias));
}

Var TransformerParts::normalized(Tape& tape, Var x, const Norm& norm) const {
  const Var gain = parameters_.on(tape, norm.gain);
  if (options_.rms) return rms_norm(x, gain);
  return layer_norm(x, gain, norm.bias == kAbsent ? Var{} : parameters_.on(tape, norm.bias));
}

SumAndNorm TransformerParts::summed(Tape& tape, Var x, Var more, const Norm& norm) const {
  if (options_.rms) return add_rms_norm(x, more, parameters_.on(tape, norm.gain));
  const Var sum = [&] {
    const Tape::Layer layer(tape, tape.layer_name() + ", sum");
    return add(x, more);
  }();
  return {sum, normalized(tape, sum, norm)};
}

Var TransformerParts::drop(Pass& pass, Var x, std::uint64_t place) const {
  if (!pass.training()) return x;
  return dropout(x, static_cast<float>(options_.dropout), pass.random(place));
}

void check_heads(std::int64_t embed, std::int64_t heads) {
  if (embed % heads != 0) {
    throw ConfigError(
        fmt::format("model.heads is {}, expected a divisor of model.embed, {}", heads, embed));
  }
  if (embed / heads > kMostHeadWidth) {
    throw ConfigError(fmt::format("model.embed / model.heads is {}, expected at most {}",
                                  embed / heads, kMostHeadWidth));
  }
}

}  // namespace carousel
