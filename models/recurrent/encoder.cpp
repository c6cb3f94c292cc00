#include "models/recurrent/encoder.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "kernels/common/check.h"

namespace carousel {

namespace {

constexpr std::size_t kPlacesOfStep = 4096;  // more than two for each of the most layers

std::string module_name(CellKind cell) {
  return std::string(cell->module.empty() ? cell->name : cell->module);
}

/// What stands before the names of one of several encoders' parts.
std::string before_names(const EncoderConfig& config, char separator) {
  return config.name.empty() ? std::string() : config.name + separator;
}

char state_letter(const CellInfo& cell, int state) {
  return cell.state_names[static_cast<std::size_t>(state)].front();
}

}  // namespace

CellKind Encoder::cell_of(const std::string& name) const {
  CellKind cell = cell_kind(name);
  const std::pair<bool, const char*> variants[] = {{config_.peephole, "peephole"},
                                                   {config_.layer_norm, "layer_norm"},
                                                   {config_.reset_before, "reset_before"}};
  const char* chosen = nullptr;
  for (const auto& [wanted, variant] : variants) {
    if (!wanted) continue;
    if (chosen != nullptr) {
      throw ConfigError(fmt::format("model.{} and model.{} exclude each other", chosen, variant));
    }
    chosen = variant;
    if (const CellKind other = cell_variant(name, variant)) {
      cell = other;
    } else if (std::string_view(variant) != "layer_norm" || !cell->multiplies || cell->states > 1) {
      throw ConfigError(fmt::format("model.{} is not for the cell {}", variant, name));
    }
  }
  return cell;
}

Encoder::Encoder(const EncoderConfig& config, std::int64_t input, Parameters& parameters)
    : config_(config), parameters_(&parameters) {
  const std::size_t named = config.cell.size();
  if (named != 1 && static_cast<std::int64_t>(named) != config.layers) {
    throw ConfigError(
        fmt::format("model.cell names {} cells, expected 1 or one for each of {} layers", named,
                    config.layers));
  }
  if (config.share_directions && !config.bidirectional) {
    throw ConfigError("model.share_directions needs model.bidirectional");
  }
  if (config.heads > 1 && (config.projection > 0 || config.hidden % config.heads != 0 ||
                           config.top_hidden % config.heads != 0)) {
    throw ConfigError(
        fmt::format("model.heads is {}, expected a divisor of model.hidden, which is {}, "
                    "and no projection",
                    config.heads, config.hidden));
  }
  for (std::int64_t l = 0; l < config.layers; ++l) {
    layers_.push_back(declare_layer(l, input));
    input = (config.projection > 0 ? config.projection : config.width(l)) *
            (config.bidirectional ? 2 : 1);
  }
}

Encoder::Layer Encoder::declare_layer(std::int64_t l, std::int64_t input) {
  const CellKind cell =
      cell_of(config_.cell[config_.cell.size() == 1 ? 0 : static_cast<std::size_t>(l)]);
  Layer layer{
      .name = fmt::format("{}{} layer {}", before_names(config_, ' '), module_name(cell), l),
      .cell = cell};
  check_options(*cell);
  layer.directions.push_back(declare_direction(layer, l, false, input));
  if (config_.bidirectional) {
    layer.directions.push_back(config_.share_directions ? layer.directions.front()
                                                        : declare_direction(layer, l, true, input));
  }
  return layer;
}

void Encoder::check_options(const CellInfo& cell) const {
  const auto refuse = [&](double value, const char* key, bool has, const char* why) {
    if (value > 0 && !has) {
      throw ConfigError(fmt::format("model.{} is not for the cell {}: {}", key, cell.name, why));
    }
  };
  const bool projects = config_.projection > 0;
  refuse(projects, "projection", !cell.reads_h, "its equations read h, which would be narrower");
  refuse(config_.heads > 1, "heads", cell.multiplies && cell.phases == 1,
         "it has not one recurrent product of all gates");
  refuse(config_.zoneout_c, "zoneout_c", cell.gates_memory, "it has no gated cell state");
  refuse(config_.cell_clip, "cell_clip", cell.gates_memory, "it has no gated cell state");
  refuse(config_.recurrent_dropout, "recurrent_dropout", cell.candidate,
         "it has no candidate for a gated memory");
  refuse(config_.variational_recurrent, "variational_recurrent", cell.multiplies,
         "it has no recurrent product");
  refuse(config_.weight_drop, "weight_drop", cell.multiplies, "it has no recurrent product");
  const bool simple = cell.multiplies && cell.gates == 1;
  refuse(config_.gradient_norm_penalty, "gradient_norm_penalty", simple,
         "it is not a simple recurrent network");
  refuse(config_.init_recurrent != "same", "init_recurrent", cell.multiplies,
         "it has no recurrent product");
  refuse(config_.chrono_steps, "chrono_steps", cell.gates > 1, "it has no forget gate");
  for (const auto& [other, key] : {std::pair{projects, "projection"},
                                   {config_.heads > 1, "heads"},
                                   {config_.layer_norm, "layer_norm"},
                                   {config_.bidirectional, "bidirectional"},
                                   {config_.zoneout_h > 0, "zoneout_h"},
                                   {config_.gradient_clip > 0, "gradient_clip"},
                                   {config_.variational_recurrent > 0, "variational_recurrent"}}) {
    if (config_.gradient_norm_penalty > 0 && other) {
      throw ConfigError(
          fmt::format("model.gradient_norm_penalty and model.{} exclude each other", key));
    }
  }
  if (config_.chrono_steps > 0 && config_.chrono_steps <= 2) {
    throw ConfigError(fmt::format("model.chrono_steps is {}, expected 0 or a number above 2",
                                  config_.chrono_steps));
  }
  if (config_.zoneout_h > 0 && projects) {
    throw ConfigError("model.zoneout_h and model.projection exclude each other");
  }
}

Encoder::Direction Encoder::declare_direction(const Layer& layer, std::int64_t l, bool reverse,
                                              std::int64_t input) {
  const CellInfo& cell = *layer.cell;
  const std::int64_t H = config_.width(l), G = cell.gates;
  const std::int64_t P = config_.projection > 0 ? config_.projection : H;
  const auto declare = [&](const std::string& part, Shape shape, const Initializer& initializer) {
    return parameters_->declare(fmt::format("{}{}.{}_l{}{}", before_names(config_, '.'),
                                            module_name(&cell), part, l, reverse ? "_reverse" : ""),
                                shape, initializer);
  };
  const auto blocks = static_cast<int>(G);
  Direction d{kNone, kNone, kNone, kNone, kNone, kNone, kNone, {kNone, kNone, kNone, kNone}};
  d.weight_ih = declare("weight_ih", {G * H, input}, config_.matrix(blocks));
  if (cell.multiplies) {
    d.weight_hh = declare("weight_hh", {G * H, P / config_.heads},
                          config_.recurrent_matrix(blocks * static_cast<int>(config_.heads)));
  }
  d.bias_ih = declare("bias_ih", {G * H}, config_.input_bias(cell, H));
  if (cell.multiplies) {
    d.bias_hh =
        declare("bias_hh", {G * H}, config_.chrono_steps > 0 ? Initializer{} : config_.vector());
  }
  if (config_.projection > 0) d.weight_hr = declare("weight_hr", {P, H}, config_.matrix(1));
  using Kind = Initializer::Kind;
  if (config_.layer_norm)
    d.gain = declare("gain", {2 * G * H}, {.kind = Kind::constant, .scale = 1});
  if (const std::int64_t count = cell.parameters; count > 0) {
    Initializer per_unit = config_.vector();
    if (cell.normalizes) {  // gains of 1, then biases of 0
      per_unit = {
          .kind = Kind::constant, .scale = 1, .offset = -1, .offset_first = H, .offset_count = H};
    } else if (!cell.multiplies) {  // memories of all lengths: U(0, 1)
      per_unit = {.kind = Kind::uniform, .scale = 0.5, .offset = 0.5, .offset_count = count * H};
    }
    d.per_unit = declare("per_unit", {count * H}, per_unit);
  }
  // The last two states of an sLSTM begin at 0: what they stand for has no other beginning.
  for (int k = 0; config_.learn_initial_state && k < std::min(cell.states, 2); ++k) {
    d.start[static_cast<std::size_t>(k)] =
        declare(fmt::format("start_{}", state_letter(cell, k)), {k == 0 ? P : H}, {});
  }
  return d;
}

State Encoder::initial_state(const Device& device, std::int64_t batch) const {
  if (config_.bidirectional) {
    throw ConfigError(
        "model.bidirectional is not for a model that reads on from window to window: what comes "
        "after a window is not known, or is its target");
  }
  State state;
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const CellInfo& cell = *layers_[l].cell;
    for (int i = 0; i < cell.states; ++i) {
      // "h_l0", "c_l0": a state is called by its first letter. All but h are float.
      const DType dtype = i == 0 ? parameters_->compute_type() : DType::f32;
      const std::int64_t units = config_.width(static_cast<std::int64_t>(l));
      const std::int64_t width = i == 0 && config_.projection > 0 ? config_.projection : units;
      state.tensors.push_back({.name = fmt::format("{}_l{}", state_letter(cell, i), l),
                               .value = Tensor(device, {batch, width}, dtype)});
    }
  }
  if (config_.learn_initial_state) {
    state.tensors.push_back({.name = "carried", .value = Tensor(device, {batch}, DType::i32)});
    const std::vector<std::int32_t> ones(static_cast<std::size_t>(batch), 1);
    Tensor& carried = ones_[batch];
    if (!carried) carried = Tensor(device, {batch}, DType::i32);
    copy_from_host(carried, ones.data());
  }
  state.reset();
  return state;
}

