#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/config/options.h"
#include "engine/model/model.h"

namespace carousel {

struct EncoderConfig {
  std::string cell = "lstm";     ///< a recurrent cell, kernels/recurrent_sequence/cells/table.h
  std::int64_t hidden = 256;     ///< H
  std::int64_t layers = 2;       ///< L
  double dropout = 0;            ///< on every connection that is not recurrent
  std::string init = "uniform";  ///< uniform (U(±1/√H), as PyTorch) | xavier | orthogonal
  double init_range = 0;         ///< of "uniform"; 0: 1/√H
  double forget_bias = 1;  ///< added to the forget gates' bias_ih at the start, if the cell has one

  void describe(OptionSection& section);
  /// How a matrix of `blocks` blocks of rows begins, and a vector.
  Initializer matrix(int blocks) const;
  Initializer vector() const;
};

/// A stack of recurrent layers over a sequence, one below every model that reads one. Parameters
/// have the names of PyTorch's module of the cell: "lstm.weight_ih_l0", "gru.…", "rnn.…".
///
/// Source   Zaremba, Sutskever & Vinyals 2014, arXiv:1409.2329, section 3.1: stacked layers with
///          dropout on the connections that are not recurrent.
class Encoder {
 public:
  /// Declares its parameters. `input` is the width of what it reads.
  Encoder(const EncoderConfig& config, std::int64_t input, Parameters& parameters);

  State initial_state(const Device& device, std::int64_t batch) const;

  /// Which output of the top layer a head reads.
  enum class Output : std::uint8_t {
    steps,  ///< [T, B, H]: of every step
    last    ///< [B, H]: after each row's last step
  };
  /// Reads x [T, B, E] on from the state and carries it. Rows restart where reset [T, B] is not 0
  /// and end after lengths [B] steps; both may be empty, and so may the state.
  Var run(Pass& pass, Var x, const Tensor& reset, const Tensor& lengths, const State& state,
          Output output) const;

  /// Dropout on what is read, for the layer that computes it to call.
  Var drop_input(Pass& pass, Var x) const { return drop(pass, x, 0); }

 private:
  struct Layer {
    std::string name;
    std::size_t weight_ih, weight_hh, bias_ih, bias_hh;
    std::optional<std::size_t> per_unit{};  ///< of a cell that has such parameters
  };
  /// Streams of random numbers: 0 for what is read, l + 1 for the output of layer l.
  Var drop(Pass& pass, Var x, std::uint64_t place) const;

  EncoderConfig config_;
  CellKind cell_;
  Parameters* parameters_;
  std::vector<Layer> layers_;
};

}  // namespace carousel
