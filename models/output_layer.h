#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/config/options.h"
#include "engine/model/model.h"
#include "engine/text/vocabulary.h"

namespace carousel {

/// How the output layer of a language model is made and trained.
struct OutputConfig {
  enum class Kind : std::uint8_t { full, adaptive, sampled, nce };
  enum class Sampler : std::uint8_t { log_uniform, unigram };

  Kind kind = Kind::full;
  std::string cutoffs = "2000, 10000";  ///< first words of the clusters
  double div_value = 4;                 ///< of each cluster's width, over that of the one before
  std::int64_t samples = 1024;          ///< S words drawn for a batch
  Sampler sampler = Sampler::log_uniform;
  // Of the model that has the layer.
  std::string name = "output";  ///< its parameters' names begin with this
  bool bias = true;             ///< whether a full layer has one
  /// Of the vocabulary: whether its words are in order of falling frequency, and how often each
  /// occurs.
  bool by_count = true;
  std::vector<std::int64_t> counts{};

  bool draws() const { return kind == Kind::sampled || kind == Kind::nce; }

  void describe(OptionSection& section);
  void take(const Vocabulary& vocabulary);
  /// ConfigError "<what>, and neither bytes nor … are in order of frequency …" unless by_count.
  void expect_by_count(const char* what) const;
};

/// The layer that gives p(next word) for hidden units [.., H].
///
///     full      softmax(weight·h + bias); PyTorch's nn.Linear "output", with bias or without
///     adaptive  kernels/adaptive_softmax, cluster k of width H / div_value^(k + 1); PyTorch's
///               nn.AdaptiveLogSoftmaxWithLoss "output" with head_bias
///     sampled   a full layer trained by the sampled softmax of kernels/sampled_loss
///     nce       a full layer trained by noise-contrastive estimation, the same op
///
/// sampled and nce draw S words for a batch, w in proportion to log((w + 2) / (w + 1)) or as often
/// as it occurs. Their matrix [V, H] and bias [V] are row-sparse; a tied matrix is dense. The bias
/// begins at the log of this probability: how often words occur is not to be learnt from rows of
/// which a step touches few, and the normaliser is near 1, which nce takes it for.
///
/// Evaluation has the exact loss, −log p(target) in nats, of each kind.
class OutputLayer {
 public:
  struct Sizes {
    std::int64_t vocabulary = 0, width = 0;  ///< V, H
  };
  /// How weights begin.
  struct Beginnings {
    Initializer matrix, bias;
  };
  /// Declares the parameters. `tied`, a parameter [V, H], takes the place of the matrix of a full
  /// layer. ConfigError where that is none or the cutoffs do not suit the vocabulary.
  OutputLayer(const OutputConfig& config, const Sizes& sizes, const Beginnings& beginnings,
              Parameters& parameters, const std::size_t* tied);
  /// Makes the table that words are drawn from. Once the parameters are materialised.
  void materialize();

  /// ConfigError if label smoothing is asked for and the kind has none.
  void expect_smoothing(double label_smoothing) const;

  /// The mean loss of a batch; its gradients are written.
  Loss loss(const Pass& pass, Var hidden, const Tensor& target, double label_smoothing) const;
  /// Unnormalised log-probabilities [B, V] for hidden [B, H].
  Tensor logits(const Pass& pass, Var hidden) const;
  /// The likeliest word for each of hidden [.., H], i32; −1 where logits are no numbers. Not more than
  /// some rows of logits are held at once.
  Tensor likeliest(const Pass& pass, const Tensor& hidden) const;

 private:
  static constexpr std::size_t kAbsent = SIZE_MAX;
  void declare_clusters(const Sizes& sizes, const Beginnings& beginnings);
  void declare_full(const Sizes& sizes, const Beginnings& beginnings, const std::size_t* tied);
  Loss sampled(const Pass& pass, Var hidden, const Tensor& target) const;
  Var bias(Tape& tape) const;  ///< Var{} if there is none
  AdaptiveParameters clusters(Tape& tape) const;

  OutputConfig config_;
  Parameters& parameters_;
  std::size_t weight_ = 0, bias_ = kAbsent;  ///< of a full layer, or of the head
  AdaptiveCutoffs cutoffs_{};
  std::vector<std::size_t> projections_, tails_;
  Tensor table_, log_expected_;  ///< [V] of the sampler
};

}  // namespace carousel
