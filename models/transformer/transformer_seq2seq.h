#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "engine/model/attention_reader.h"
#include "engine/model/model.h"
#include "engine/model/translator.h"
#include "models/transformer/transformer_parts.h"
#include "models/transformer/transformer_seq2seq_config.h"

namespace carousel {

/// The transformer that translates: an encoder of the source and a decoder of the target that
/// attends to it. Each block f, attention or a feed-forward layer of ReLU, makes of its rows
///
///     x = norm(x + dropout(f(x)))              norm_place = post, as published
///     x = x + dropout(f(norm(x)))              pre; each stack then ends in one more norm
/// Both stacks begin with √E·embedding[token] + sinusoid(position), with dropout. An encoder layer
/// has the blocks self-attention and feed-forward; a decoder layer causal self-attention, attention to
/// what the encoder made of the source, and feed-forward. Matrices begin as Xavier's, the three of
/// q, k, v each for itself; embeddings with N(0, 1/E), biases with 0.
///
/// Reads the fields "source", "token" and "target" of pairs. Padding behind a row's source has no
/// influence, nor has a row that only fills up the batch. As a translator it keeps the keys and values
/// of each source once for all its rows; its alignment is the mean over the heads of the last layer.
///
/// Source   Vaswani et al. 2017, arXiv:1706.03762, sections 3 and 5.4; pre: Xiong et al. 2020,
///          arXiv:2002.04745. Parameters have the names and shapes of PyTorch's nn.Transformer, with
///          "multihead_attn.in_proj_weight" in its three parts "q_proj.weight", "k_proj.weight" and
///          "v_proj.weight", and no bias of those keys: it adds the same to all scores of a query, which
///          the softmax does not see.
class TransformerSeq2seq : public Model, public Translator, public AttentionReader {
 public:
  TransformerSeq2seq(const TransformerSeq2seqConfig& config, const Device& device, DType compute,
                     const Beginning& beginning);

  Parameters& parameters() override { return parameters_; }
  Objective objective(Pass& pass, const Batch& batch, const State& state) override;
  Translator* translator() override { return this; }
  /// "cross_k_l0", "cross_v_l0", … [S, B, E] and "source_lengths" [B], which belong to all rows of a
  /// beam; "cache_k_l0", "cache_v_l0", … [steps, K·B, E] and "position" [K·B].
  State encode(Pass& pass, const Field& source, const Room& room) override;
  Step step(Pass& pass, const Tensor& token, const State& state, bool aligned) override;
  bool attends() const override { return true; }
  AttentionReader* attention_reader() override { return this; }
  std::vector<AttentionWeights> attention_weights(Pass& pass, const Batch& batch) override;

 private:
  using Product = TransformerParts::Product;
  using Norm = TransformerParts::Norm;
  /// What every block has besides its products.
  struct Block {
    std::string name;  ///< in reports
    Norm norm;
    std::uint64_t place;  ///< of its dropout; the one after it is that of its attention's weights
  };
  struct SelfAttention {
    Product in, out;
    Block block;
  };
  struct CrossAttention {
    Product q, k, v, out;
    Block block;
  };
  struct FeedForward {
    Product wide, narrow;
    Block block;
  };
  struct Layer {
    SelfAttention self;
    FeedForward feed_forward;
  };
  /// What each layer of the decoder attends to, [S, B, E].
  struct Memory {
    std::vector<Var> k, v;
    Tensor lengths{};  ///< [B] i32
  };
  /// What a step of the decoder reads on from, and what is asked of it; nothing in training.
  struct Writing {
    const State* state = nullptr;
    Tensor position{};  ///< [K·B] i64
    bool aligned = false;
    Tensor alignment{};  ///< [B, A, K, S] out: the weights of the last layer
  };

  Product declare_product(const std::string& name, std::int64_t rows, std::int64_t columns,
                          int blocks = 1);
  Block declare_block(const std::string& stack, std::int64_t layer, const char* what,
                      const char* norm);
  SelfAttention declare_self(const std::string& stack, std::int64_t layer);
  CrossAttention declare_cross(std::int64_t layer);
  FeedForward declare_feed_forward(const std::string& stack, std::int64_t layer, const char* norm);

  Var block(Pass& pass, Var x, const Block& block, const std::function<Var(Var)>& f) const;
  Var self_attended(Pass& pass, Var x, const SelfAttention& own, AttentionOptions options,
                    const KeyValueCache* cache) const;
  Var cross_attended(Pass& pass, Var x, std::size_t layer, const Memory& memory,
                     Writing& writing) const;
  Var fed_forward(Pass& pass, Var x, const FeedForward& own) const;
  AttentionOptions attention_options(Pass& pass, const Block& block) const;
  Var embedded(Pass& pass, const Tensor& token, bool of_source, const Tensor& position);
  Memory memory(Pass& pass, const Field& source);
  /// What the output layer reads of each step of token [T, rows].
  Var decoded(Pass& pass, const Tensor& token, const Memory& memory, Writing& writing);

  TransformerSeq2seqConfig config_;
  Device device_;
  Parameters parameters_;
  TransformerParts parts_{{.embed = config_.embed, .dropout = config_.dropout}, parameters_};
  std::size_t source_embedding_ = 0, target_embedding_ = 0;
  std::vector<Layer> encoder_, decoder_;
  std::vector<CrossAttention> cross_;     ///< of the decoder's layers
  Norm encoder_norm_{}, decoder_norm_{};  ///< of pre
  std::uint64_t places_ = 2;              ///< of dropout that are taken: first the embeddings'
  std::optional<OutputLayer> output_;
  std::vector<AttentionWeights>* seen_ = nullptr;  ///< where those of each block go, on request
};

}  // namespace carousel
