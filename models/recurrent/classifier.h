#pragma once

#include <cstdint>
#include <string>

#include "models/recurrent/encoder.h"

namespace carousel {

struct ClassifierConfig {
  std::int64_t vocabulary = 0;  ///< V, from the data
  std::int64_t classes = 0;     ///< C, from the data
  std::int64_t embed = 128;     ///< E
  EncoderConfig encoder{};
  std::string pooling = "last";  ///< of the top layer's steps: last | mean | max
  double label_smoothing = 0;

  void describe(OptionSection& section);
};

/// One label for a whole sequence: embedding, encoder, pooling over time, softmax over the classes.
///
///     h_t = encoder(embedding[token_1 … token_t]);   y = h_T, Σ_t h_t / T or max_t h_t
///     p(class | token_1 … token_T) = softmax(W y + b)
///
/// Source   Graves 2012, Supervised Sequence Labelling with Recurrent Neural Networks, section 2.3
///          (sequence classification); Conneau et al. 2017, arXiv:1705.02364, section 3.2 (mean and
///          max pooling). Parameters have PyTorch's names: "embedding", the cell's, "output".
class Classifier : public Model, public Predictor, public Embedder {
 public:
  Classifier(const ClassifierConfig& config, const Device& device, DType compute,
             const Beginning& beginning);

  Parameters& parameters() override { return parameters_; }
  Objective objective(Pass& pass, const Batch& batch, const State& state) override;
  Predictor* predictor() override { return this; }
  Tensor predict(Pass& pass, const Batch& batch) override;
  Embedder* embedder() override { return this; }
  Units units() const override { return config_.encoder.output_units(); }
  bool reads_whole_lines() const override { return true; }
  Tensor hidden(Pass& pass, const Batch& batch, const State& state) override;
  Tensor token_embeddings() const override { return parameters_.weight(embedding_); }

 private:
  Encoder::Result pooled(Pass& pass, const Batch& batch);  ///< [B, n]
  Tensor class_logits(Pass& pass, Var pooled);

  ClassifierConfig config_;
  Parameters parameters_;
  std::size_t embedding_, output_weight_ = 0, output_bias_ = 0;
  Encoder encoder_;
};

}  // namespace carousel
