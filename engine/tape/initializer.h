#pragma once

#include <cstdint>
#include <vector>

#include "engine/tape/tensor.h"

namespace carousel {

/// How a weight begins. Drawn on the host from Philox with a stream of its own, so that the same
/// seed gives the same weights on every device and for every order of construction.
struct Initializer {
  enum class Kind : std::uint8_t {
    constant,  ///< scale everywhere
    uniform,   ///< U(−scale, scale)
    normal,    ///< N(0, scale²)
    xavier,  ///< U(−a, a), a = scale·√(6 / (fan_in + fan_out)) (Glorot & Bengio 2010, eq. 16)
    orthogonal,  ///< scale times a matrix with orthonormal rows or columns, whichever are fewer
                 ///< (Saxe, McClelland & Ganguli 2014, arXiv:1312.6120)
  };
  Kind kind = Kind::constant;
  double scale = 0;
  /// The matrix is this many equal blocks of rows, each begun on its own: the four gates of an
  /// LSTM, for which the fans and the orthogonality are those of one gate.
  int blocks = 1;
  /// Added to rows [first, first + count) afterwards: a forget gate's bias (Jozefowicz, Zaremba &
  /// Sutskever 2015, section 5: begin it at 1).
  double offset = 0;
  std::int64_t offset_first = 0, offset_count = 0;
};

/// The values of a weight of this shape, row-major. `stream` tells one weight from another.
/// Xavier and orthogonal expect rank 2.
std::vector<float> initial_values(const Initializer& initializer, const Shape& shape,
                                  std::uint64_t seed, std::uint64_t stream);

}  // namespace carousel
