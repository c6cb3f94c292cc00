#include "kernels/linear_cross_entropy/linear_cross_entropy.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <type_traits>

#include "kernels/common/check.h"
#include "kernels/common/cpu_product.h"
#include "kernels/linear_cross_entropy/chunk.h"
#include "kernels/linear_cross_entropy/plan.h"

namespace carousel::linear_cross_entropy {
namespace {

// A tile of fewer words makes products slow.
constexpr std::int64_t kLeastWords = 512;
// Words per tile are a multiple, so that rows of logits begin on cache lines.
constexpr std::int64_t kWordGroup = 64;
// A quarter of the limit is left for alignment, the sums of d_bias and what oneDNN packs.
constexpr std::int64_t kTileLimit = LinearCrossEntropy<float>::kScratchLimit / 4 * 3;

constexpr std::int64_t pieces(std::int64_t total, std::int64_t most) {
  return (total + most - 1) / most;
}

constexpr std::int64_t kStateNumbers = sizeof(RowState<float>) / sizeof(float);

bool fits(const Work& work, const LogitTile& tile) { return tile_bytes(work, tile) <= kTileLimit; }

/// The time of the op or, without its loss, of its products alone, in operations of a product.
double time_of(const Work& work, const LogitTile& tile, const Rates& rates, bool with_loss) {
  const auto real = [](std::int64_t x) { return static_cast<double>(x); };
  const double blocks = real(pieces(work.rows, tile.rows));
  const double chunks = real(pieces(work.vocab, tile.words));
  const double logits = real(work.rows) * real(work.vocab), flops = 2 * logits * real(work.width);
  const double weights = real(work.vocab) * real(work.width);
  const double hiddens = real(work.rows) * real(work.width);
  // Bytes: of a pass over the weight, one over hidden, and one over the logits.
  const double weight = blocks * weights * real(work.element_bytes);
  const double hidden = chunks * hiddens * real(work.element_bytes);
  const bool cached = tile_bytes(work, tile) <= rates.cache_bytes;
  const double scratch = cached ? 0 : logits * real(work.accumulator_bytes);
  const auto time = [&](double operations, double bytes) {
    const double traffic = bytes * rates.flops_per_byte;
    return rates.overlaps ? std::max(operations, traffic) : operations + traffic;
  };
  double sum = time(flops, weight + hidden + scratch);
  if (with_loss) {
    const double rows = chunks * real(work.rows);
    sum += time(logits * rates.flops_per_logit + rows * rates.flops_per_row, 2 * scratch);
  }
  if (work.gradients && tile.words < work.vocab) sum *= 2;
  if (work.d_hidden) {
    const double sums = hiddens * real(work.accumulator_bytes) * (2 * chunks - 1);
    sum += time(flops, weight + sums + scratch);
  }
  if (work.d_weight) {
    const double sums = weights * real(work.accumulator_bytes) * (2 * blocks - 1);
    sum += time(flops, hidden + sums + scratch);
  }
  return sum;
}

/// As many whole rows as keep the tile inside the cache, but at least H: with fewer the weights are
/// more traffic than the logits.
LogitTile whole_rows(const Work& work, const Rates& rates) {
  const std::int64_t none = tile_bytes(work, {0, work.vocab});
  const std::int64_t row_bytes = tile_bytes(work, {1, work.vocab}) - none;
  const std::int64_t cached = std::max(rates.row_cache_bytes / row_bytes, work.width);
  const std::int64_t most =
      std::max<std::int64_t>(std::min(cached, (kTileLimit - none) / row_bytes), 1);
  return {pieces(work.rows, pieces(work.rows, most)), work.vocab};
}

/// The cheapest tile of some words; of no rows if there is none.
LogitTile some_words(const Work& work, const Rates& rates) {
  LogitTile best;
  for (std::int64_t blocks = 1; blocks <= work.rows; blocks *= 2) {
    for (std::int64_t most = kLeastWords; most < work.vocab; most *= 2) {
      const std::int64_t each = pieces(work.vocab, pieces(work.vocab, most));
      const LogitTile tile{pieces(work.rows, blocks), pieces(each, kWordGroup) * kWordGroup};
      if (tile.words >= work.vocab || !fits(work, tile)) continue;
      if (best.rows == 0 || cost(work, tile, rates) < cost(work, best, rates)) best = tile;
    }
  }
  return best;
}

std::string text(const Work& work, const LogitTile& tile) {
  if (tile.words >= work.vocab) return fmt::format("chunks of {} rows", tile.rows);
  return fmt::format("chunks of {} words{}{}", tile.words,
                     tile.rows < work.rows ? fmt::format(" by {} rows", tile.rows) : "",
                     work.gradients ? ", their logits computed twice" : "");
}

}  // namespace

std::int64_t tile_bytes(const Work& work, const LogitTile& tile) {
  const auto [rows, words] = tile;
  const std::int64_t sums = rows * (kStateNumbers + (work.sums_apart(tile) ? work.width : 0));
  // As floats, one at a time: hidden or g, and hidden or the weight.
  const std::int64_t copies =
      work.widens ? rows * std::max(words, work.width) + std::max(rows, words) * work.width : 0;
  return rows * words * work.logit_bytes + (sums + copies) * work.accumulator_bytes;
}

double cost(const Work& work, const LogitTile& tile, const Rates& rates) {
  const LogitTile all{work.rows, work.vocab};
  Rates bare = rates;
  bare.cache_bytes = 0;
  return time_of(work, tile, rates, /*with_loss=*/true) /
         time_of(work, all, bare, /*with_loss=*/false);
}

Plan plan(const Work& work, const Rates& rates) {
  if (work.rows == 0) return {.tile = {0, work.vocab}};
  const LogitTile rows = whole_rows(work, rates), words = some_words(work, rates);
  if (work.width == 0) return {.tile = rows};
  const double by_rows = cost(work, rows, rates);
  if (rows.rows == work.rows || words.rows == 0) return {.tile = rows, .cost = by_rows};
  const double by_words = cost(work, words, rates);
  if (by_rows <= by_words) return {rows, words, by_rows, by_words};
  return {words, rows, by_words, by_rows};
}

void note_plan(const Work& work, const Plan& plan) {
  Journal* const journal = Journal::mine();
  const bool all = plan.tile.rows >= work.rows && plan.tile.words >= work.vocab;
  if (journal == nullptr || all) return;
  std::string line = text(work, plan.tile);
  if (plan.refused.rows > 0) {
    line += fmt::format(", planned to take {:.2f} × the bare products; refused: {}, {:.2f} ×;",
                        plan.cost, text(work, plan.refused), plan.refused_cost);
  } else {
    line += "; refused:";
  }
  journal->note(line + fmt::format(" all {} rows and {} words of logits at once, too many bytes",
                                   work.rows, work.vocab));
}

template <class T>
Work work_of(const LinearCrossEntropy<T>& op, const Device& device) {
  constexpr std::int64_t kElement = sizeof(T), kAccumulator = sizeof(Accumulator<T>);
  const auto [rows, width] = op.hidden.extent;
  const bool widens = is_cpu(device) && std::is_same_v<T, bf16> && !multiplies_bf16();
  return {
      .rows = rows,
      .vocab = op.weight.extent[0],
      .width = width,
      .element_bytes = kElement,
      .accumulator_bytes = kAccumulator,
      .logit_bytes = kAccumulator + (kElement < kAccumulator && op.wants_gradient() ? kElement : 0),
      .widens = widens,
      .gradients = op.wants_gradient(),
      .d_hidden = op.d_hidden.present(),
      .d_weight = op.d_weight.present()};
}

template <class T>
Rates rates_of(const LinearCrossEntropy<T>& op, const Device& device) {
  constexpr bool kBf16 = std::is_same_v<T, bf16>;
  // As measured of one core of a Zen 5: 200 GFLOP/s, 400 in bf16, 13 GB/s, 0.1 µs a row. Tiles of whole rows
  // suit an L2 cache; half of an L3 keeps logits from memory.
  if (is_cpu(device)) {
    const bool faster = kBf16 && multiplies_bf16();
    return {.flops_per_byte = faster ? 32.0 : 16.0,
            .flops_per_logit = faster ? 200.0 : 100.0,
            .flops_per_row = faster ? 40e3 : 20e3,
            .cache_bytes = std::int64_t{16} << 20,
            .row_cache_bytes = std::int64_t{1} << 20};
  }
  // An H100: 60, 400 and 800 TFLOP/s, 3.3 TB/s; a pass over logits is traffic. Tiles stay within most
  // of the 40 to 60 MB of an A100's or H100's L2.
  return {.flops_per_byte = kBf16 ? 240.0 : (op.tf32 ? 120.0 : 18.0),
          .flops_per_logit = 0,
          .flops_per_row = 0,
          .cache_bytes = std::int64_t{32} << 20,
          .row_cache_bytes = std::int64_t{32} << 20,
          .overlaps = true};
}

template <class T>
Plan plan(const LinearCrossEntropy<T>& op, const Device& device) {
  const Work work = work_of(op, device);
  if (op.chunk_rows == 0 && op.chunk_words == 0) return plan(work, rates_of(op, device));
  const auto given = [](std::int64_t chunk, std::int64_t all) {
    return chunk == 0 ? all : std::min(chunk, all);
  };
  return {.tile = {given(op.chunk_rows, work.rows), given(op.chunk_words, work.vocab)}};
}

template Work work_of(const LinearCrossEntropy<float>&, const Device&);
template Work work_of(const LinearCrossEntropy<bf16>&, const Device&);
template Work work_of(const LinearCrossEntropy<double>&, const Device&);
template Rates rates_of(const LinearCrossEntropy<float>&, const Device&);
template Rates rates_of(const LinearCrossEntropy<bf16>&, const Device&);
template Rates rates_of(const LinearCrossEntropy<double>&, const Device&);
template Plan plan(const LinearCrossEntropy<float>&, const Device&);
template Plan plan(const LinearCrossEntropy<bf16>&, const Device&);
template Plan plan(const LinearCrossEntropy<double>&, const Device&);

}  // namespace carousel::linear_cross_entropy

