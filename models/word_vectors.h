#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/config/options.h"
#include "engine/model/model.h"

namespace carousel {

struct WordVectorsConfig {
  // From the data.
  std::vector<std::int64_t> counts{};   ///< [V] how often each word occurs
  std::vector<std::int32_t> special{};  ///< ids that are no words: left out of texts and noise

  std::int64_t embed = 100;  ///< E
  double embed_range = 0;    ///< the embedding begins with U(±this); 0: ½ / E, as word2vec's
  std::int64_t window = 5;   ///< words to either side, at most
  double subsample = 1e-3;   ///< of frequent words; 0: all are kept
  std::string output = "negative_sampling";  ///< or hierarchical_softmax, softmax
  std::int64_t negatives = 5;
  std::int64_t share_negatives = 1;  ///< neighbouring predictions that have the same words of noise
  double noise_power = 0.75;
  std::string gradient = "sum";  ///< or mean
  std::int64_t hidden = 0;       ///< units of a linear layer before the output; 0: none
  double label_smoothing = 0;    ///< of softmax

  void describe(OptionSection& section);
  std::int64_t vocabulary() const { return std::ssize(counts); }
};

/// Vectors of words, learnt from the words around them in windows of drawn width; see WordWindows. CBOW
/// predicts a word from the mean of its context's vectors, skip-gram from the vector of each word of the
/// context. Both have as output one of
///
///     negative_sampling     σ(v · h) tells the word from `negatives` words of noise, which are drawn with
///                           a probability proportional to count^noise_power
///     hierarchical_softmax  the decisions on the word's path through a HuffmanTree
///     softmax               softmax(W h + b) over all words
///
/// where h is the vector, or the mean, itself or behind a linear layer. The loss is a mean over what is
/// predicted, also where its gradients are those of the sum: then a learning rate is that of a single
/// word, as in word2vec, however many words a step has. All gradients of a step are taken at the
/// weights it begins with, so that a step of very many words is one of stale gradients for frequent
/// ones. In evaluation all words are kept and windows are whole.
///
/// The embedding and the output of the first two are row-sparse: a step costs what its words cost.
///
/// Source   Mikolov, Chen, Corrado & Dean 2013, arXiv:1301.3781; Mikolov, Sutskever, Chen, Corrado & Dean
///          2013, arXiv:1310.4546; how often a word is kept is the formula of their program, √(t/f) +
///          t/f for a share f of all words. Parameters have the names of PyTorch's nn.Embedding
///          "embedding", nn.Linear "hidden" and "output".
class WordVectors : public Model, public Embedder {
 public:
  enum class Kind : std::uint8_t { cbow, skipgram };
  WordVectors(Kind kind, const WordVectorsConfig& config, const Device& device, DType compute,
              const Beginning& beginning);

  Parameters& parameters() override { return parameters_; }
  Objective objective(Pass& pass, const Batch& batch, const State& state) override;
  Embedder* embedder() override { return this; }
  Units units() const override { return {.forward = config_.embed}; }
  bool reads_whole_lines() const override { return false; }
  /// The vectors of the tokens themselves.
  Tensor hidden(Pass& pass, const Batch& batch, const State& state) override;
  Tensor token_embeddings() const override { return parameters_.weight(embedding_); }

 private:
  /// Contexts and what is predicted of them: a word for each context, or for each word of it.
  struct Windows {
    Tensor context;  ///< [T, B, 2 · window]
    Tensor target;   ///< [T, B] of CBOW, [T, B, 2 · window] of skip-gram
  };
  Windows windows(const Pass& pass, const Batch& batch) const;
  Loss loss(const Pass& pass, Var h, const Tensor& target);
  NoiseWords noise(const Pass& pass) const;
  void declare();
  void count_words();

  Kind kind_;
  WordVectorsConfig config_;
  Device device_;
  Parameters parameters_;
  std::size_t embedding_ = 0, hidden_weight_ = 0, hidden_bias_ = 0, output_ = 0, output_bias_ = 0;
  Tensor keep_;        ///< [V] f32
  NoiseWords noise_;   ///< of negative_sampling
  WordTree tree_;      ///< of hierarchical_softmax
  Tensor first_step_;  ///< [1] i64: of draws in evaluation
};

struct CbowConfig : WordVectorsConfig {};
class Cbow final : public WordVectors {
 public:
  Cbow(const CbowConfig& config, const Device& device, DType compute, const Beginning& beginning)
      : WordVectors(Kind::cbow, config, device, compute, beginning) {}
};

struct SkipgramConfig : WordVectorsConfig {};
class Skipgram final : public WordVectors {
 public:
  Skipgram(const SkipgramConfig& config, const Device& device, DType compute,
           const Beginning& beginning)
      : WordVectors(Kind::skipgram, config, device, compute, beginning) {}
};

}  // namespace carousel
