#pragma once

#include <cstdint>

#include "models/output_layer.h"
#include "models/recurrent/encoder.h"

namespace carousel {

struct RecurrentLmConfig {
  std::int64_t vocabulary = 0;  ///< V, from the data
  std::int64_t embed = 128;     ///< E
  double embed_range = 0;       ///< the embedding begins with U(±this); 0: N(0, 1), as PyTorch's
  EncoderConfig encoder{};
  bool tie_weights = false;  ///< the output matrix is the embedding's; asks for embed == hidden
  double label_smoothing = 0;
  OutputConfig output{};

  void describe(OptionSection& section);
};

/// Language model of stacked recurrent layers: embedding, encoder, softmax over the next token.
///
///     x_t = embedding[token_t];   h_t = encoder(x_1 … x_t)
///     p(token_{t+1} | token_1 … token_t) = softmax(W h_t + b), or as model.output says
///
/// Source   Mikolov et al. 2010, Interspeech, 1045–1048 (the recurrent language model); Zaremba,
///          Sutskever & Vinyals 2014, arXiv:1409.2329 (stacked LSTMs with dropout); Press & Wolf
///          2017, arXiv:1608.05859 (tied weights). Parameters have the names of PyTorch's
///          nn.Embedding "embedding", the cell's module and the output layer's "output".
class RecurrentLm : public Model, public Decoder, public Embedder {
 public:
  RecurrentLm(const RecurrentLmConfig& config, const Device& device, DType compute,
              const Beginning& beginning);

  Parameters& parameters() override { return parameters_; }
  State initial_state(std::int64_t batch) const override;
  Objective objective(Pass& pass, const Batch& batch, const State& state) override;
  Decoder* decoder() override { return this; }
  State decoding_state(std::int64_t batch) const override { return initial_state(batch); }
  Tensor logits(Pass& pass, const Field& token, const State& state) override;
  Embedder* embedder() override { return this; }
  Units units() const override { return config_.encoder.output_units(); }
  bool reads_whole_lines() const override { return false; }
  Tensor hidden(Pass& pass, const Batch& batch, const State& state) override;
  Tensor token_embeddings() const override { return parameters_.weight(embedding_); }

 private:
  Encoder::Result encode(Pass& pass, const Field& token, const Tensor& reset, const State& state,
                         Encoder::Output output);
  RecurrentLmConfig config_;
  Device device_;
  Parameters parameters_;
  std::size_t embedding_;
  Encoder encoder_;
  OutputLayer output_;
};

}  // namespace carousel
