#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/model/model.h"

namespace carousel {

struct LstmLmConfig {
  std::int64_t vocabulary = 0;  ///< V, from the data
  std::int64_t embed = 128;     ///< E
  std::int64_t hidden = 256;    ///< H
  std::int64_t layers = 2;
  double dropout = 0;            ///< on every connection that is not recurrent
  bool tie_weights = false;      ///< the output matrix is the embedding's; asks for embed == hidden
  std::string init = "uniform";  ///< uniform (U(±1/√H), as PyTorch) | xavier | orthogonal
  double init_range = 0;         ///< of "uniform"; 0: 1/√H
  double forget_bias = 1;        ///< added to the forget gates' bias_ih at the start
  double label_smoothing = 0;
};

/// Language model of stacked LSTMs: embedding, LSTM layers, softmax over the next token.
///
///     x_t = embedding[token_t];   h_t^l = LSTM^l(h_t^{l−1}, h_{t−1}^l, c_{t−1}^l)
///     p(token_{t+1} | token_1 … token_t) = softmax(W h_t^L + b)
///
/// Source   Zaremba, Sutskever & Vinyals 2014, arXiv:1409.2329 (stacked LSTM with dropout on the
///          non-recurrent connections, section 3.1); Press & Wolf 2017, arXiv:1608.05859 (tied
///          weights). Parameter names are those of PyTorch's nn.Embedding "embedding", nn.LSTM
///          "lstm" and nn.Linear "output".
class LstmLm : public Model {
 public:
  LstmLm(const LstmLmConfig& config, const Device& device, DType compute, std::uint64_t seed);

  Parameters& parameters() override { return parameters_; }
  RecurrentState initial_state(std::int64_t batch) const override;
  Loss loss(Pass& pass, const Batch& batch, const RecurrentState& state) override;
  Tensor next_logits(Pass& pass, const Tensor& token, const RecurrentState& state) override;

 private:
  struct Weights {
    std::size_t weight_ih, weight_hh, bias_ih, bias_hh;
  };
  void declare();
  Initializer matrix(int blocks) const;
  /// Hidden states of the top layer, [T, B, H].
  Var hidden(Pass& pass, const Tensor& token, const Tensor& reset, const RecurrentState& state);
  std::size_t output_weight() const { return config_.tie_weights ? embedding_ : output_weight_; }

  LstmLmConfig config_;
  Device device_;
  Parameters parameters_;
  std::vector<Weights> layers_;
  std::size_t embedding_ = 0, output_weight_ = 0, output_bias_ = 0;
};

}  // namespace carousel
