#pragma once

#include <cstdint>

#include "kernels/common/random.h"

namespace carousel {

/// What is done to the states and gradients of a recurrence besides the cell's equations; all of it
/// inside the time loop. Masks are drawn once, by the forward pass: the four random words of element
/// (t·B + row)·H + unit of `source` (words(element, step)) decide, in this order, on zoneout of h, on
/// zoneout of the cell state and on the candidate; the fourth word of element row·P + unit decides on
/// `variational`. A word w means yes where uniform(w) < probability.
struct RecurrentOptions {
  /// Probability that a unit of h (of the cell state) keeps its value of the step before; in
  /// evaluation the mean of both: s[t] = m ∘ ŝ + (1 − m) ∘ s, m drawn in training, else its
  /// probability. The cell's output reads the new cell state. Krueger et al. 2017,
  /// arXiv:1606.01305, section 3.2.
  float zoneout_h = 0, zoneout_c = 0;
  /// Probability that a unit's candidate (g of an LSTM, n of a GRU) is 0 in a step; others are
  /// scaled by 1 / (1 − probability). Training only. Semeniuta, Severyn & Barth 2016,
  /// arXiv:1603.05118, section 3.
  float recurrent_dropout = 0;
  /// Probability that a unit of ĥ is 0 for the recurrent product of phase 0, in all steps of this
  /// call alike; others are scaled. ĥ·scale is rounded to T. Training only. Gal & Ghahramani 2016,
  /// arXiv:1512.05287, section 4.
  float variational = 0;
  float cell_clip = 0;  ///< the new cell state is kept within ±cell_clip; 0: not bounded
  /// Gradients of pre-activations (δa and δu) are kept within ±gradient_clip, before products read
  /// them; 0: not bounded. Graves 2013, arXiv:1308.0850, section 2.1.
  float gradient_clip = 0;
  bool training = false;
  RandomSource source{};  ///< its step is needed where a mask is drawn
  /// Whether the forward pass draws masks: then `mask` is needed, by both passes.
  constexpr bool draws() const {
    return training && (zoneout_h > 0 || zoneout_c > 0 || recurrent_dropout > 0);
  }
  constexpr bool any() const {
    return zoneout_h > 0 || zoneout_c > 0 || cell_clip > 0 || gradient_clip > 0 ||
           (training && (recurrent_dropout > 0 || variational > 0));
  }
};

/// Bits of `mask`.
enum class MaskBit : std::uint8_t { zoneout_h = 1, zoneout_c = 2, candidate = 4 };

}  // namespace carousel
