#include "kernels/adaptive_softmax/adaptive_softmax.h"

#include <fmt/format.h>

#include <algorithm>
#include <type_traits>

#include "engine/ops.h"
#include "kernels/combine/combine.h"
#include "kernels/common/check.h"
#include "kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "kernels/matmul/matmul.h"

namespace carousel {
namespace {

/// Which rows belong to which softmax: the outputs of AdaptiveRoute.
struct Routes {
  Tensor head_target;        ///< [N]
  Tensor row, local, place;  ///< [K, N]
  Tensor count;              ///< [K]
  Tensor counted;            ///< [1]
};

template <class A>
Routes route(Tape& tape, const Tensor& target, const AdaptiveCutoffs& cutoffs) {
  const std::int64_t rows = target.size(), clusters = cutoffs.clusters;
  const auto ids = [&](Shape shape) { return tape.tensor(shape, DType::i32); };
  const Routes to{.head_target = ids({rows}),
                  .row = ids({clusters, rows}),
                  .local = ids({clusters, rows}),
                  .place = ids({clusters, rows}),
                  .count = ids({clusters}),
                  .counted = tape.tensor({1}, dtype_of<A>())};
  run(tape.device(), AdaptiveRoute<A>{.cutoffs = cutoffs,
                                      .target = target.view<std::int32_t, 1>(),
                                      .head_target = to.head_target.mutable_view<std::int32_t, 1>(),
                                      .row = to.row.mutable_view<std::int32_t, 2>(),
                                      .local = to.local.mutable_view<std::int32_t, 2>(),
                                      .place = to.place.mutable_view<std::int32_t, 2>(),
                                      .count = to.count.mutable_view<std::int32_t, 1>(),
                                      .counted = to.counted.mutable_view<A, 1>()});
  return to;
}

/// Row `index` of a matrix.
Tensor entry(const Tensor& matrix, std::int64_t index) {
  return matrix.slice(index, 1).reshaped({matrix.shape()[1]});
}

/// How many rows the tensors of a cluster have. The host knows the exact number on the CPU alone. A
/// CUDA device runs ahead of it, and a captured step has the shapes of every step to come: there a
/// cluster has room for all rows, those beyond its own are zeros with ignored targets.
std::int64_t room_for(const Tape& tape, const Routes& routes, std::int64_t cluster) {
  return is_cpu(tape.device()) ? routes.count.view<std::int32_t, 1>()(cluster)
                               : routes.head_target.size();
}

/// The losses of the head's softmax and of the clusters', and their gradients, all of them at once.
template <class T>
class AdaptiveLoss {
 public:
  using A = Accumulator<T>;
  AdaptiveLoss(Var hidden, const AdaptiveParameters& parameters, const Tensor& target,
               const Tensor& denominator)
      : tape_(hidden.tape()),
        hidden_(hidden),
        parameters_(parameters),
        routes_(route<A>(tape_, target, parameters.cutoffs)),
        denominator_(denominator ? denominator : routes_.counted),
        rows_(tape_.tensor(target.shape(), dtype_of<A>())),
        mean_(tape_.tensor({1}, dtype_of<A>())),
        count_(tape_.tensor({1}, DType::i32)),
        x_(tape_.tensor({rows_.size(), hidden.shape().back()}, dtype_of<T>())) {
    add_head();
    for (std::size_t k = 0; k < parameters.tails.size(); ++k) add_cluster(k);
  }
  const Tensor& rows() const { return rows_; }
  const Tensor& mean() const { return mean_; }
  const Tensor& count() const { return count_; }

