#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/tape/tape.h"
#include "kernels/activation/activation.h"
#include "kernels/adaptive_softmax/adaptive_softmax.h"
#include "kernels/common/random.h"
#include "kernels/pooling/pooling.h"
#include "kernels/recurrent_sequence/cell.h"
#include "kernels/recurrent_sequence/options.h"
#include "kernels/rope/rope.h"
#include "kernels/sampled_loss/sampled_loss.h"

// The vocabulary of models: one declaration and one sentence per differentiable op. What an op
// computes, and what it does with bad input, stands in its contract, kernels/<op>/<op>.h.
//
// Shapes are written slowest dimension first, and tensors are contiguous. T time steps, B batch,
// N rows (T·B when flattened), V vocabulary, E embedding width, H hidden width, A attention heads,
// D head width, S state width of an SSM, K filter length. Sequences are time-major, [T, B, ...].
namespace carousel {

/// Of a loss that is a mean: see kernels/linear_cross_entropy/linear_cross_entropy.h.
struct LossOptions {
  float label_smoothing = 0;
  Tensor row_weight = {};   ///< [N] float; empty: 1 each
  Tensor denominator = {};  ///< [1] float; empty: the count of targets that are not ignored
  float term_weight = 1;    ///< of this loss in a sum of several: scales its gradients
};

/// The cross-entropy, in nats, of softmax(logits [N, V]) and target [N]: one loss per row, [N].
Var cross_entropy(Var logits, const Tensor& target, float label_smoothing = 0);

/// Where the elements of a dropout's mask are drawn.
enum class MaskDraw : std::uint8_t {
  each,  ///< one for every element
  once,  ///< one for every [B, H] of x [T, B, H], the same at all steps: "variational" dropout
};
/// Sets elements of x to zero with the given probability and scales up the others; x itself at 0.
Var dropout(Var x, float drop_probability, const RandomSource& source,
            MaskDraw draw = MaskDraw::each);

/// The weight with elements set to zero as by dropout(), for use in its place (DropConnect; Wan et
/// al. 2013, ICML 28(3):1058; of W_hh: Merity, Keskar & Socher 2018, arXiv:1708.02182, section 2).
/// The gradient of the weight is that of the result under the mask; both are float as a parameter's.
Var weight_drop(Var weight, float drop_probability, const RandomSource& source);

/// Rows of a parameter [V, E] for token [T, B]: [T, B, E]. A vector [V] has rows of one number. With a drop_probability, whole rows of the
/// parameter are dropped, each in all its places or in none.
Var embedding(Var weight, const Tensor& token, float drop_probability = 0,
              const RandomSource& source = {});

/// The same rows for token [..., K], the K of a place side by side: [..., K·E].
Var joined_embeddings(Var weight, const Tensor& token, float drop_probability = 0,
                      const RandomSource& source = {});

/// The mean of the rows of a parameter [V, E] that token [..., K] names, without those that are
/// kNoToken: [..., E].
Var embedding_mean(Var weight, const Tensor& token);

/// x·weightᵀ + bias for x [N, E], weight [H, E] as PyTorch stores it, and bias [H]: [N, H].
Var linear(Var x, Var weight, Var bias);

/// A loss, whose gradients are written already: no gradient flows back through these values.
/// Labelled "mean loss" and "loss per target".
struct Loss {
  Var mean;        ///< [1] nats, weighted, per unit of denominator
  Var rows{};      ///< in the shape of the target: nats, not weighted, 0 where ignored
  Tensor count{};  ///< [1] i32: targets that are not ignored; empty of a sampled loss
};

/// The cross-entropy of hidden [N, H]·weight [V, H]ᵀ + bias [V] and target [N], without ever
/// holding all logits; writes the gradients of term_weight · mean at once. A bias of Var{} is
/// absent.
Loss linear_cross_entropy(Var hidden, Var weight, Var bias, const Tensor& target,
                          const LossOptions& options = {});

/// The weights of an adaptive softmax, laid out as PyTorch's nn.AdaptiveLogSoftmaxWithLoss, which
/// names them "head", "tail.k.0" and "tail.k.1".
struct AdaptiveParameters {
  struct Tail {
    Var projection;  ///< [E, H]
    Var weight;      ///< [words of the cluster, E]
  };
  AdaptiveCutoffs cutoffs;
  Var head;                 ///< [S + K, H]
  Var head_bias = {};       ///< [S + K], may be absent
  std::vector<Tail> tails;  ///< of the K clusters
};
/// −log p(target) for hidden [N, H], where p is the adaptive softmax of kernels/adaptive_softmax;
/// writes the gradients of the mean at once. The mean is the sum divided by the denominator [1] or,
/// if that is empty, by the count. On the CPU only the rows of a cluster pay for it; on CUDA, where a
/// captured step has fixed shapes, each cluster costs what it would cost with all rows.
Loss adaptive_softmax(Var hidden, const AdaptiveParameters& parameters, const Tensor& target,
                      const Tensor& denominator = {});
/// log p of all V words, float [N, V], on a tape that does not record.
Tensor adaptive_log_probabilities(Var hidden, const AdaptiveParameters& parameters);

/// How an output layer is trained on few of its words: kernels/sampled_loss/sampled_loss.h.
struct SampledOptions {
  SampledKind kind = SampledKind::softmax;
  std::int64_t samples = 0;  ///< S words that all targets share
  Tensor table = {};         ///< [V] int64: the columns of the AliasTable that they are drawn from
  Tensor log_expected = {};  ///< [V] float: the log of how often each is expected among them
  RandomSource random = {};
  Tensor denominator = {};  ///< [1] float; empty: the count of targets that are not ignored
};
/// The loss of hidden [N, H] and target [N] from the rows of weight [V, H] and bias [V] that belong
/// to the targets and to words drawn at random; both may be row-sparse. Writes the gradient of hidden
/// at once. The sum is divided by the denominator.
Loss sampled_loss(Var hidden, Var weight, Var bias, const Tensor& target,
                  const SampledOptions& options);

/// Of a loss over decisions between yes and no: see kernels/binary_choices/binary_choices.h.
struct ChoiceOptions {
  bool gradients_of_sum = false;  ///< as if each row had a step of its own
  Tensor denominator = {};        ///< [1] float; empty: the count of rows with a target
  float term_weight = 1;
};
/// The distribution of the noise of negative_sampling(), and how it is drawn.
struct NoiseWords {
  Tensor columns;            ///< [V] i64: alias_columns()
  std::int64_t words = 5;    ///< drawn for each target
  std::int64_t sharing = 1;  ///< neighbouring rows that share their words
  RandomSource source{};
};
/// The loss of telling the target of each row of hidden [..., E] from words of noise, by the rows of weight
/// [V, E]; writes its gradients at once. A target of kIgnoreTarget has a loss of 0.
Loss negative_sampling(Var hidden, Var weight, const Tensor& target, const NoiseWords& noise,
                       const ChoiceOptions& options = {});

/// A HuffmanTree on a device.
struct WordTree {
  Tensor start, node, turn;
  std::int64_t depth = 0;
};
/// The cross-entropy of each row of hidden [..., E] and its target, whose probability is that of its path
/// through a tree with a row of weight [V − 1, E] at each inner node; writes its gradients at once.
Loss hierarchical_softmax(Var hidden, Var weight, const Tensor& target, const WordTree& tree,
                          const ChoiceOptions& options = {});

/// a·b for a [N, E] and b [E, H], or a·bᵀ for b [H, E] if transpose_b: [N, H]. In both, leading
/// dimensions of the first factor are kept: [T, B, E] gives [T, B, H].
Var matmul(Var a, Var b, bool transpose_b = false);

/// a [..., A] and b [..., B] of equal leading dimensions, side by side: [..., A + B].
Var concatenate(Var a, Var b);

/// a + b of equal shapes; b may be a.
Var add(Var a, Var b);

/// x in another type, f32 or bf16; x itself if it has it. The gradient is converted back.
Var convert(Var x, DType dtype);

/// Step t of x [T, …], as [1, …]: its own memory.
Var time_step(Var x, std::int64_t t);
/// Sequences [T_i, …] one after another: [ΣT_i, …].
Var join_steps(std::span<const Var> parts);

/// Of attention: kernels/attention/attention.h says what each means.
struct AttentionOptions {
  std::int64_t heads = 1;
  std::int64_t kv_heads = 0;  ///< a divisor of heads; 0: as many
  bool causal = false;
  std::int64_t window = 0;  ///< positions that a query sees, its own the last; 0: all; causal only
  float scale = 0;          ///< of q·k; 0: 1/√D
  Tensor lengths = {};      ///< [B] i32: keys of each row; may be empty
  Tensor bias = {};  ///< [A or 1, Tq, Tk] float, added to the scores, a constant; may be empty
  float drop_probability = 0;  ///< of the weights
  RandomSource random = {};
};
/// softmax(scale·q·kᵀ)·v of each head, for q [Tq, B, A·D] and k, v [Tk, B, Akv·D], all of whose gradients
/// go their own ways: [Tq, B, A·D]. Never holds the weights.
Var attention(Var q, Var k, Var v, const AttentionOptions& options);
/// The same for queries, keys and values side by side in the rows of qkv [T, B, (A + 2·Akv)·D], which
/// are not copied: [T, B, A·D].
Var self_attention(Var qkv, const AttentionOptions& options);
/// The weights, float [B, A, Tq, Tk], before dropout: for plots, as they take the memory that attention() saves.
Tensor attention_weights(Var q, Var k, const AttentionOptions& options);
/// The same of self_attention().
Tensor self_attention_weights(Var qkv, const AttentionOptions& options);

/// Attention with scores Σ_h score[h]·tanh(q + k): for q [T, B, H], or [B, H] of one step, k [S, B, H],
/// v [S, B, D] and a parameter score of H elements: [T, B, D].
struct AdditiveAttention {
  Var y;
  Tensor weights;  ///< float [B, T, S]: how each query looks at the keys
};
/// lengths [B] i32: keys of each row; may be empty.
AdditiveAttention additive_attention(Var q, Var k, Var v, Var score, const Tensor& lengths = {});

/// The keys and values of one layer that rows have had, for generation. Entry of position p in place
/// p mod C.
struct KeyValueCache {
  Tensor k, v;      ///< [C, B, Akv·D] of the type of qkv
  Tensor position;  ///< [B] i64: tokens before; the caller moves it, after all layers
};
/// Causal self-attention of new tokens, options.lengths of them in each row, over the cache and
/// themselves; stores their keys and values in the cache. On a tape that does not record; without a bias.
Var cached_self_attention(Var qkv, const KeyValueCache& cache, const AttentionOptions& options);

/// A function of each element of x, in its shape.
Var activation(Var x, Activation kind);

/// Each row of x [..., H] with mean 0 and variance 1, times gain [H], plus bias [H], both float. A gain
/// or bias of Var{} is absent.
Var layer_norm(Var x, Var gain, Var bias, float epsilon = 1e-5F);

/// Each row of x [..., H] divided by its root mean square, times gain [H], float, which may be Var{}.
Var rms_norm(Var x, Var gain, float epsilon = 1e-5F);

struct SumAndNorm {
  Var sum, normalized;
};
/// a + b of equal shapes, and rms_norm() of that, in one pass: equal bit for bit to add() and
/// rms_norm().
SumAndNorm add_rms_norm(Var a, Var b, Var gain, float epsilon = 1e-5F);

/// kind(a) ∘ b of x [..., 2·H], of which a is the first half of each row and b the second: [..., H].
Var gated_activation(Var x, Activation kind = Activation::silu);

/// Of rope(): which columns are heads, and where the sequence begins.
struct RopeOptions {
  std::int64_t first = 0;  ///< column of the first head
  std::int64_t heads = 1, head_width = 2;
  Tensor offset = {};  ///< [B] i64 positions before the first step; empty: 0
  double base = 10'000;
  RopePairs pairs = RopePairs::halves;
};
/// x [T, B, W] with the pairs of columns of its heads turned by angles that grow with the position; the
/// other columns as they are.
Var rope(Var x, const RopeOptions& options);

/// scale·x [T, B, E] plus a row for each position: of a table [P, E], or of Var{} sinusoids. offset [B]
/// i64, on a tape that does not record: positions before the first step.
Var position_embedding(Var x, Var table, const Tensor& offset = {}, float scale = 1);

/// The mean or the maximum over the time steps of x [T, B, H], T > 0, of which row b has
/// lengths[b] (int32; empty: T each): [B, H]. A row without steps gives 0.
Var pool(Var x, Pooling kind, const Tensor& lengths = {});

/// The weights of a recurrent layer of G gates, named and laid out as PyTorch's. All but the first two
/// may be absent.
struct RecurrentParameters {
  Var weight_ih, weight_hh;        ///< [G·H, E], [G·H, P] or, block-diagonal, [G·H, P/heads]
  Var weight_hr = {};              ///< [P, H] of a projection; without it P = H
  Var bias_ih = {}, bias_hh = {};  ///< [G·H] float
  Var gain = {};      ///< [2·G·H] float, of a layer normalization: input's, recurrent part's
  Var per_unit = {};  ///< [parameters·H] float, of a cell that has such
  std::array<Var, kMostStates> start = {};  ///< [P], [H] … float: what sequences start from
};
/// The steps begin ≤ t < end that a row of the batch has; an empty tensor: from the first,
/// to the last.
struct RowRange {
  Tensor begin, end;  ///< [B] int32
  bool present() const { return begin.data() != nullptr || end.data() != nullptr; }
};
/// How a recurrent layer goes through its sequence.
struct RecurrentPath {
  Tensor reset = {};    ///< [T, B] int32, may be empty: where it is not 0, a row starts anew
  Tensor carried = {};  ///< [B] int32, may be empty: where it is 0, the initial states do not count
  RowRange rows = {};
  bool reverse = false;
  RecurrentOptions options = {};
  /// Weight of Pascanu's penalty, kernels/gradient_norm_penalty, whose gradient is added to that of W_hh:
  /// of a simple cell (tanh, relu, linear) with a dense product alone, from the first step on.
  float gradient_norm_penalty = 0;
};
struct RecurrentOutput {
  Var h;                       ///< [T, B, P]
  std::vector<Var> last;       ///< [B, P], [B, H] …, h first: the states at each row's end
  std::vector<Tensor> states;  ///< [T, B, P], [T, B, H] …: the states of all steps, values only
  Tensor gates;                ///< [T, B, G·H] activations, which the backward pass overwrites
};
/// One layer of a recurrent cell over a sequence x [T, B, E], T > 0, from the states `initial`
/// (h first; those left out or Var{} are zero, or `start`). Gradients flow from h and `last`. Labels
/// its values "<layer>, gate f", "<layer>, hidden state".
RecurrentOutput recurrent_sequence(CellKind cell, Var x, const RecurrentParameters& parameters,
                                   std::span<const Var> initial = {},
                                   const RecurrentPath& path = {});

/// The mean of h² over the steps of h [T, B, H], as a loss without rows and targets; writes the
/// gradients of term_weight · mean at once. For training alone.
Loss activation_penalty(Var h, float term_weight, const RowRange& rows = {});
/// The same of (h[t+1] − h[t])², over the pairs of steps of which the second does not reset.
Loss temporal_penalty(Var h, float term_weight, const Tensor& reset = {},
                      const RowRange& rows = {});

}  // namespace carousel
