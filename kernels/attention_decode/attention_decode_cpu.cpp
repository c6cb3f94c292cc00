#include <omp.h>

#include "kernels/attention/cpu_tile.h"
#include "kernels/attention_decode/attention_decode.h"
#include "kernels/attention_decode/ring.h"

// One query of one head at a time: with few queries the op costs what reading the keys costs.
namespace carousel {
namespace {

using attention_cpu::kLanes;
using attention_cpu::Vector;
using attention_decode::Entries;
using attention_decode::RowOfCache;

/// Numbers first … first + kLanes − 1 of a row of D; zeros behind it.
template <class A, class T>
[[gnu::always_inline]] inline Vector<A> load_row(const T* row, std::int64_t first,
                                                 std::int64_t width) {
  T numbers[kLanes]{};
  if (first + kLanes <= width) {
    std::memcpy(numbers, row + first, sizeof numbers);
  } else {
    std::copy_n(row + first, width - first, numbers);
  }
  if constexpr (std::is_same_v<T, bf16>) {
    using Half = std::uint16_t __attribute__((vector_size(kLanes * 2)));
    using Word = std::uint32_t __attribute__((vector_size(kLanes * 4)));
    Half half;
    std::memcpy(&half, numbers, sizeof half);
    const Word word = __builtin_convertvector(half, Word) << 16;
    Vector<A> result;
    std::memcpy(&result, &word, sizeof result);
    return result;
  } else {
    return attention_cpu::load(numbers);
  }
}

template <class A>
struct Memory {
  attention_cpu::Numbers<A> query, scores, sums;
};

template <class T>
class Query {
  using A = Accumulator<T>;

 public:
  Query(const AttentionDecode<T>& op, Memory<A>& memory)
      : op_(op),
        width_(op.rule.head_width),
        padded_(attention_cpu::rounded_up(width_, kLanes)),
        query_(memory.query.take(padded_)),
        sums_(memory.sums.take(padded_)),
        memory_(memory) {}

  /// y of head a of row b at step t.
  void attend(std::int64_t b, std::int64_t a, std::int64_t t) {
    const RowOfCache row(op_, b);
    T* const y = op_.y.head(b, a, width_) + t * op_.y.stride();
    if (t >= row.added) {
      std::fill_n(y, width_, static_cast<T>(0.0F));
      return;
    }
    const std::int64_t column = op_.rule.group_of(a) * width_;
    const std::int64_t first = row.first(op_.rule, t), count = row.before + t + 1 - first;
    attention_cpu::HeadSteps<T>(op_.q, b, a, width_)
        .copy(t, 1, 1, attention_cpu::Matrix<A>{query_, padded_});
    A* const scores = memory_.scores.take(attention_cpu::rounded_up(count, kLanes));
    const A top = score({op_.cache_k, op_.k, row, b, column}, first, count, scores);
    const A shift = top == -std::numeric_limits<A>::infinity() ? A{0} : top;
    const A total = add_values({op_.cache_v, op_.v, row, b, column}, first, count, shift, scores);
    attention_cpu::write(sums_, total == 0 ? A{0} : 1 / total, width_, false, y);
  }

 private:
  /// The scores of `count` positions, −∞ behind them; returns the largest. The lanes' sums of kLanes keys
  /// are transposed, so that adding them up gives a vector of scores.
  A score(const Entries<T>& keys, std::int64_t first, std::int64_t count, A* scores) const {
    constexpr A kNone = -std::numeric_limits<A>::infinity();
    const auto scale = static_cast<A>(op_.rule.factor());
    Vector<A> top = Vector<A>{} + kNone;
    for (std::int64_t s = 0; s < count; s += kLanes) {
      Vector<A> part[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        part[i] = Vector<A>{};
        if (s + i >= count) continue;
        const T* const key = keys.at(first + s + i);
        for (std::int64_t d = 0; d < width_; d += kLanes) {
          part[i] += attention_cpu::load(query_ + d) * load_row<A>(key, d, width_);
        }
      }
      attention_cpu::exchange_all<8, A>(part);
      attention_cpu::exchange_all<4, A>(part);
      attention_cpu::exchange_all<2, A>(part);
      attention_cpu::exchange_all<1, A>(part);
      Vector<A> z = part[0];
      for (int i = 1; i < kLanes; ++i) z += part[i];
      z *= scale;
      for (std::int64_t i = count - s; i < kLanes; ++i) z[i] = kNone;
      top = z > top ? z : top;
      attention_cpu::store<A>(z, scores + s);
    }
    return attention_cpu::largest<A>(top);
  }