RandomSource Encoder::random(Pass& pass, Place place, std::size_t index) const {
  return pass.random(config_.places + (static_cast<std::uint64_t>(place) << 32U) + index);
}

/// Index 0 for what is read, l + 1 for the output of layer l.
Var Encoder::drop(Pass& pass, Var x, std::size_t index, std::int64_t step) const {
  if (!pass.training()) return x;
  return dropout(
      x, static_cast<float>(config_.dropout),
      random(pass, Place::dropout, index + kPlacesOfStep * static_cast<std::size_t>(step)));
}

Var Encoder::drop_sequence(Pass& pass, Var x, double probability, Place place,
                           std::size_t index) const {
  if (!pass.training()) return x;
  return dropout(x, static_cast<float>(probability), random(pass, place, index),
                 x.shape().rank() == 3 ? MaskDraw::once : MaskDraw::each);
}

Var Encoder::read(Pass& pass, std::size_t table, const Tensor& token) const {
  const Tape::Layer layer(pass.tape(), before_names(config_, ' ') + "embedding");
  const double dropped = pass.training() ? config_.embedding_dropout : 0;
  const Var x = embedding(parameters_->on(pass.tape(), table), token, static_cast<float>(dropped),
                          random(pass, Place::embedding, 0));  // [T, B, E]
  return drop_sequence(pass, drop(pass, x, 0), config_.variational_input, Place::input, 0);
}

