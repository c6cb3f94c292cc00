#pragma once

#include "engine/run/opened_run.h"
#include "engine/run/training.h"

namespace carousel {

/// What train() does with an estimator. Each iteration is reported and saved, so that a fit that was
/// interrupted or killed goes on with the next one; what the last one leaves is evaluated.
RunEnd fit(OpenedRun& opened, const TrainOptions& options);

}  // namespace carousel
