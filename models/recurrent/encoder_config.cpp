#include <algorithm>
#include <cmath>

#include "kernels/common/check.h"
#include "models/recurrent/encoder.h"

namespace carousel {

void EncoderConfig::describe(OptionSection& section) {
  std::vector<std::string> cells;
  for (const CellKind kind : cell_kinds()) {
    if (kind->variant.empty()) cells.emplace_back(kind->name);
  }
  const RealRange probability{.least = 0, .most = 1, .below_most = true}, bound{.least = 0};
  section.add("cell", cell, "the recurrent cell of all layers, or of each", cells);
  section.add("peephole", peephole, "gates see the cell state (lstm)");
  section.add("layer_norm", layer_norm,
              "layer normalization of both products (and of lstm's state)");
  section.add("reset_before", reset_before, "the reset gate comes before the product (gru)");
  section.add("hidden", hidden, "units per layer", {1, std::int64_t{1} << 20});
  section.add("top_hidden", top_hidden, "units of the top layer; 0: hidden",
              {0, std::int64_t{1} << 20});
  section.add("layers", layers, "recurrent layers", {1, 1000});
  section.add("projection", projection, "units that h is projected to; 0: no projection",
              {0, std::int64_t{1} << 20});
  section.add("heads", heads, "blocks of a block-diagonal recurrent matrix", {1, 1024});
  section.add("bidirectional", bidirectional, "each layer reads in both directions");
  section.add("share_directions", share_directions, "both directions have the same weights");
  section.add("residual", residual, "a layer's input is added to its output, where as wide");
  section.add("learn_initial_state", learn_initial_state, "sequences start from learnt states");
  section.add("dropout", dropout, "probability, on connections that are not recurrent",
              probability);
  section.add("variational_input", variational_input,
              "dropout of the first layer's input, one mask per sequence", probability);
  section.add("variational_hidden", variational_hidden, "the same between layers", probability);
  section.add("variational_output", variational_output, "the same of the top layer's output",
              probability);
  section.add("variational_recurrent", variational_recurrent,
              "the same of h on its way into the recurrent product", probability);
  section.add("embedding_dropout", embedding_dropout, "dropout of whole rows of the embedding",
              probability);
  section.add("weight_drop", weight_drop, "dropout of the recurrent matrices", probability);
  section.add("recurrent_dropout", recurrent_dropout,
              "dropout of what enters the memory (lstm, gru, slstm)", probability);
  section.add("zoneout_h", zoneout_h, "probability that a unit of h keeps its value", probability);
  section.add("zoneout_c", zoneout_c, "the same of the cell state (lstm)", probability);
  section.add("cell_clip", cell_clip, "bound of the cell state (lstm); 0: none", bound);
  section.add("gradient_clip", gradient_clip,
              "bound of the gradients inside the recurrence; 0: none", bound);
  section.add("activation_penalty", activation_penalty,
              "weight of the mean square of the top layer's output, after dropout", bound);
  section.add("temporal_penalty", temporal_penalty,
              "weight of the mean square of its change from step to step, before dropout", bound);
  section.add(
      "gradient_norm_penalty", gradient_norm_penalty,
      "weight of Pascanu's penalty on gradients that vanish or explode (tanh, relu, linear)",
      bound);
  std::vector<std::string> ways;
  for (const NamedInitializer& way : matrix_initializers()) {
    if (!way.square) ways.emplace_back(way.name);
  }
  section.add("init", init, "how matrices begin", ways);
  ways = {"same"};
  for (const NamedInitializer& way : matrix_initializers()) ways.emplace_back(way.name);
  section.add("init_recurrent", init_recurrent, "how recurrent matrices begin", ways);
  section.add("init_recurrent_scale", init_recurrent_scale, "factor of it, if it is not \"same\"",
              {.least = 0, .above_least = true});
  section.add("chrono_steps", chrono_steps,
              "longest delay that forget gates begin with (lstm, slstm, gru); 0: none", bound);
  section.add("init_range", init_range,
              "of uniform, or deviation of normal; 0: 1 over the root of hidden", {.least = 0});
  section.add("forget_bias", forget_bias,
              "added to the forget gates' bias at the start, of cells that have one");
}

std::int64_t EncoderConfig::width(std::int64_t layer) const {
  return top_hidden > 0 && layer + 1 == layers ? top_hidden : hidden;
}

std::int64_t EncoderConfig::output_width() const { return output_units().all(); }

Embedder::Units EncoderConfig::output_units() const {
  const std::int64_t units = projection > 0 ? projection : width(layers - 1);
  return {.forward = units, .backward = bidirectional ? units : 0};
}

namespace {

Initializer::Kind kind_of(const std::string& name) {
  for (const NamedInitializer& way : matrix_initializers()) {
    if (way.name == name) return way.kind;
  }
  throw ConfigError("no way to begin a matrix is named '" + name + "'");
}

}  // namespace

Initializer EncoderConfig::matrix(int blocks) const {
  const Initializer::Kind kind = kind_of(init);
  if (kind != Initializer::Kind::uniform && kind != Initializer::Kind::normal) {
    return {.kind = kind, .scale = 1, .blocks = blocks};
  }
  const double range = init_range > 0 ? init_range : 1 / std::sqrt(static_cast<double>(hidden));
  return {.kind = kind, .scale = range};
}

// Only the uniform rule has a meaning for a vector.
Initializer EncoderConfig::vector() const { return init == "uniform" ? matrix(1) : Initializer{}; }

Initializer EncoderConfig::recurrent_matrix(int blocks) const {
  if (init_recurrent == "same") return matrix(blocks);
  const Initializer::Kind kind = kind_of(init_recurrent);
  const bool ranged = kind == Initializer::Kind::uniform || kind == Initializer::Kind::normal;
  const double of_unit = ranged ? 1 / std::sqrt(static_cast<double>(hidden)) : 1;
  return {.kind = kind, .scale = init_recurrent_scale * of_unit, .blocks = blocks};
}

/// Of b_ih: forget gates begin open, or for delays of all lengths.
Initializer EncoderConfig::input_bias(const CellInfo& info, std::int64_t width) const {
  const auto place_of = [&](std::string_view gate) {
    const auto end = info.gate_names.begin() + info.gates;
    const auto found = std::find(info.gate_names.begin(), end, gate);
    return found == end ? -1 : (found - info.gate_names.begin()) * width;
  };
  const std::int64_t forget = place_of("f"), update = place_of("z");
  if (chrono_steps > 0) {  // the update gate of a GRU keeps the old state
    return {.kind = Initializer::Kind::chrono,
            .scale = chrono_steps,
            .offset_first = forget >= 0 ? forget : update,
            .offset_count = width,
            .mirror_first = forget >= 0 ? place_of("i") : -1};
  }
  Initializer bias = vector();
  if (forget < 0) return bias;
  bias.offset = forget_bias;
  bias.offset_first = forget;
  bias.offset_count = width;
  return bias;
}

}  // namespace carousel
