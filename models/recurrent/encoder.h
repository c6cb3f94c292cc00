#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/config/options.h"
#include "engine/model/model.h"
#include "engine/ops/recurrent_loop.h"

namespace carousel {

struct EncoderConfig {
  std::vector<std::string> cell{"lstm"};  ///< of all layers, or of each: kernels/…/cells/table.h
  bool peephole = false, layer_norm = false, reset_before = false;  ///< of every layer's cell
  std::int64_t hidden = 256;                                        ///< H
  std::int64_t top_hidden = 0;       ///< H of the top layer, if it has another
  std::int64_t layers = 2;           ///< L
  std::int64_t projection = 0;       ///< P units of h; 0: H, without a projection
  std::int64_t heads = 1;            ///< blocks of a block-diagonal W_hh
  bool bidirectional = false;        ///< two directions a layer, their outputs side by side
  bool share_directions = false;     ///< both have the same weights
  bool residual = false;             ///< a layer's input is added to its output, where as wide
  bool learn_initial_state = false;  ///< sequences start from parameters, not from 0
  double dropout = 0;                ///< on every connection that is not recurrent
  double variational_input = 0, variational_hidden = 0, variational_output = 0;
  double variational_recurrent = 0, weight_drop = 0, recurrent_dropout = 0;
  double zoneout_h = 0, zoneout_c = 0, embedding_dropout = 0;
  double cell_clip = 0, gradient_clip = 0;
  double activation_penalty = 0, temporal_penalty = 0, gradient_norm_penalty = 0;
  std::string init = "uniform";  ///< of matrices, by matrix_initializers(); uniform: U(±1/√H)
  std::string init_recurrent = "same";  ///< of W_hh; same: as the other matrices
  double init_recurrent_scale = 1;      ///< that it is multiplied by, if not "same"
  double chrono_steps = 0;  ///< longest delay for which forget gates begin; 0: forget_bias
  double init_range = 0;    ///< of "uniform"; 0: 1/√H
  double forget_bias = 1;  ///< added to the forget gates' bias_ih at the start, if the cell has one
  // Of the model that has several encoders.
  std::string name{};        ///< which one, in the names of parameters and layers; empty: the only
  std::uint64_t places = 0;  ///< where its places of random numbers begin: a multiple of 2³⁵

  void describe(OptionSection& section);
  /// How a matrix of `blocks` blocks of rows begins, and a vector.
  Initializer matrix(int blocks) const;
  Initializer vector() const;
  Initializer recurrent_matrix(int blocks) const;                          ///< of W_hh
  Initializer input_bias(const CellInfo& info, std::int64_t width) const;  ///< of b_ih
  std::int64_t width(std::int64_t layer) const;                            ///< H of a layer
  std::int64_t output_width() const;     ///< of what the top layer gives
  Embedder::Units output_units() const;  ///< the same, by direction
  bool penalizes() const { return activation_penalty > 0 || temporal_penalty > 0; }
};

/// A stack of recurrent layers over a sequence, one below every model that reads one. Parameters
/// have the names of PyTorch's module of the cell: "lstm.weight_ih_l0", "gru.…", "rnn.…"; those of
/// the direction from the end backward end in "_reverse".
///
/// Source   Zaremba, Sutskever & Vinyals 2014, arXiv:1409.2329, section 3.1: stacked layers with
///          dropout on the connections that are not recurrent. Schuster & Paliwal 1997, IEEE
///          Transactions on Signal Processing 45(11): two directions. Gal & Ghahramani 2016,
///          arXiv:1512.05287: one mask per sequence. Merity, Keskar & Socher 2018, arXiv:1708.02182:
///          dropped recurrent weights. Wu et al. 2016, arXiv:1609.08144, section 3.1: residual
///          connections. Merity, McCann & Socher 2017, arXiv:1708.01009: penalties on activations.
class Encoder {
 public:
  /// Declares its parameters. `input` is the width of what it reads. ConfigError for options that a
  /// cell does not have.
  Encoder(const EncoderConfig& config, std::int64_t input, Parameters& parameters);

  /// ConfigError with several directions: a window says nothing about what comes after it.
  State initial_state(const Device& device, std::int64_t batch) const;

  /// The rows of a table [V, E] for token [T, B], with what dropout leaves of them.
  Var read(Pass& pass, std::size_t table, const Tensor& token) const;

  /// Which output of the top layer a head reads.
  enum class Output : std::uint8_t {
    steps,  ///< [T, B, n]: of every step; n is output_width()
    last    ///< [B, n]: after each row's last step, of either direction
  };
  /// The layers of a loop over steps that a model makes itself.
  using Loop = std::map<std::size_t, RecurrentLoop>;
  /// How a sequence is read: all of it may be empty.
  struct Reading {
    Tensor reset{};                ///< [T, B] i32: rows restart where it is not 0
    Tensor lengths{};              ///< [B] i32: the steps of each row
    const State* state = nullptr;  ///< it is read on from here, and carried
    /// Instead of a state, values of the tape, through which gradients flow: those of layer 0, h
    /// first, then those of layer 1 …; Var{} is zero. For one direction.
    std::span<const Var> initial{};
    /// Where the first step stands in its sequence: random numbers of each step are its own.
    std::int64_t step = 0;
    Loop* loop = nullptr;  ///< of which this is a step: the same for all its steps
  };
  struct Result {
    Var output;
    std::vector<LossTerm> penalties{};  ///< in training, those that the config asks for
    /// The states at each row's end: of layer 0, h first, of its other direction, of layer 1 …
    std::vector<Var> last{};
  };
  /// Reads x [T, B, E].
  Result run(Pass& pass, Var x, const Reading& reading, Output output) const;
  std::int64_t states(std::int64_t layer) const;  ///< of its cell, h among them

 private:
  struct Direction {
    std::size_t weight_ih, weight_hh, weight_hr, bias_ih, bias_hh, gain, per_unit;
    std::array<std::size_t, kMostStates> start;
  };
  struct Layer {
    std::string name;
    CellKind cell;
    std::vector<Direction> directions{};
  };
  /// One place where random numbers are drawn: a stream of its own.
  enum class Place : std::uint64_t {
    dropout,
    recurrence,
    weight_drop,
    input,
    hidden,
    output,
    embedding
  };
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);

  CellKind cell_of(const std::string& name) const;
  void check_options(const CellInfo& cell) const;
  Layer declare_layer(std::int64_t l, std::int64_t input);
  Direction declare_direction(const Layer& layer, std::int64_t l, bool reverse, std::int64_t input);
  RandomSource random(Pass& pass, Place place, std::size_t index) const;
  Var drop(Pass& pass, Var x, std::size_t index, std::int64_t step = 0) const;
  Var drop_sequence(Pass& pass, Var x, double probability, Place place, std::size_t index) const;
  std::vector<Var> initial_of(Tape& tape, const Reading& reading, std::size_t layer,
                              std::size_t first) const;
  std::vector<LossTerm> penalties(Var raw, Var dropped, const RecurrentPath& path) const;
  /// One direction of a layer; initial, step and loop as in Reading.
  struct Run {
    std::size_t layer;
    bool reverse = false;
    std::span<const Var> initial{};
    std::int64_t step = 0;
    Loop* loop = nullptr;
  };
  RecurrentOutput run_direction(Pass& pass, Var x, const Run& run, RecurrentPath path) const;

  EncoderConfig config_;
  Parameters* parameters_;
  std::vector<Layer> layers_;
  mutable std::map<std::int64_t, Tensor> ones_;  ///< [B] i32, for each B a whole state was made for
};

}  // namespace carousel