 private:
  void add_head() {
    const Var bias = parameters_.head_bias;
    LinearCrossEntropy<T> op{.hidden = hidden_.value().view<T, 2>(),
                             .weight = parameters_.head.value().view<T, 2>(),
                             .target = routes_.head_target.view<std::int32_t, 1>(),
                             .denominator = denominator_.view<A, 1>(),
                             .loss = rows_.mutable_view<A, 1>(),
                             .mean_loss = mean_.mutable_view<A, 1>(),
                             .count = count_.mutable_view<std::int32_t, 1>(),
                             .d_hidden = hidden_.gradient().as<T, 2>(),
                             .d_weight = parameters_.head.gradient().as<A, 2>(),
                             .tf32 = tape_.tf32()};
    if (bias.present()) {
      op.bias = bias.value().view<A, 1>();
      op.d_bias = bias.gradient().as<A, 1>();
    }
    tape_.run_with_scratch(op);
  }

  /// Memory is taken for all rows, so that a step asks for the same whatever its targets are.
  Tensor for_rows(std::int64_t count, std::int64_t width) const {
    return tape_.tensor({rows_.size(), width}, dtype_of<T>()).slice(0, count);
  }

  void add_cluster(std::size_t k) {
    const auto index = static_cast<std::int64_t>(k);
    const auto& [projection, weight] = parameters_.tails[k];
    const std::int64_t room = room_for(tape_, routes_, index), narrow = projection.shape()[0];
    const Tensor row = entry(routes_.row, index).slice(0, room);
    const Tensor place = entry(routes_.place, index);
    const Tensor x = x_.slice(0, room), z = for_rows(room, narrow);
    select(hidden_.value(), row, {x});
    multiply({.a = x.view<T, 2>(),
              .b = projection.value().view<T, 2>(),
              .c = z.mutable_view<T, 2>(),
              .transpose_b = true});
    const Tensor d_z = tape_.recording() ? for_rows(room, narrow) : Tensor{};
    add_tail(z, d_z, entry(routes_.local, index).slice(0, room), place, weight);
    if (!d_z) return;
    multiply({.a = d_z.view<T, 2>(), .b = x.view<T, 2>(), .c = {}, .transpose_a = true},
             projection.gradient());
    const GradientTarget d_hidden = hidden_.gradient();
    if (!d_hidden.tensor) return;
    multiply({.a = d_z.view<T, 2>(),
              .b = projection.value().view<T, 2>(),
              .c = x.mutable_view<T, 2>()});  // in place of x, which nothing reads any more
    select(x, place, d_hidden);
  }

  /// A cluster's losses, added to the others, and the gradients of its projected rows z and weight.
  void add_tail(const Tensor& z, const Tensor& d_z, const Tensor& local, const Tensor& place,
                Var weight) {
    const Tensor loss = tape_.tensor({rows_.size()}, dtype_of<A>()).slice(0, local.size());
    const Tensor mean = tape_.tensor({1}, dtype_of<A>()), count = tape_.tensor({1}, DType::i32);
    run_with_most_scratch({.hidden = z.view<T, 2>(),
                           .weight = weight.value().view<T, 2>(),
                           .target = local.view<std::int32_t, 1>(),
                           .denominator = denominator_.view<A, 1>(),
                           .loss = loss.mutable_view<A, 1>(),
                           .mean_loss = mean.mutable_view<A, 1>(),
                           .count = count.mutable_view<std::int32_t, 1>(),
                           .d_hidden = {d_z.mutable_view<T, 2>()},
                           .d_weight = weight.gradient().as<A, 2>(),
                           .tf32 = tape_.tf32()});
    run(tape_.device(),
        SelectRows<A>{.from = {loss.view<A, 1>().data, {loss.size(), 1}},
                      .row = place.view<std::int32_t, 1>(),
                      .to = {{rows_.mutable_view<A, 1>().data, {rows_.size(), 1}}, true}});
    run(tape_.device(),
        Add<A>{.a = mean_.view<A, 1>(), .b = mean.view<A, 1>(), .y = mean_.mutable_view<A, 1>()});
  }

