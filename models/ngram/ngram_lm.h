#pragma once

#include <cstdint>
#include <optional>

#include "engine/config/options.h"
#include "engine/model/model.h"
#include "models/output_layer.h"

namespace carousel {

struct NgramLmConfig {
  std::int64_t vocabulary = 0;  ///< V, from the data
  std::int64_t context = 4;     ///< K = n − 1 tokens that the next one is predicted from
  std::int64_t embed = 128;     ///< E
  double embed_range = 0;       ///< the embedding begins with U(±this); 0: N(0, 1), as PyTorch's
  std::int64_t hidden = 512;    ///< H
  Activation activation = Activation::gelu;
  double dropout = 0;        ///< of the joined embeddings and of the hidden units
  bool tie_weights = false;  ///< the output matrix is the embedding's; asks for embed == hidden
  double label_smoothing = 0;
  OutputConfig output{};

  void describe(OptionSection& section);
};

/// Language model that predicts the next token from the K before it:
///
///     x_t = embedding[token_{t−K+1}], …, embedding[token_t] side by side
///     h_t = gelu(layer_norm(W_h x_t + b_h))
///     p(token_{t+1} | token_{t−K+1} … token_t) = softmax(W h_t + b), or as model.output says
///
/// Before the begin of a text or a document there are no tokens: zeros stand for their embeddings.
///
/// Source   Bengio, Ducharme, Vincent & Jauvin 2003, JMLR 3:1137, section 2, without the direct
///          connections from x to the output, and with normalization before the hidden units: Ba,
///          Kiros & Hinton 2016, arXiv:1607.06450. Their hidden units are tanh, an option here.
///          Parameters have the names of PyTorch's nn.Embedding "embedding", nn.Linear "hidden",
///          nn.LayerNorm "norm" and the output layer's "output".
class NgramLm : public Model, public Decoder, public Embedder {
 public:
  NgramLm(const NgramLmConfig& config, const Device& device, DType compute,
          const Beginning& beginning);

  Parameters& parameters() override { return parameters_; }
  /// The last K tokens of each row, as `before` of ContextWindows.
  State initial_state(std::int64_t batch) const override;
  Objective objective(Pass& pass, const Batch& batch, const State& state) override;
  Decoder* decoder() override { return this; }
  State decoding_state(std::int64_t batch) const override { return initial_state(batch); }
  Tensor logits(Pass& pass, const Field& token, const State& state) override;
  Embedder* embedder() override { return this; }
  Units units() const override { return {.forward = config_.hidden}; }
  bool reads_whole_lines() const override { return false; }
  Tensor hidden(Pass& pass, const Batch& batch, const State& state) override;
  Tensor token_embeddings() const override { return parameters_.weight(embedding_); }

 private:
  /// The contexts of all steps of a window, [T, B, K]; carries the state.
  Tensor contexts(Pass& pass, const Batch& batch, const State& state) const;
  /// What the output layer reads of each context [..., K]: [..., H].
  Var hidden_units(Pass& pass, const Tensor& context);
  Var drop(Pass& pass, Var x, std::uint64_t place) const;

  NgramLmConfig config_;
  Device device_;
  Parameters parameters_;
  std::size_t embedding_, hidden_weight_, hidden_bias_, gain_, bias_;
  std::optional<OutputLayer> output_;
};

}  // namespace carousel
