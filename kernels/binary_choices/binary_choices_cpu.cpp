#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/binary_choices/binary_choices.h"
#include "kernels/common/check.h"
#include "kernels/common/cpu_math.h"
#include "kernels/common/cpu_parallel.h"
#include "kernels/cross_entropy/row.h"
#include "kernels/embedding/embedding_scratch.h"

namespace carousel {
namespace {

/// Σ a·b in lanes that are added as a tree.
template <class A, class T>
A dot(const A* a, const T* b, std::int64_t size) {
  row::Block<A> sum{};
  std::int64_t first = 0;
  for (; first + row::kLanes <= size; first += row::kLanes) {
#pragma omp simd
    for (int l = 0; l < row::kLanes; ++l) {
      sum.lane[l] = std::fma(a[first + l], row::widened<A>(b[first + l]), sum.lane[l]);
    }
  }
  for (std::int64_t i = first; i < size; ++i) {
    sum.lane[i - first] = std::fma(a[i], row::widened<A>(b[i]), sum.lane[i - first]);
  }
#pragma GCC unroll 4
  for (int half = row::kLanes / 2; half > 0; half /= 2) {
#pragma omp simd
    for (int l = 0; l < half; ++l) sum.lane[l] += sum.lane[l + half];
  }
  return sum.lane[0];
}

/// The buffers of a thread.
template <class A>
struct Room {
  std::vector<A> hidden, d_hidden, logit, d_logit, loss;
  Room(std::int64_t width, std::int64_t choices)
      : hidden(static_cast<std::size_t>(width)),
        d_hidden(static_cast<std::size_t>(width)),
        logit(static_cast<std::size_t>(choices)),
        d_logit(static_cast<std::size_t>(choices)),
        loss(static_cast<std::size_t>(choices)) {}
};

template <class T>
class Rows {
  using A = Accumulator<T>;

 public:
  explicit Rows(const BinaryChoices<T>& op)
      : op_(op),
        width_(op.hidden.extent[1]),
        choices_(op.choice.extent[1]),
        vocab_(op.weight.extent[0]),
        scale_(op.d_logit.present() || op.d_hidden.present() ? op.scale() : A{0}) {}

  void run(std::int64_t n, Room<A>& room) const {
    const std::int32_t* const choice = op_.choice.data + n * choices_;
    if (choice[0] == kNoToken) return leave(n);
    const T* const hidden = op_.hidden.data + n * width_;
    for (std::int64_t e = 0; e < width_; ++e) room.hidden[at(e)] = row::widened<A>(hidden[e]);
    for (std::int64_t c = 0; c < choices_; ++c) {
      const bool known = known_token(choice[c], vocab_);
      room.logit[at(c)] =
          known ? dot(room.hidden.data(), op_.weight.data + choice[c] * width_, width_)
                : static_cast<A>(NAN);
    }
    decide(n, room);
    A sum = 0;
    for (const A each : room.loss) sum += each;
    op_.loss(n) = sum;
    if (op_.d_logit.present()) {
      std::copy(room.d_logit.begin(), room.d_logit.end(), op_.d_logit.data + n * choices_);
    }
    if (op_.d_hidden.present()) write_d_hidden(n, room);
  }

 private:
  static std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

  /// The row does not count.
  void leave(std::int64_t n) const {
    op_.loss(n) = 0;
    if (op_.d_logit.present()) std::fill_n(op_.d_logit.data + n * choices_, choices_, A{0});
    if (op_.d_hidden.present() && !op_.d_hidden.accumulate) {
      std::fill_n(op_.d_hidden.view.data + n * width_, width_, static_cast<T>(A{0}));
    }
  }

  /// Losses of the choices and their derivatives, from the logits: as vectors.
  void decide(std::int64_t n, Room<A>& room) const {
    const std::int32_t* const choice = op_.choice.data + n * choices_;
    const std::int32_t* const answer = op_.answer.data + n * choices_;
    const A *const logit = room.logit.data(), scale = scale_;
    A *const loss = room.loss.data(), *const d_logit = room.d_logit.data();
#pragma GCC ivdep
    for (std::int64_t c = 0; c < choices_; ++c) {
      const A sign = answer[c] != 0 ? A{1} : A{-1};
      const A right = sign * logit[c];
      const bool none = choice[c] == kNoToken;
      const A nats = -cpu_log_sigmoid(right), slope = -sign * scale * cpu_sigmoid(-right);
      loss[c] = none ? A{0} : nats;
      d_logit[c] = none ? A{0} : slope;
    }
  }

