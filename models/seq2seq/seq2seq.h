#pragma once

#include <cstdint>
#include <vector>

#include "engine/model/attention_reader.h"
#include "engine/model/translator.h"
#include "models/seq2seq/bridge.h"
#include "models/seq2seq/source_attention.h"

namespace carousel {

/// Writes a text conditioned by another: a recurrent encoder reads the source, a recurrent decoder
/// writes the target, and looks at the source's steps as model.attention says.
///
///     m_s = encoder(embedding_s[source_1 … source_S]),   the decoder begins with the encoder's last
///                                                        states (Bridge)
///     h_t = decoder(embedding_t[token_1 … token_t]),     h̃_t: SourceAttention
///     p(token_{t+1} | token_1 … token_t, source) = softmax(W h̃_t + b), or as model.output says
///
/// With model.input_feeding the decoder reads [embedding_t[token_t]; h̃_{t−1}], h̃_0 = 0, and with
/// additive attention what the step looks at; both go step by step. Otherwise nothing loops over target
/// steps, for all queries are known at once.
///
/// With model.scheduled_sampling a batch of training is first written token by token: token_{t+1} is the
/// target's, as kernels/scheduled_tokens draws by seed, optimiser step and element t·B + b, or the
/// likeliest after those before it. The objective is that of these tokens, which are constants to its
/// gradients. Evaluation reads the target's.
///
/// Source   Sutskever, Vinyals & Le 2014, arXiv:1409.3215; Luong, Pham & Manning 2015,
///          arXiv:1508.04025, sections 3.1 and 3.3 (attention after the recurrence, input feeding);
///          Press & Wolf 2017, arXiv:1608.05859 (tied weights); Bengio, Vinyals, Jaitly & Shazeer 2015,
///          arXiv:1506.03099 (scheduled sampling). Parameters have PyTorch's names behind "encoder."
///          and "decoder.".
class Seq2Seq : public Model, public Translator, public AttentionReader {
 public:
  Seq2Seq(const Seq2SeqConfig& config, const Device& device, DType compute,
          const Beginning& beginning);

  Parameters& parameters() override { return parameters_; }
  Objective objective(Pass& pass, const Batch& batch, const State& state) override;
  Translator* translator() override { return this; }
  /// The decoder's "h_l0", … [K·B, H], if it attends "memory" [S, B, H] or, with scores of sums,
  /// "memory" [S, B, n] and "keys" [S, B, H], and "lengths" [B]; with input feeding "attended" [K·B, H].
  State encode(Pass& pass, const Field& source, const Room& room) override;
  Step step(Pass& pass, const Tensor& token, const State& state, bool aligned) override;
  bool attends() const override { return config_.attends(); }
  AttentionReader* attention_reader() override { return config_.attends() ? this : nullptr; }
  /// Of a batch of one row: ShapeError for more.
  std::vector<AttentionWeights> attention_weights(Pass& pass, const Batch& batch) override;

 private:
  /// What the decoder is given of the sources.
  struct Given {
    SourceAttention::Memory memory;
    std::vector<Var> initial;
  };
  /// What the output layer reads of each target step: [T, B, H].
  struct Steps {
    Var y;
    std::vector<LossTerm> penalties{};
  };
  Given read(Pass& pass, const Field& source) const;
  /// Where a decoder stands that goes step by step.
  struct Place {
    std::vector<Var> states;
    Var fed{};  ///< what it reads besides its tokens, if it does
    std::int64_t step = 0;
    Encoder::Loop loop{};
  };
  Place beginning(Tape& tape, const Given& given, std::int64_t rows) const;
  Var advanced(Pass& pass, Var x, Place& place, const Given& given) const;
  Steps decoded(Pass& pass, const Field& token, const Given& given) const;
  Var stepped(Pass& pass, Var x, const Given& given) const;
  Tensor scheduled_tokens(Pass& pass, const Tensor& token, const Given& given) const;
  std::size_t top_state() const;  ///< the place of the top layer's h among the decoder's states
  static Var with_fed(Tape& tape, Var x, Var before);

  Seq2SeqConfig config_;
  Device device_;
  Parameters parameters_;
  std::size_t embedding_, source_embedding_;
  Encoder encoder_, decoder_;
  Bridge bridge_;
  SourceAttention attention_;
  OutputLayer output_;
};

}  // namespace carousel