RecurrentOutput Encoder::run_direction(Pass& pass, Var x, const Run& run,
                                       RecurrentPath path) const {
  const Layer& layer = layers_[run.layer];
  const Direction& own = layer.directions[run.reverse ? 1 : 0];
  Tape& tape = pass.tape();
  const auto on = [&](std::size_t index) {
    return index == kNone ? Var{} : parameters_->on(tape, index);
  };
  RecurrentParameters parameters{.weight_ih = on(own.weight_ih),
                                 .weight_hh = on(own.weight_hh),
                                 .weight_hr = on(own.weight_hr),
                                 .bias_ih = on(own.bias_ih),
                                 .bias_hh = on(own.bias_hh),
                                 .gain = on(own.gain),
                                 .per_unit = on(own.per_unit)};
  for (std::size_t k = 0; k < own.start.size(); ++k) parameters.start[k] = on(own.start[k]);
  const std::size_t index = 2 * run.layer + (run.reverse ? 1 : 0);
  if (pass.training() && parameters.weight_hh.present()) {
    parameters.weight_hh =
        weight_drop(parameters.weight_hh, static_cast<float>(config_.weight_drop),
                    random(pass, Place::weight_drop, index));
  }
  path.reverse = run.reverse;
  path.options = {.zoneout_h = static_cast<float>(config_.zoneout_h),
                  .zoneout_c = static_cast<float>(config_.zoneout_c),
                  .recurrent_dropout = static_cast<float>(config_.recurrent_dropout),
                  .variational = static_cast<float>(config_.variational_recurrent),
                  .cell_clip = static_cast<float>(config_.cell_clip),
                  .gradient_clip = static_cast<float>(config_.gradient_clip),
                  .training = pass.training(),
                  .source = random(pass, Place::recurrence,
                                   index + kPlacesOfStep * static_cast<std::size_t>(run.step))};
  if (pass.training()) {
    path.gradient_norm_penalty = static_cast<float>(config_.gradient_norm_penalty);
  }
  if (run.loop != nullptr) {
    return (*run.loop)[index].step(layer.cell, x, parameters, run.initial, path);
  }
  return recurrent_sequence(layer.cell, x, parameters, run.initial, path);
}