  /// sums_ = Σ exp(score − shift)·value; returns Σ exp(score − shift).
  A add_values(const Entries<T>& values, std::int64_t first, std::int64_t count, A shift,
               A* scores) {
    Vector<A> total{};
    for (std::int64_t s = 0; s < count; s += kLanes) {
      const Vector<A> weight = attention_cpu::exp_of<A>(attention_cpu::load(scores + s) - shift);
      total += weight;
      attention_cpu::store<A>(weight, scores + s);
    }
    std::fill_n(sums_, padded_, A{0});
    for (std::int64_t s = 0; s < count; ++s) {
      const T* const value = values.at(first + s);
      const A weight = scores[s];
      for (std::int64_t d = 0; d < padded_; d += kLanes) {
        const Vector<A> sum =
            attention_cpu::load(sums_ + d) + weight * load_row<A>(value, d, width_);
        attention_cpu::store<A>(sum, sums_ + d);
      }
    }
    return attention_cpu::total<A>(total);
  }

  const AttentionDecode<T>& op_;
  std::int64_t width_, padded_;
  A *query_, *sums_;
  Memory<A>& memory_;
};

}  // namespace

template <class T>
std::size_t AttentionDecode<T>::scratch_bytes(const Cpu&) const {
  return 0;
}

template <class T>
void AttentionDecode<T>::run(const Cpu&) const {
  const std::int64_t heads = rule.heads, batch = q.batch(), queries = q.steps() * batch * heads;
  constexpr std::int64_t kParallelNumbers = 32 * 1024;  // below this a second thread costs more
#pragma omp parallel if (queries * cache_k.extent[0] * rule.head_width > kParallelNumbers)
  {
    Memory<Accumulator<T>> memory;
    Query<T> query(*this, memory);
#pragma omp for schedule(dynamic)
    for (std::int64_t i = 0; i < queries; ++i) {
      query.attend(i / heads % batch, i % heads, i / heads / batch);
    }
  }
}

template <class T>
void AppendToCache<T>::run(const Cpu&) const {
  for (std::int64_t b = 0; b < k.batch(); ++b) {
    const attention_decode::RowOfCache row(*this, b);
    for (std::int64_t t = std::max(std::int64_t{0}, row.added - row.places); t < row.added; ++t) {
      const std::int64_t place = (row.before + t) % row.places;
      std::copy_n(k.head(b, 0, width) + t * k.stride(), width, &cache_k(place, b, 0));
      std::copy_n(v.head(b, 0, width) + t * v.stride(), width, &cache_v(place, b, 0));
    }
  }
}

template std::size_t AttentionDecode<float>::scratch_bytes(const Cpu&) const;
template std::size_t AttentionDecode<bf16>::scratch_bytes(const Cpu&) const;
template std::size_t AttentionDecode<double>::scratch_bytes(const Cpu&) const;
template void AttentionDecode<float>::run(const Cpu&) const;
template void AttentionDecode<bf16>::run(const Cpu&) const;
template void AttentionDecode<double>::run(const Cpu&) const;
template void AppendToCache<float>::run(const Cpu&) const;
template void AppendToCache<bf16>::run(const Cpu&) const;
template void AppendToCache<double>::run(const Cpu&) const;

}  // namespace carousel
