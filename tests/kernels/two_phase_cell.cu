#include "kernels/recurrent_sequence/cuda/cell_kernels.cuh"
#include "tests/kernels/two_phase_cell.h"

namespace carousel::test {
namespace {

template <template <class> class Op, class T>
void run_on(const Cuda& cuda, const Op<T>& op) {
  run_cell(cuda, op, cell_kernels_of<TwoPhase, T>());
}
}  // namespace

template <class Op>
void run_two_phase_on_cuda(const Cuda& cuda, const Op& op) {
  run_on(cuda, op);
}

template void run_two_phase_on_cuda(const Cuda&, const RecurrentSequenceForward<float>&);
template void run_two_phase_on_cuda(const Cuda&, const RecurrentSequenceForward<bf16>&);
template void run_two_phase_on_cuda(const Cuda&, const RecurrentSequenceBackward<float>&);
template void run_two_phase_on_cuda(const Cuda&, const RecurrentSequenceBackward<bf16>&);

}  // namespace carousel::test
