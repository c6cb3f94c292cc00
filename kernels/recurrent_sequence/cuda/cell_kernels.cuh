#pragma once

#include "kernels/recurrent_sequence/cuda/backward_kernels.cuh"
#include "kernels/recurrent_sequence/cuda/forward_kernels.cuh"

namespace carousel {

/// A cell's kernels for values stored as T.
template <class T>
struct CellKernels {
  using Forward = void (*)(RecurrentSequenceForward<T>, ForwardParts<T>, std::int64_t);
  using Backward = void (*)(RecurrentSequenceBackward<T>, BackwardParts<T>, std::int64_t);
  std::array<Forward, kMostPhases> forward{};
  std::array<Backward, kMostPhases> backward{};
};

template <class Cell, class T>
CellKernels<T> cell_kernels_of() {
  CellKernels<T> kernels;
  const auto add = [&]<int phase>(CellPhase<phase>) {
    if constexpr (phase < Cell::kInfo.phases) {
      kernels.forward[phase] = &recurrent_sequence_forward_kernel<Cell, phase, T>;
      kernels.backward[phase] = &recurrent_sequence_backward_kernel<Cell, phase, T>;
    }
  };
  add(CellPhase<0>{}), add(CellPhase<1>{}), add(CellPhase<2>{});
  return kernels;
}

/// The time loop with a cell's kernels given, whether or not the cell is in the table.
template <class T>
void run_cell(const Cuda& device, const RecurrentSequenceForward<T>& op, const CellKernels<T>&);
template <class T>
void run_cell(const Cuda& device, const RecurrentSequenceBackward<T>& op, const CellKernels<T>&);

}  // namespace carousel
