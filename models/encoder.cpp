#include "models/encoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace carousel {

void EncoderConfig::describe(OptionSection& section) {
  std::vector<std::string> cells;
  for (const CellKind kind : cell_kinds()) cells.emplace_back(kind->name);
  section.add("cell", cell, "the recurrent cell of every layer", cells);
  section.add("hidden", hidden, "units per layer", {1, std::int64_t{1} << 20});
  section.add("layers", layers, "recurrent layers", {1, 1000});
  section.add("dropout", dropout, "probability, on connections that are not recurrent",
              {.least = 0, .most = 1, .below_most = true});
  section.add("init", init, "how matrices begin", {"uniform", "xavier", "orthogonal"});
  section.add("init_range", init_range, "of uniform; 0: 1 over the root of hidden", {.least = 0});
  section.add("forget_bias", forget_bias,
              "added to the forget gates' bias at the start, of cells that have one");
}

Initializer EncoderConfig::matrix(int blocks) const {
  using Kind = Initializer::Kind;
  if (init == "xavier") return {.kind = Kind::xavier, .scale = 1, .blocks = blocks};
  if (init == "orthogonal") return {.kind = Kind::orthogonal, .scale = 1, .blocks = blocks};
  const double range = init_range > 0 ? init_range : 1 / std::sqrt(static_cast<double>(hidden));
  return {.kind = Kind::uniform, .scale = range};
}

// Only the uniform rule has a meaning for a vector.
Initializer EncoderConfig::vector() const { return init == "uniform" ? matrix(1) : Initializer{}; }

namespace {

std::string module_name(CellKind cell) {
  return std::string(cell->module.empty() ? cell->name : cell->module);
}

}  // namespace

Encoder::Encoder(const EncoderConfig& config, std::int64_t input, Parameters& parameters)
    : config_(config), cell_(cell_kind(config.cell)), parameters_(&parameters) {
  const std::int64_t H = config.hidden, G = cell_->gates;
  Initializer bias_ih = config.vector();
  const auto names = cell_->gate_names.begin();
  const auto forget = std::find(names, names + G, "f") - names;
  if (forget < G) {
    bias_ih.offset = config.forget_bias;
    bias_ih.offset_first = forget * H;
    bias_ih.offset_count = H;
  }
  const Initializer matrix = config.matrix(static_cast<int>(G));
  const std::string module = module_name(cell_);
  for (std::int64_t l = 0; l < config.layers; ++l) {
    const auto name = [&](const char* part) { return fmt::format("{}.{}_l{}", module, part, l); };
    layers_.push_back(
        {.name = fmt::format("{} layer {}", module, l),
         .weight_ih = parameters.declare(name("weight_ih"), {G * H, l == 0 ? input : H}, matrix),
         .weight_hh = parameters.declare(name("weight_hh"), {G * H, H}, matrix),
         .bias_ih = parameters.declare(name("bias_ih"), {G * H}, bias_ih),
         .bias_hh = parameters.declare(name("bias_hh"), {G * H}, config.vector())});
    if (const std::int64_t P = cell_->parameters; P > 0) {
      layers_.back().per_unit = parameters.declare(name("per_unit"), {P, H}, config.vector());
    }
  }
}

State Encoder::initial_state(const Device& device, std::int64_t batch) const {
  State state;
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    for (int i = 0; i < cell_->states; ++i) {
      // "h_l0", "c_l0": a state is called by its first letter. All but h are float.
      const DType dtype = i == 0 ? parameters_->compute_type() : DType::f32;
      const char letter = cell_->state_names[static_cast<std::size_t>(i)].front();
      state.tensors.push_back({.name = fmt::format("{}_l{}", letter, l),
                               .value = Tensor(device, {batch, config_.hidden}, dtype)});
    }
  }
  state.reset();
  return state;
}

Var Encoder::drop(Pass& pass, Var x, std::uint64_t place) const {
  if (!pass.training()) return x;
  return dropout(x, static_cast<float>(config_.dropout), pass.random(place));
}

Var Encoder::run(Pass& pass, Var x, const Tensor& reset, const Tensor& lengths, const State& state,
                 Output output) const {
  Tape& tape = pass.tape();
  const auto weight = [&](std::size_t index) { return parameters_->on(tape, index); };
  const auto states = static_cast<std::size_t>(cell_->states);
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const Layer& weights = layers_[l];
    const Tape::Layer layer(tape, weights.name);
    std::vector<Var> initial;
    for (std::size_t i = 0; i < states && !state.tensors.empty(); ++i) {
      initial.push_back(tape.constant(state.tensors[l * states + i].value));
    }
    const RecurrentOutput y =
        recurrent_sequence(cell_, x,
                           {.weight_ih = weight(weights.weight_ih),
                            .weight_hh = weight(weights.weight_hh),
                            .bias_ih = weight(weights.bias_ih),
                            .bias_hh = weight(weights.bias_hh),
                            .per_unit = weights.per_unit ? weight(*weights.per_unit) : Var{}},
                           initial, reset, {.begin = {}, .end = lengths});
    for (std::size_t i = 0; i < initial.size(); ++i) {
      pass.carry(y.last[i].value(), initial[i].value());  // [B, H]
    }
    const bool top = l + 1 == layers_.size();
    x = drop(pass, top && output == Output::last ? y.last.front() : y.h, l + 1);
  }
  return x;
}

}  // namespace carousel
