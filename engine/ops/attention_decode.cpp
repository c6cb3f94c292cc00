#include "kernels/attention_decode/attention_decode.h"

#include "engine/ops.h"
#include "kernels/attention/attention.h"
#include "kernels/common/check.h"

namespace carousel {

Var cached_self_attention(Var qkv, const KeyValueCache& cache, const AttentionOptions& options) {
  Tape& tape = qkv.tape();
  if (tape.recording()) {
    throw ConfigError("attention_decode: the tape records, expected one without gradients");
  }
  if (options.bias) {
    throw ConfigError("attention_decode: the options have a bias, expected none");
  }
  const std::int64_t shared = options.kv_heads == 0 ? options.heads : options.kv_heads,
                     all = options.heads + 2 * shared;
  if (qkv.shape().rank() != 3 || all < 3 || qkv.shape().back() % all != 0) {
    throw ShapeError("attention_decode: qkv is " + qkv.shape().text() + ", expected [T, B, D·" +
                     std::to_string(all) + "]");
  }
  const std::int64_t width = qkv.shape().back() / all;
  const Tensor y =
      tape.tensor({qkv.shape()[0], qkv.shape()[1], options.heads * width}, qkv.dtype());
  visit_float(qkv.dtype(), [&]<class T>(std::type_identity<T>) {
    const auto from_head = [&](std::int64_t head) {
      return HeadRows<const T>{qkv.value().view<T, 3>(), head * width};
    };
    const AttentionDecode<T> decode{.q = from_head(0),
                                    .k = from_head(options.heads),
                                    .v = from_head(options.heads + shared),
                                    .cache_k = cache.k.view<T, 3>(),
                                    .cache_v = cache.v.view<T, 3>(),
                                    .position = cache.position.view<std::int64_t, 1>(),
                                    .length = options.lengths.view<std::int32_t, 1>(),
                                    .rule = {.heads = options.heads,
                                             .kv_heads = options.kv_heads,
                                             .head_width = width,
                                             .causal = true,
                                             .window = options.window,
                                             .scale = options.scale},
                                    .y = {y.mutable_view<T, 3>()}};
    tape.run_with_scratch(decode);
    run(tape.device(), AppendToCache<T>{.k = decode.k,
                                        .v = decode.v,
                                        .width = shared * width,
                                        .position = decode.position,
                                        .length = decode.length,
                                        .cache_k = cache.k.mutable_view<T, 3>(),
                                        .cache_v = cache.v.mutable_view<T, 3>()});
  });
  const Var result = tape.output(y, {qkv});
  tape.label(result, {.part = "attention", .forward = kAttentionForwardTolerance});
  return result;
}

}  // namespace carousel
