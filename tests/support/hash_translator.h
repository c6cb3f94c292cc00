#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/model/translator.h"
#include "tests/support/tensors.h"

namespace carousel::test {

/// A translator whose every probability is known: what follows depends on all of the source and on all
/// that was written, by a hash of them. Its state grows with the text.
class HashTranslator final : public Translator {
 public:
  using Ids = std::vector<std::int32_t>;
  struct Options {
    std::int64_t vocabulary = 4;
    std::uint64_t seed = 1;
    float widest = 2;  ///< logits are multiples of 1/8 up to this
    DType dtype = DType::f32;
    bool attends = true;
    std::int32_t poison = -1;  ///< after this token logits are NaN
  };
  HashTranslator(const Device& device, const Options& options)
      : device_(device), options_(options) {}

  /// The logits after `text`, which begins with <bos>.
  std::vector<float> logits(const Ids& source, const Ids& text) const {
    const bool bad = text.back() == options_.poison;
    std::vector<float> result;
    for (std::int64_t v = 0; v < options_.vocabulary; ++v) {
      const double unit = drawn(source, text, v);
      result.push_back(bad ? NAN : std::round(static_cast<float>(unit) * 8 * options_.widest) / 8);
    }
    return result;
  }
  /// How the same step attends to the source.
  std::vector<float> alignment(const Ids& source, const Ids& text) const {
    std::vector<float> result;
    float sum = 0;
    for (std::int64_t s = 0; s < std::ssize(source); ++s) {
      result.push_back(static_cast<float>(1.5 + drawn(source, text, 1000 + s)));
      sum += result.back();
    }
    for (float& weight : result) weight /= sum;
    return result;
  }

  State encode(Pass&, const Field& source, const Room& room) override {
    const std::int64_t S = source.values.shape()[0], B = source.values.shape()[1];
    const Ids all = read<std::int32_t>(source.values), lengths = read<std::int32_t>(source.lengths);
    sources_.assign(static_cast<std::size_t>(B), {});
    for (std::int64_t b = 0; b < B; ++b) {
      const auto row = static_cast<std::size_t>(b);
      for (std::int64_t s = 0; s < lengths[row]; ++s) {
        sources_[row].push_back(all[static_cast<std::size_t>(s * B + b)]);
      }
    }
    steps_ = S;
    const Tensor position = tensor_of<std::int64_t>(device_, {1}, {0});
    return {{{.name = "source", .value = tensor_of(device_, {B}, lengths), .batch_axis = -1},
             {.name = "text",
              .value = Tensor(device_, {room.steps, room.beam * B}, DType::i32),
              .batch_axis = 1,
              .growth_axis = 0,
              .position = position}}};
  }

  Step step(Pass& pass, const Tensor& token, const State& state, bool aligned) override {
    const StateTensor& text = state.at("text");
    const std::int64_t rows = text.value.shape()[1], n = read<std::int64_t>(text.position)[0];
    EXPECT_LT(n, text.value.shape()[0]) << "more steps than there was room for";
    copy(token.reshaped({rows}), text.value.slice(n, 1).reshaped({rows}));
    const std::int64_t next = n + 1;
    copy_from_host(text.position, &next);
    const Ids written = read<std::int32_t>(text.value.slice(0, next));
    std::vector<float> all, weights;
    for (std::int64_t row = 0; row < rows; ++row) {
      Ids own;
      for (std::int64_t t = 0; t < next; ++t) {
        own.push_back(written[static_cast<std::size_t>(t * rows + row)]);
      }
      const Ids& source = sources_[static_cast<std::size_t>(row % std::ssize(sources_))];
      for (const float x : logits(source, own)) all.push_back(x);
      std::vector<float> share = alignment(source, own);
      share.resize(static_cast<std::size_t>(steps_));
      weights.insert(weights.end(), share.begin(), share.end());
    }
    const Shape shape{rows, options_.vocabulary};
    Step result{.logits = pass.tape().tensor(shape, options_.dtype)};
    if (options_.dtype == DType::bf16) {
      copy_from_host(result.logits, std::vector<bf16>(all.begin(), all.end()).data());
    } else {
      copy_from_host(result.logits, all.data());
    }
    if (aligned) result.alignment = tensor_of(device_, {rows, steps_}, weights);
    return result;
  }
  bool attends() const override { return options_.attends; }

 private:
  /// In [−1, 1).
  double drawn(const Ids& source, const Ids& text, std::int64_t which) const {
    std::uint64_t hash = options_.seed;
    const auto mix = [&hash](std::uint64_t word) {
      hash = (hash ^ word) * 0x9E3779B97F4A7C15U;
      hash ^= hash >> 29;
    };
    for (const std::int32_t id : source) mix(static_cast<std::uint64_t>(id) + 7);
    mix(99);
    for (const std::int32_t id : text) mix(static_cast<std::uint64_t>(id) + 3);
    mix(static_cast<std::uint64_t>(which) + 1000);
    return static_cast<double>(hash >> 40) / 0x1p23 - 1;
  }

  Device device_;
  Options options_;
  std::vector<Ids> sources_;
  std::int64_t steps_ = 0;
};

}  // namespace carousel::test
