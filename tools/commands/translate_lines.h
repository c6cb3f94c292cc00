#pragma once

#include "tools/commands/commands.h"

namespace carousel {

/// Prints what a model that translates writes for each line: `predict`.
void translate_lines(const PredictArguments& arguments, TrainedModel& trained, bool json);

}  // namespace carousel
