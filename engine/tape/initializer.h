#pragma once

#include <cstdint>
#include <span>
#include <string_view>
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
    xavier,   ///< U(−a, a), a = scale·√(6 / (fan_in + fan_out)) (Glorot & Bengio 2010, eq. 16)
    kaiming,  ///< N(0, scale²·2 / fan_in) (He, Zhang, Ren & Sun 2015, arXiv:1502.01852, eq. 10)
    fan_in,   ///< U(−a, a), a = scale / √fan_in: PyTorch's default of nn.Linear
    orthogonal,  ///< scale times a matrix with orthonormal rows or columns, whichever are fewer
                 ///< (Saxe, McClelland & Ganguli 2014, arXiv:1312.6120)
    identity,  ///< scale on the diagonal, 0 elsewhere (Le, Jaitly & Hinton 2015, arXiv:1504.00941)
    unit_eigenvalue,  ///< scale·(A + I) / λ, with A = RᵀR / H of a normal matrix R and λ the largest
    ///< eigenvalue of A + I: symmetric, eigenvalues in (0, scale] (Talathi & Vartak
    ///< 2016, arXiv:1511.03771, section 3)
    chrono,  ///< a bias, 0 but for the gate of `offset_first`, ln U(1, scale − 1), and that of
             ///< `mirror_first`, which is minus those. scale is the longest delay in steps, over 2
             ///< (Tallec & Ollivier 2018, arXiv:1804.11188, section 2)
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
  std::int64_t mirror_first = -1;  ///< of chrono: an LSTM's input gate; of a GRU there is none
};

/// Where PyTorch begins the weights and biases of nn.RNN, nn.LSTM and nn.GRU of this hidden width:
/// U(−1/√H, 1/√H).
Initializer pytorch_recurrent(std::int64_t hidden);

/// A way to begin matrices, by the name that configs give it.
struct NamedInitializer {
  std::string_view name;
  Initializer::Kind kind;
  bool square = false;  ///< for square blocks alone, such as W_hh
};
std::span<const NamedInitializer> matrix_initializers();

/// The values of a weight of this shape, row-major. `stream` tells one weight from another.
/// The kinds that speak of fans, rows or eigenvalues expect rank 2. ShapeError if the rows do not
/// divide into the blocks, or a block of `unit_eigenvalue` is not square; ConfigError if chrono's scale
/// is not over 2.
std::vector<float> initial_values(const Initializer& initializer, const Shape& shape,
                                  std::uint64_t seed, std::uint64_t stream);

}  // namespace carousel
