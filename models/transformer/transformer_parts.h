#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "engine/model/model.h"

namespace carousel {

/// What the blocks of transformers are made of: parameters of a model, and the ops that read them.
class TransformerParts {
 public:
  struct Options {
    std::int64_t embed = 0;  ///< E
    bool bias = true;        ///< of products, and of layer normalization
    bool rms = false;        ///< normalization by the root mean square
    double dropout = 0;      ///< of drop()
  };
  /// W x + b, of which b may be absent.
  struct Product {
    std::size_t weight, bias;
  };
  struct Norm {
    std::size_t gain, bias;
  };
  TransformerParts(const Options& options, Parameters& parameters)
      : options_(options), parameters_(parameters) {}

  /// Parameters "<name>weight" of this shape and, if there are biases, "<name>bias".
  Product declare_product(const std::string& name, const Shape& shape, const Initializer& matrix);
  /// "<name>weight" alone.
  Product declare_matrix(const std::string& name, const Shape& shape, const Initializer& matrix);
  Norm declare_norm(const std::string& name);

  Var product(Tape& tape, Var x, const Product& product) const;
  Var normalized(Tape& tape, Var x, const Norm& norm) const;
  /// x + more, and that normalized.
  SumAndNorm summed(Tape& tape, Var x, Var more, const Norm& norm) const;
  Var drop(Pass& pass, Var x, std::uint64_t place) const;

 private:
  Options options_;
  Parameters& parameters_;
};

/// ConfigError unless the heads divide the width of the model into widths that attention takes.
void check_heads(std::int64_t embed, std::int64_t heads);

}  // namespace carousel