  void write_d_hidden(std::int64_t n, Room<A>& room) const {
    A* const sum = room.d_hidden.data();
    std::fill(room.d_hidden.begin(), room.d_hidden.end(), A{0});
    for (std::int64_t c = 0; c < choices_; ++c) {
      const std::int32_t id = op_.choice(n, c);
      if (id == kNoToken) continue;
      const A times = room.d_logit[at(c)];
      if (!known_token(id, vocab_)) {
        std::fill(room.d_hidden.begin(), room.d_hidden.end(), static_cast<A>(NAN));
        continue;
      }
      const T* const weight = op_.weight.data + id * width_;
#pragma GCC ivdep
      for (std::int64_t e = 0; e < width_; ++e) {
        sum[e] = std::fma(times, row::widened<A>(weight[e]), sum[e]);
      }
    }
    T* const to = op_.d_hidden.view.data + n * width_;
    if (op_.d_hidden.accumulate) {
#pragma GCC ivdep
      for (std::int64_t e = 0; e < width_; ++e) row::narrow(sum[e] + row::widened<A>(to[e]), to[e]);
    } else {
#pragma GCC ivdep
      for (std::int64_t e = 0; e < width_; ++e) row::narrow(sum[e], to[e]);
    }
  }

  const BinaryChoices<T>& op_;
  std::int64_t width_, choices_, vocab_;
  A scale_;
};

}  // namespace

template <class T>
void BinaryChoices<T>::check() const {
  const auto [rows, width] = hidden.extent;
  const std::int64_t choices = choice.extent[1];
  expect_extent("binary_choices: columns of weight", weight.extent[1], width);
  if (width > kMostBinaryChoiceColumns) {
    throw ShapeError(fmt::format("binary_choices: columns of hidden is {}, expected at most {}",
                                 width, kMostBinaryChoiceColumns));
  }
  expect_extent("binary_choices: rows of choice", choice.extent[0], rows);
  expect_at_least("binary_choices: columns of choice", choices, 1);
  expect_extent("binary_choices: rows of answer", answer.extent[0], rows);
  expect_extent("binary_choices: columns of answer", answer.extent[1], choices);
  if (denominator.present()) {
    expect_extent("binary_choices: elements of denominator", denominator.extent[0], 1);
  }
  expect_extent("binary_choices: elements of loss", loss.extent[0], rows);
  expect_extent("binary_choices: elements of mean_loss", mean_loss.extent[0], 1);
  expect_extent("binary_choices: elements of count", count.extent[0], 1);
  if (d_logit.present()) {
    expect_extent("binary_choices: rows of d_logit", d_logit.extent[0], rows);
    expect_extent("binary_choices: columns of d_logit", d_logit.extent[1], choices);
  }
  if (d_hidden.present()) {
    expect_extent("binary_choices: rows of d_hidden", d_hidden.view.extent[0], rows);
    expect_extent("binary_choices: columns of d_hidden", d_hidden.view.extent[1], width);
  }
  if (!std::isfinite(term_weight)) {
    throw ConfigError(
        fmt::format("binary_choices: term_weight is {}, expected a finite number", term_weight));
  }
}

template <class T>
void BinaryChoices<T>::run(const Cpu&) const {
  const auto [rows, width] = hidden.extent;
  const std::int64_t choices = choice.extent[1];
  std::int32_t counted = 0;
  for (std::int64_t n = 0; n < rows; ++n) counted += choice(n, 0) != kNoToken ? 1 : 0;
  count(0) = counted;
  const Rows<T> each(*this);
#pragma omp parallel if (rows * choices * width > kCpuChunk)
  {
    Room<Accumulator<T>> room(width, choices);
#pragma omp for schedule(static)
    for (std::int64_t n = 0; n < rows; ++n) each.run(n, room);
  }
  row::Block<Accumulator<T>> sum{};
  row::fold(sum, loss.data, rows, Accumulator<T>{0},
            [](auto so_far, auto x) { return so_far + x; });
  const Accumulator<T> by = divisor();
  mean_loss(0) = by == 0 ? Accumulator<T>{0} : row::total(sum) / by;
}

template struct BinaryChoices<float>;
template struct BinaryChoices<bf16>;
template struct BinaryChoices<double>;

}  // namespace carousel