namespace carousel {
namespace {

template <class T>
void check_extents(const LinearCrossEntropy<T>& op) {
  const auto [rows, width] = op.hidden.extent;
  const std::int64_t vocab = op.weight.extent[0];
  if (vocab == 0) throw ShapeError("linear_cross_entropy: weight has 0 rows, expected at least 1");
  expect_extent("linear_cross_entropy: weight columns", op.weight.extent[1], width);
  expect_extent("linear_cross_entropy: target rows", op.target.extent[0], rows);
  expect_extent("linear_cross_entropy: loss rows", op.loss.extent[0], rows);
  expect_extent("linear_cross_entropy: mean_loss extent", op.mean_loss.extent[0], 1);
  expect_extent("linear_cross_entropy: count extent", op.count.extent[0], 1);
  if (op.row_weight.present()) {
    expect_extent("linear_cross_entropy: row_weight rows", op.row_weight.extent[0], rows);
  }
  if (op.denominator.present()) {
    expect_extent("linear_cross_entropy: denominator extent", op.denominator.extent[0], 1);
  }
  if (op.bias.present()) {
    expect_extent("linear_cross_entropy: bias extent", op.bias.extent[0], vocab);
  }
  if (op.d_hidden.present()) {
    expect_extent("linear_cross_entropy: d_hidden rows", op.d_hidden.view.extent[0], rows);
    expect_extent("linear_cross_entropy: d_hidden columns", op.d_hidden.view.extent[1], width);
  }
  if (op.d_weight.present()) {
    expect_extent("linear_cross_entropy: d_weight rows", op.d_weight.view.extent[0], vocab);
    expect_extent("linear_cross_entropy: d_weight columns", op.d_weight.view.extent[1], width);
  }
  if (op.d_bias.present()) {
    expect_extent("linear_cross_entropy: d_bias extent", op.d_bias.view.extent[0], vocab);
  }
}

}  // namespace

template <class T>
void LinearCrossEntropy<T>::check() const {
  check_extents(*this);
  check_label_smoothing("linear_cross_entropy", label_smoothing);
  if (!std::isfinite(term_weight)) {
    throw ConfigError(fmt::format(
        "linear_cross_entropy: term_weight is {}, expected a finite number", term_weight));
  }
  if (chunk_rows < 0 || chunk_words < 0) {
    throw ShapeError(fmt::format(
        "linear_cross_entropy: chunk_rows is {} and chunk_words {}, expected at least 0",
        chunk_rows, chunk_words));
  }
}

template <class T>
LogitTile LinearCrossEntropy<T>::tile(const Device& device) const {
  return linear_cross_entropy::plan(*this, device).tile;
}

template void LinearCrossEntropy<float>::check() const;
template void LinearCrossEntropy<bf16>::check() const;
template void LinearCrossEntropy<double>::check() const;
template LogitTile LinearCrossEntropy<float>::tile(const Device&) const;
template LogitTile LinearCrossEntropy<bf16>::tile(const Device&) const;
template LogitTile LinearCrossEntropy<double>::tile(const Device&) const;

}  // namespace carousel
