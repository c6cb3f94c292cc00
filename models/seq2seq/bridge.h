#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "models/recurrent/encoder.h"

namespace carousel {

/// From the states that an encoder ends with to those that its decoder begins with. Of one direction
/// they are handed on. Of two, for each layer and each of its first two states:
///
///     s = tanh(W [→s; ←s] + b)
///
/// in the type of products; further states, which normalize the second, begin at 0.
///
/// Source   Sutskever, Vinyals & Le 2014, arXiv:1409.3215 (the states handed on); Bahdanau, Cho &
///          Bengio 2015, arXiv:1409.0473, section A.2.2 (a layer between).
class Bridge {
 public:
  /// Declares "bridge.h_l0.weight" W, "bridge.h_l0.bias" b, "bridge.c_l0.weight" …
  Bridge(const EncoderConfig& config, const Encoder& encoder, Parameters& parameters);
  /// Encoder::Reading::initial for Encoder::Result::last.
  std::vector<Var> operator()(Tape& tape, const std::vector<Var>& last) const;

 private:
  struct Product {
    std::string name;
    std::size_t weight, bias;
  };
  Var joined(Tape& tape, Var forward, Var backward, const Product& product) const;

  Parameters* parameters_;
  std::vector<std::int64_t> states_;            ///< of each layer; empty for one direction
  std::vector<std::vector<Product>> products_;  ///< of each layer's first states
};

}  // namespace carousel
