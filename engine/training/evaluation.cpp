#include "engine/training/evaluation.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/common/check.h"
#include "kernels/common/range.h"

namespace carousel {

const Score* Evaluation::find(std::string_view name) const {
  const auto found = std::find_if(scores.begin(), scores.end(),
                                  [&](const Score& score) { return score.name == name; });
  return found == scores.end() ? nullptr : &*found;
}

void forward_epoch(Model& model, BatchSource& data, Arena& arena, const TakeBatch& take,
                   const Pass::Options& options) {
  arena.reset();
  Tape tape(arena, false);
  State state;
  std::int64_t rows = -1;
  data.seek({});
  for (std::int64_t i = 0; i < data.batches_per_epoch(); ++i) {
    const Batch batch = data.next();
    if (rows != batch.rows) {
      rows = batch.rows;
      state = model.initial_state(rows);
    } else if (batch.first) {
      state.reset();
    }
    Pass pass(tape, options);
    take(pass, batch, state);
    pass.finish();
    tape.clear();
    arena.reset();
  }
}

Evaluation evaluate(Model& model, BatchSource& data, Arena& arena, const MakeMetrics& make) {
  const Range range("evaluation");
  const Metrics metrics = make();
  Pass::Options asked;
  for (const auto& metric : metrics) {
    asked.prediction = asked.prediction || metric->needs_prediction();
    asked.choices = asked.choices || metric->needs_choices();
  }
  Evaluation result;
  const auto take = [&](Pass& pass, const Batch& batch, const State& state) {
    const Objective objective = model.objective(pass, batch, state);
    for (const auto& metric : metrics) metric->add(batch, objective);
    result.counted += batch.counted;
  };
  forward_epoch(model, data, arena, take, asked);
  if (result.counted == 0) {
    throw Error(fmt::format(
        "evaluation: the {} batches of the data have no target and no example, expected at least 1",
        data.batches_per_epoch()));
  }
  result.higher_is_better = metrics.front()->higher_is_better();
  for (const auto& metric : metrics) {
    const std::vector<Score> scores = metric->scores();
    result.scores.insert(result.scores.end(), scores.begin(), scores.end());
    if (!result.confusion) result.confusion = metric->confusion();
  }
  return result;
}

}  // namespace carousel
