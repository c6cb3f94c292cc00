#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "engine/model/attention_reader.h"
#include "engine/model/model.h"
#include "models/transformer/transformer_lm_config.h"
#include "models/transformer/transformer_parts.h"

namespace carousel {

/// Language model of the transformer's decoder, with normalization before each block:
///
///     x = embedding[token_t] + position_t    (rotary positions: the embedding alone)
///     x = x + W_o attention(q, k, v) + b_o,    q, k, v = W norm(x) + b, turned if rotary
///     x = x + W_2 f(W_1 norm(x) + b_1) + b_2;    swiglu: W_2 (silu(a) ∘ b), a, b = W_1 norm(x) + b_1
///     p(token_{t+1} | token_{t−C+1} … token_t) = softmax(W norm(x)), or as model.output says
///
/// With sinusoids the embedding is multiplied by √E. Matrices begin with N(0, 0.02²), W_o and W_2 with
/// that over √(2·layers), biases with 0.
///
/// No state is carried from one training window to the next: a window is a text of its own. Resets
/// within it (data.document_end) are not heeded in training: as in GPT-2, a token that ends documents
/// is what the model learns to know them by. In evaluation a row that restarts sees nothing from before, and what is longer than
/// C is read in windows of C which begin every `stride` tokens; a token's loss is that in the first
/// window that has it, so that it sees C − stride tokens before it or more, or all there are.
///
/// A decoder keeps the keys and values of the last C tokens. Beyond C, rotary and sinusoidal positions
/// go on, and a token sees the C − 1 before it. Learnt positions end at C: Decoder::longest().
///
/// Source   Vaswani et al. 2017, arXiv:1706.03762 (attention, sinusoids); Radford et al. 2019, Language
///          Models are Unsupervised Multitask Learners, section 2.3 (the order of the blocks, the
///          beginnings); Press & Wolf 2017, arXiv:1608.05859 (tied weights); Su et al. 2021,
///          arXiv:2104.09864; Zhang & Sennrich 2019, arXiv:1910.07467; Shazeer 2020, arXiv:2002.05202.
///          Parameters have the names of GPT-2's modules, "transformer.h.0.attn.c_attn.weight", and
///          the shapes of PyTorch's nn.Linear; files with GPT-2's own are read (gpt2_weights.h). W_1 of swiglu is [2·hidden, E].
class TransformerLm : public Model, public Decoder, public Embedder, public AttentionReader {
 public:
  TransformerLm(const TransformerLmConfig& config, const Device& device, DType compute,
                const Beginning& beginning);

  Parameters& parameters() override { return parameters_; }
  Objective objective(Pass& pass, const Batch& batch, const State& state) override;
  ReadingWindows reading_windows() const override {
    return {.steps = config_.context, .stride = config_.window_stride()};
  }
  Decoder* decoder() override { return this; }
  /// Keys and values "cache_k_l0", "cache_v_l0", … [C, B, A_kv·D] and "position" [B].
  State decoding_state(std::int64_t batch) const override;
  Tensor logits(Pass& pass, const Field& token, const State& state) override;
  std::int64_t longest() const override;
  Embedder* embedder() override { return this; }
  Units units() const override { return {.forward = config_.embed}; }
  bool reads_whole_lines() const override { return true; }
  Tensor hidden(Pass& pass, const Batch& batch, const State& state) override;
  Tensor token_embeddings() const override { return parameters_.weight(embedding_); }
  AttentionReader* attention_reader() override { return this; }
  std::vector<AttentionWeights> attention_weights(Pass& pass, const Batch& batch) override;

 private:
  using Product = TransformerParts::Product;
  using Norm = TransformerParts::Norm;
  struct Layer {
    Norm before_attention;
    Product qkv, attended;
    Norm before_feed_forward;
    Product wide, narrow;
  };
  /// What is read on from, and how far each row reads; null and empty in a window of its own.
  struct Past {
    const State* state = nullptr;
    Tensor position{};                              ///< [B] i64 tokens before
    Tensor lengths{};                               ///< [B] i32; empty: all steps
    std::vector<AttentionWeights>* seen = nullptr;  ///< where those of each layer go, on request
  };

  Layer declare_layer(std::int64_t layer);

  Var embedded(Pass& pass, const Tensor& token, const Past& past);
  /// Of x normalized, as fed_forward().
  Var attended(Pass& pass, Var x, std::size_t layer, const Past& past);
  Var cached_attention(Var qkv, std::size_t layer, const Past& past,
                       AttentionOptions options) const;
  Var fed_forward(Pass& pass, Var x, std::size_t layer);
  /// What the output layer reads of each step of token [T, B]: [T, B, E].
  Var hidden_units(Pass& pass, const Tensor& token, const Past& past);
  /// The same in evaluation, where rows may restart and be longer than C.
  Var evaluated_units(Pass& pass, const Batch& batch);

  TransformerLmConfig config_;
  Device device_;
  Arena group_memory_{device_};  ///< of one group of windows at a time, kept for the next
  Parameters parameters_;
  TransformerParts parts_{{.embed = config_.embed,
                           .bias = config_.bias,
                           .rms = config_.norm == TransformerLmConfig::Norm::rms,
                           .dropout = config_.dropout},
                          parameters_};
  std::size_t embedding_ = 0, positions_ = 0;
  std::vector<Layer> layers_;
  Norm last_norm_{};
  std::optional<OutputLayer> output_;
};

}  // namespace carousel
