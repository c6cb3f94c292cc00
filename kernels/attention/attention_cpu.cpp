#include "kernels/attention/attention.h"

#include <omp.h>

#include "kernels/attention/backward_cpu.h"
#include "kernels/attention/forward_cpu.h"

namespace carousel {
namespace {

using attention_cpu::kQueries;

/// Queries of a forward task. A task copies the keys that it needs, so that few are better, but
/// threads need some each: causal ones differ in work. Any division gives the same bits.
std::int64_t queries_of_task(std::int64_t heads, std::int64_t queries) {
  constexpr std::int64_t kTasksOfThread = 4;
  const std::int64_t tasks = kTasksOfThread * omp_get_max_threads();
  const std::int64_t pieces = std::max<std::int64_t>(1, tasks / std::max<std::int64_t>(heads, 1));
  return attention_cpu::rounded_up((queries + pieces - 1) / pieces, kQueries);
}

/// Below so many multiplications the second thread costs more than it saves.
constexpr double kParallelWork = 1 << 16;

template <class Op>
bool is_large(const Op& op) {
  return static_cast<double>(op.q.steps()) * static_cast<double>(op.k.steps()) *
             static_cast<double>(op.q.batch() * op.rule.heads * op.rule.head_width) >
         kParallelWork;
}

/// Calls f with the way in which products of T are made.
template <class T, class F>
void with_products(const F& f) {
  if constexpr (std::is_same_v<T, bf16>) {
    if (amx::available()) return f.template operator()<attention_cpu::TileProducts>();
  }
  f.template operator()<attention_cpu::VectorProducts<Accumulator<T>>>();
}

}  // namespace

template <class T>
void AttentionForward<T>::run(const Cpu&) const {
  const std::int64_t queries = q.steps(), heads = q.batch() * rule.groups();
  if (queries == 0 || heads == 0) return;
  const std::int64_t each = queries_of_task(heads, queries), pieces = (queries + each - 1) / each;
  with_products<T>([&]<class Products>() {
#pragma omp parallel if (is_large(*this))
    {
      attention_cpu::ForwardMemory<Accumulator<T>, Products> memory;
#pragma omp for schedule(dynamic)
      for (std::int64_t task = 0; task < heads * pieces; ++task) {
        // The last queries first, for causal ones of them have most keys.
        const std::int64_t first = (pieces - 1 - task / heads) * each, head = task % heads;
        attention_cpu::ForwardTask<T, Products>(*this, head / rule.groups(), head % rule.groups(),
                                                memory)
            .run(first, std::min(first + each, queries));
      }
    }
  });
}

template <class T>
std::size_t AttentionBackward<T>::scratch_bytes(const Cpu&) const {
  return 0;
}

template <class T>
void AttentionBackward<T>::run(const Cpu&) const {
  const std::int64_t heads = q.batch() * rule.groups();
  with_products<T>([&]<class Products>() {
#pragma omp parallel if (is_large(*this))
    {
      attention_cpu::BackwardMemory<Accumulator<T>, Products> memory;
#pragma omp for schedule(dynamic)
      for (std::int64_t task = 0; task < heads; ++task) {
        attention_cpu::BackwardTask<T, Products>(*this, task / rule.groups(), task % rule.groups(),
                                                 memory)
            .run();
      }
    }
  });
}

template void AttentionForward<float>::run(const Cpu&) const;
template void AttentionForward<bf16>::run(const Cpu&) const;
template void AttentionForward<double>::run(const Cpu&) const;
template std::size_t AttentionBackward<float>::scratch_bytes(const Cpu&) const;
template std::size_t AttentionBackward<bf16>::scratch_bytes(const Cpu&) const;
template std::size_t AttentionBackward<double>::scratch_bytes(const Cpu&) const;
template void AttentionBackward<float>::run(const Cpu&) const;
template void AttentionBackward<bf16>::run(const Cpu&) const;
template void AttentionBackward<double>::run(const Cpu&) const;

}  // namespace carousel
