#include "kernels/attention_decode/attention_decode.h"

#include "kernels/common/check.h"

namespace carousel {
namespace {

template <class Op>
void check_cache(const Op& op, const std::array<std::int64_t, 3>& want) {
  const auto [places, batch, columns] = want;
  expect_heads("attention_decode: k", op.k.rows.extent, op.k.first, {op.k.steps(), batch, columns});
  expect_heads("attention_decode: v", op.v.rows.extent, op.v.first, {op.k.steps(), batch, columns});
  expect_at_least("attention_decode: places of the cache", places, 1);
  for (const auto& extent : {op.cache_k.extent, op.cache_v.extent}) {
    expect_extent("attention_decode: places of the cache", extent[0], places);
    expect_extent("attention_decode: rows of the cache", extent[1], batch);
    expect_extent("attention_decode: columns of the cache", extent[2], columns);
  }
  expect_extent("attention_decode: positions", op.position.extent[0], batch);
  if (op.length.present()) {
    expect_extent("attention_decode: lengths", op.length.extent[0], batch);
  }
}

}  // namespace

template <class T>
void AttentionDecode<T>::check() const {
  AttentionRule causal = rule;
  causal.causal = true;
  check_rule("attention_decode", causal);
  const std::int64_t batch = q.batch(), wide = rule.heads * rule.head_width;
  expect_heads("attention_decode: q", q.rows.extent, q.first, {q.steps(), batch, wide});
  expect_heads("attention_decode: y", y.rows.extent, y.first, {q.steps(), batch, wide});
  expect_extent("attention_decode: k steps", k.steps(), q.steps());
  check_cache(*this, {cache_k.extent[0], batch, rule.groups() * rule.head_width});
}

template <class T>
void AppendToCache<T>::check() const {
  check_cache(*this, {cache_k.extent[0], k.batch(), width});
}

template void AttentionDecode<float>::check() const;
template void AttentionDecode<bf16>::check() const;
template void AttentionDecode<double>::check() const;
template void AppendToCache<float>::check() const;
template void AppendToCache<bf16>::check() const;
template void AppendToCache<double>::check() const;

}  // namespace carousel
