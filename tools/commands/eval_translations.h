#pragma once

#include "engine/training/evaluation.h"
#include "tools/commands/commands.h"

namespace carousel {

/// Translates the sources of a text of pairs and prints how near that comes to the targets, beside
/// the loss that was measured: `eval` of a model that translates.
void evaluate_translations(const EvalArguments& arguments, const Text& pairs, TrainedModel& trained,
                           const Evaluation& result, bool json);

}  // namespace carousel
