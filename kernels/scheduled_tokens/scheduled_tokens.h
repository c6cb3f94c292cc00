#pragma once

#include <cstdint>

#include "kernels/common/device.h"
#include "kernels/common/random.h"
#include "kernels/common/view.h"

namespace carousel {

/// The share of a text's tokens that a decoder is given in training, at step i; the others are its own.
struct TeacherForcing {
  enum class Decay : std::uint8_t {
    linear,           ///< 1 − i/K
    exponential,      ///< exp(−i/K)
    inverse_sigmoid,  ///< K / (K + exp(i/K))
  };
  Decay decay = Decay::linear;
  double steps = 1;  ///< K > 0
  double least = 0;  ///< the share is never below it
};

/// The share, with the device's exp of a double.
template <class Exp>
constexpr double given_share(const TeacherForcing& forcing, std::int64_t step, const Exp& exp) {
  const double i = static_cast<double>(step) / forcing.steps;
  double share = 1 - i;
  if (forcing.decay == TeacherForcing::Decay::exponential) share = exp(-i);
  if (forcing.decay == TeacherForcing::Decay::inverse_sigmoid) {
    share = forcing.steps / (forcing.steps + exp(i));
  }
  return share > forcing.least ? share : forcing.least;
}

/// What a decoder reads in a step of training by scheduled sampling:
///
///     token[n] = given[n]   if u[n] < the share of `forcing` at the step of `random`, else own[n]
///
/// where u[n] in [0, 1) is drawn by the first word of block first + n of `random`.
///
/// Values   where own[n] < 0, which is no token, given[n] is read.
/// Errors   ShapeError if extents disagree; ConfigError unless steps > 0 and 0 ≤ least ≤ 1.
///          N == 0 does nothing.
/// Accuracy the same on every device, but where u is within a double's last bits of the share.
/// Memory   reads and writes each token once. `token` may be `given` or `own`.
/// Source   Bengio, Vinyals, Jaitly & Shazeer 2015, arXiv:1506.03099, section 2.4; their k is
///          exp(−1/K) of the exponential decay and K of the inverse sigmoid.
struct ScheduledTokens {
  View<const std::int32_t, 1> given;  ///< [N]
  View<const std::int32_t, 1> own;    ///< [N]
  TeacherForcing forcing;
  RandomSource random;          ///< with its step on the device
  std::int64_t first = 0;       ///< the block of the first token
  View<std::int32_t, 1> token;  ///< [N] out
  void check() const;
  void run(const Cpu&) const;
  void run(const Cuda&) const;
};

}  // namespace carousel
