#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine/config/options.h"
#include "engine/model/estimator.h"
#include "engine/model/model.h"
#include "models/ngram/ngram_counts.h"

namespace carousel {

struct KneserNeyConfig {
  std::int64_t vocabulary = 0;  ///< V, from the data
  std::int32_t begin = -1;      ///< <bos>, from the data
  int order = 5;                ///< N
  std::int64_t sort_bytes = std::int64_t{1} << 28;

  void describe(OptionSection& section);
};

/// N-gram language model with interpolated Kneser-Ney smoothing:
///
///     p_k(w | h) = (max(c(h w) − D_k, 0) + D_k · N₁₊(h •) · p_{k−1}(w | h')) / Σ_v c(h v)
///
/// for k = 1 … N, with h the last k − 1 tokens, h' all of them but the farthest, and p_0 uniform over
/// the tokens that may come. c counts n-grams as count_ngrams() says; N₁₊(h •) is how many different
/// tokens follow h. A history that was never seen, or is shorter, gets p of the longest that was.
/// D_k = n₁ / (n₁ + 2 n₂), where n_i n-grams of order k have a count of i, and ½ if n₁ is 0, so that
/// every token has a probability.
///
/// Source   Kneser & Ney 1995, ICASSP, 181–184; Chen & Goodman 1999, Computer Speech and Language
///          13:359–394, section 2.7 and equation 20.
class KneserNey final : public Model, public Decoder, public Estimator {
 public:
  /// The beginning means nothing: nothing is random.
  KneserNey(const KneserNeyConfig& config, const Device& device, DType compute,
            const Beginning& beginning);

  Parameters& parameters() override { return parameters_; }
  /// "history" [B, N − 1] i32, nearest first: token + 1, or 0 where nothing was read.
  State initial_state(std::int64_t batch) const override;
  Objective objective(Pass& pass, const Batch& batch, const State& state) override;
  Decoder* decoder() override { return this; }
  State decoding_state(std::int64_t batch) const override { return initial_state(batch); }
  Tensor logits(Pass& pass, const Field& token, const State& state) override;

  Estimator* estimator() override { return this; }
  bool fit(const Fit& fit) override;
  std::vector<NamedTensor> tables() const override;
  void load(const SafetensorsFile& file) override;
  std::string summary() const override;

  /// p(token | history), nearest token first, −1 from where on nothing was read.
  double probability(std::span<const std::int32_t> history, std::int32_t token) const;
  /// The same of all tokens: V numbers that sum to 1.
  void probabilities(std::span<const std::int32_t> history, std::span<double> all) const;
  double discount(int order) const { return orders_[static_cast<std::size_t>(order) - 1].discount; }

 private:
  /// An order, ready to be looked up.
  struct Order {
    NgramOrder ngrams;
    std::vector<std::int64_t> total;  ///< [C] Σ c(h v)
    double discount = 0;
  };
  /// What an order says of a context.
  struct Context {
    std::span<const std::int32_t> token;
    std::span<const std::int64_t> count;
    double total, discount;
    double backed_off() const { return discount * static_cast<double>(token.size()) / total; }
  };
  template <class F>
  void each_context(std::span<const std::int32_t> history, F&& f) const;
  void take(std::vector<NgramOrder> orders);

  KneserNeyConfig config_;
  Parameters parameters_;
  std::int32_t boundary_ = -1;  ///< NgramOptions::boundary
  std::vector<Order> orders_;   ///< element k − 1 is order k
};

}  // namespace carousel
