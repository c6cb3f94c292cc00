#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "engine/model/model.h"
#include "kernels/cross_entropy/cross_entropy.h"

namespace carousel {

/// What models share that read a row on the CPU, a token after the other. Of such a model, `row(b)`
/// gives the reader of row b, which has restart(), read(token) and nats(target), the cost of the next
/// token.

template <class T>
std::span<T> cpu_values(const Tensor& tensor) {
  return {static_cast<T*>(tensor.mutable_data()), static_cast<std::size_t>(tensor.size())};
}

/// A copy of a state's tensor, to be read on, which the pass carries.
inline Tensor carried_copy(Pass& pass, const Tensor& value) {
  const Tensor copied = pass.tape().tensor(value.shape(), value.dtype());
  copy(value, copied);
  pass.carry(copied, value);
  return copied;
}

/// The mean cost of a batch's targets, and that of each.
template <class Row>
Objective objective_token_by_token(Pass& pass, const Batch& batch, const Row& row) {
  const Tensor &token = batch["token"], &target = batch["target"];
  const std::int64_t steps = token.shape()[0], rows = token.shape()[1];
  const auto tokens = cpu_values<const std::int32_t>(token),
             targets = cpu_values<const std::int32_t>(target);
  const auto resets =
      batch.reset ? cpu_values<const std::int32_t>(batch.reset) : decltype(tokens){};
  Tape& tape = pass.tape();
  const Tensor losses = tape.tensor({steps, rows}, DType::f32), mean = tape.tensor({1}, DType::f32),
               counted = tape.tensor({1}, DType::i32);
  const auto loss = cpu_values<float>(losses);
  double sum = 0;
  std::int32_t count = 0;
  for (std::int64_t b = 0; b < rows; ++b) {
    auto reader = row(b);
    for (std::int64_t t = 0; t < steps; ++t) {
      const auto i = static_cast<std::size_t>(t * rows + b);
      if (!resets.empty() && resets[i] != 0) reader.restart();
      reader.read(tokens[i]);
      loss[i] = 0;
      if (targets[i] == kIgnoreTarget) continue;
      const double nats = reader.nats(targets[i]);
      loss[i] = static_cast<float>(nats);
      sum += nats;
      ++count;
    }
  }
  cpu_values<float>(mean)[0] = static_cast<float>(sum / std::max(count, 1));
  cpu_values<std::int32_t>(counted)[0] = count;
  return {
      .terms = {{"loss",
                 {.mean = tape.constant(mean), .rows = tape.constant(losses), .count = counted}}}};
}

/// Lets row(b) read row b of the tokens, as far as it goes.
template <class Reader>
void read_row(const Field& token, std::int64_t b, Reader& reader) {
  const std::int64_t rows = token.values.shape()[1];
  const auto tokens = cpu_values<const std::int32_t>(token.values);
  const std::int64_t length =
      token.lengths ? cpu_values<const std::int32_t>(token.lengths)[static_cast<std::size_t>(b)]
                    : token.values.shape()[0];
  for (std::int64_t t = 0; t < length; ++t) {
    reader.read(tokens[static_cast<std::size_t>(t * rows + b)]);
  }
}

}  // namespace carousel
