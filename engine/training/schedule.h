#pragma once

#include <cstdint>
#include <limits>
#include <string>

namespace carousel {

/// The learning rate over time, a pure function of the step, so that it needs no place in a
/// checkpoint.
struct Schedule {
  std::string kind = "constant";  ///< constant | linear | cosine | inverse_sqrt | step | plateau
  double learning_rate = 1e-3;    ///< the highest; optimizer.learning_rate
  std::int64_t steps = 0;         ///< of the whole run; train.steps
  std::int64_t warm_up = 0;       ///< steps of linear rise from 0, before any kind
  double final_fraction = 0;      ///< linear, cosine: left of the rate at the last step
  std::int64_t onset = 0;         ///< step: steps before the first decay; 0: as many as a period
  std::int64_t period = 1000;     ///< step: steps between two decays
  double decay = 0.5;             ///< step, plateau: factor of a decay
  std::int64_t patience = 2;      ///< plateau: evaluations without a new best before a decay
};

/// The rate of update number `step`, from 1, before any plateau's factor:
///     rises linearly to learning_rate over the first `warm_up` steps;
///     linear: then falls evenly to final_fraction of it at step `steps`
///             (Mikolov, Chen, Corrado & Dean 2013, arXiv:1301.3781, section 4.2);
///     cosine: then falls along half a cosine to final_fraction of it at step `steps`
///             (Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5, without restarts);
///     inverse_sqrt: then falls as √(warm_up / step) (Vaswani et al. 2017, arXiv:1706.03762, eq. 3);
///     step:   then decays after `onset` steps, and again every `period` steps. Of Zaremba, Sutskever
///             & Vinyals 2014 (arXiv:1409.2329, section 4.1) the small model: with steps that make an
///             epoch as period, and an onset of four times as many.
double learning_rate(const Schedule& schedule, std::int64_t step);

/// What decay on plateau remembers.
struct PlateauState {
  double best = std::numeric_limits<double>::infinity();
  std::int64_t bad_evaluations = 0;
  double factor = 1;  ///< of the learning rate
  bool operator==(const PlateauState&) const = default;
};

/// The state after an evaluation gave `loss`: kind "plateau" decays when `patience` evaluations in
/// a row brought no new best; the other kinds never do.
PlateauState updated(PlateauState state, const Schedule& schedule, double loss);

}  // namespace carousel