std::vector<LossTerm> Encoder::penalties(Var raw, Var dropped, const RecurrentPath& path) const {
  std::vector<LossTerm> terms;
  if (const auto weight = static_cast<float>(config_.activation_penalty); weight > 0) {
    terms.push_back({"activation_penalty", activation_penalty(dropped, weight, path.rows), weight});
  }
  if (const auto weight = static_cast<float>(config_.temporal_penalty); weight > 0) {
    terms.push_back(
        {"temporal_penalty", temporal_penalty(raw, weight, path.reset, path.rows), weight});
  }
  return terms;
}

std::int64_t Encoder::states(std::int64_t layer) const {
  return layers_[static_cast<std::size_t>(layer)].cell->states;
}

/// The values that layer `l` begins with: entries of the state or of `initial` from `first` on.
std::vector<Var> Encoder::initial_of(Tape& tape, const Reading& reading, std::size_t l,
                                     std::size_t first) const {
  std::vector<Var> initial;
  const bool carries = reading.state != nullptr && !reading.state->tensors.empty();
  if (!carries && reading.initial.empty()) return initial;
  for (std::size_t i = 0; i < static_cast<std::size_t>(layers_[l].cell->states); ++i) {
    initial.push_back(carries ? tape.constant(reading.state->tensors.at(first + i).value)
                              : reading.initial[first + i]);
  }
  return initial;
}

Encoder::Result Encoder::run(Pass& pass, Var x, const Reading& reading, Output output) const {
  Tape& tape = pass.tape();
  if (pass.partial() && (config_.penalizes() || config_.gradient_norm_penalty > 0)) {
    throw ConfigError(
        "train.accumulate is more than 1, and model.activation_penalty, temporal_penalty and "
        "gradient_norm_penalty are means over one batch");
  }
  RecurrentPath path{.reset = reading.reset, .rows = {.begin = {}, .end = reading.lengths}};
  const bool carries = reading.state != nullptr && !reading.state->tensors.empty();
  if (config_.learn_initial_state && carries) {
    path.carried = reading.state->at("carried").value;
    const std::int64_t rows =
        path.carried.size();  // of a state for as many, or of some of its rows
    pass.carry(ones_.lower_bound(rows)->second.slice(0, rows), path.carried);
  }
  Result result;
  std::size_t first = 0;
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const Tape::Layer layer(tape, layers_[l].name);
    const std::vector<Var> initial = initial_of(tape, reading, l, first);
    first += initial.size();
    const RecurrentOutput y = run_direction(
        pass, x, {.layer = l, .initial = initial, .step = reading.step, .loop = reading.loop},
        path);
    result.last.insert(result.last.end(), y.last.begin(), y.last.end());
    for (std::size_t i = 0; carries && i < initial.size(); ++i) {
      pass.carry(y.last[i].value(), initial[i].value());  // [B, H]
    }
    const bool top = l + 1 == layers_.size(), last = top && output == Output::last;
    Var out = last ? y.last.front() : y.h;
    if (config_.bidirectional) {
      const RecurrentOutput back = run_direction(pass, x, {.layer = l, .reverse = true}, path);
      result.last.insert(result.last.end(), back.last.begin(), back.last.end());
      out = concatenate(out, last ? back.last.front() : back.h);
    }
    const Var raw = out;
    out = drop(pass, out, l + 1, reading.step);
    out = drop_sequence(pass, out, top ? config_.variational_output : config_.variational_hidden,
                        top ? Place::output : Place::hidden, l);
    if (top && pass.training()) result.penalties = penalties(raw, out, path);
    x = config_.residual && x.shape() == out.shape() ? add(x, out) : out;
  }
  result.output = x;
  return result;
}

}  // namespace carousel