  /// With as much scratch memory as all rows want, unless these few want more.
  void run_with_most_scratch(LinearCrossEntropy<T> op) const {
    LinearCrossEntropy<T> all = op;
    all.hidden.extent[0] = rows_.size();
    const Device& device = tape_.device();
    const auto bytes =
        static_cast<std::int64_t>(std::max(scratch_bytes(device, op), scratch_bytes(device, all)));
    const Tensor memory = tape_.tensor({(bytes + 3) / 4}, DType::i32);
    op.scratch = {static_cast<std::byte*>(memory.mutable_data()), {bytes}};
    run(device, op);
  }
  void select(const Tensor& from, const Tensor& row, const GradientTarget& to) const {
    run(tape_.device(),
        SelectRows<T>{
            .from = from.view<T, 2>(), .row = row.view<std::int32_t, 1>(), .to = to.as<T, 2>()});
  }
  void multiply(Matmul<T> op) const {
    op.tf32 = tape_.tf32();
    run(tape_.device(), op);
  }
  /// The same for the gradient of a weight, which is an Accumulator<T>; nothing if nobody asks for
  /// it.
  void multiply(const Matmul<T, A>& factors, const GradientTarget& to) const {
    if (!to.tensor) return;
    Matmul<T, A> op = factors;
    op.c = to.tensor.mutable_view<A, 2>();
    op.accumulate = to.accumulate;
    op.tf32 = tape_.tf32();
    run(tape_.device(), op);
  }

  Tape& tape_;
  Var hidden_;
  const AdaptiveParameters& parameters_;
  Routes routes_;
  Tensor denominator_, rows_, mean_, count_;
  Tensor x_;  ///< [N, H] a cluster's rows, and then their gradients
};

/// Writes the columns of y that one part of the vocabulary has.
template <class T>
void add_columns(const Tape& tape, const AdaptiveCutoffs& cutoffs, const Tensor& head,
                 const Tensor& tail, int cluster, const Tensor& y) {
  run(tape.device(), AdaptiveLogProbabilities<T>{.cutoffs = cutoffs,
                                                 .head = head.view<T, 2>(),
                                                 .tail = tail.view<T, 2>(),
                                                 .cluster = cluster,
                                                 .y = y.mutable_view<Accumulator<T>, 2>()});
}

}  // namespace

Loss adaptive_softmax(Var hidden, const AdaptiveParameters& parameters, const Tensor& target,
                      const Tensor& denominator) {
  return visit_float(hidden.dtype(), [&]<class T>(std::type_identity<T>) {
    Tape& tape = hidden.tape();
    const AdaptiveLoss<T> loss(hidden, parameters, target, denominator);
    const Var per_row = tape.output(loss.rows(), {}), of_all = tape.output(loss.mean(), {});
    tape.label(per_row, {.name = "loss per target",
                         .axes = loss.rows().shape().rank() == 2 ? Axes::sequence : Axes::parameter,
                         .forward = kLinearCrossEntropyTolerance,
                         .backward = kLinearCrossEntropyGradientTolerance});
    tape.label(of_all, {.name = "mean loss", .axes = Axes::parameter});
    return Loss{.mean = of_all, .rows = per_row, .count = loss.count()};
  });
}

Tensor adaptive_log_probabilities(Var hidden, const AdaptiveParameters& parameters) {
  Tape& tape = hidden.tape();
  if (tape.recording())
    throw Error("adaptive_log_probabilities: the tape records, and it has no gradient");
  const AdaptiveCutoffs& cutoffs = parameters.cutoffs;
  return visit_float(hidden.dtype(), [&]<class T>(std::type_identity<T>) {
    const Var head = parameters.head_bias.present()
                         ? linear(hidden, parameters.head, parameters.head_bias)
                         : matmul(hidden, parameters.head, true);
    const Tensor y =
        tape.tensor(hidden.shape().with_last(cutoffs.vocabulary()), dtype_of<Accumulator<T>>());
    add_columns<T>(tape, cutoffs, head.value(), {}, 0, y);
    for (std::size_t k = 0; k < parameters.tails.size(); ++k) {
      const auto& [projection, weight] = parameters.tails[k];
      const Var tail = matmul(matmul(hidden, projection, true), weight, true);
      add_columns<T>(tape, cutoffs, head.value(), tail.value(), static_cast<int>(k), y);
    }
    return y;
  });
}

}  // namespace carousel
