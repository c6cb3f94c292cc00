#include "kernels/recurrent_sequence/cells/table.h"
#include "kernels/recurrent_sequence/cuda/backward_loop.cuh"
#include "kernels/recurrent_sequence/cuda/forward_loop.cuh"
#include "kernels/recurrent_sequence/recurrent_sequence.h"

namespace carousel {
namespace {

template <class T>
struct KernelsOf {
  template <class Cell>
  struct Code {
    static inline const CellKernels<T> value = cell_kernels_of<Cell, T>();
  };
};

}  // namespace

template <class T>
void RecurrentSequenceForward<T>::run(const Cuda& device) const {
  run_cell(device, *this, code_of<KernelsOf<T>::template Code>(cell));
}

template <class T>
void RecurrentSequenceBackward<T>::run(const Cuda& device) const {
  run_cell(device, *this, code_of<KernelsOf<T>::template Code>(cell));
}

template <class T>
std::size_t RecurrentSequenceForward<T>::scratch_bytes(const Cuda&) const {
  ScratchCutter cut;
  lay_out(cut, *this);
  return cut.bytes();
}

template <class T>
std::size_t RecurrentSequenceBackward<T>::scratch_bytes(const Cuda&) const {
  ScratchCutter cut;
  lay_out(cut, *this);
  return cut.bytes();
}

template void run_cell(const Cuda&, const RecurrentSequenceForward<float>&,
                       const CellKernels<float>&);
template void run_cell(const Cuda&, const RecurrentSequenceForward<bf16>&,
                       const CellKernels<bf16>&);
template void run_cell(const Cuda&, const RecurrentSequenceBackward<float>&,
                       const CellKernels<float>&);
template void run_cell(const Cuda&, const RecurrentSequenceBackward<bf16>&,
                       const CellKernels<bf16>&);
template void RecurrentSequenceForward<float>::run(const Cuda&) const;
template void RecurrentSequenceForward<bf16>::run(const Cuda&) const;
template void RecurrentSequenceBackward<float>::run(const Cuda&) const;
template void RecurrentSequenceBackward<bf16>::run(const Cuda&) const;
template std::size_t RecurrentSequenceForward<float>::scratch_bytes(const Cuda&) const;
template std::size_t RecurrentSequenceForward<bf16>::scratch_bytes(const Cuda&) const;
template std::size_t RecurrentSequenceBackward<float>::scratch_bytes(const Cuda&) const;
template std::size_t RecurrentSequenceBackward<bf16>::scratch_bytes(const Cuda&) const;

}  // namespace carousel
