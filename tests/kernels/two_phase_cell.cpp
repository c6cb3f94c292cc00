#include "tests/kernels/two_phase_cell.h"

#include "kernels/recurrent_sequence/loop_cpu.h"

namespace carousel::test {
namespace {

template <template <class> class Op, class T>
void run_on(const Cpu& cpu, const Op<T>& op) {
  run_cell(cpu, op, cell_rows_of<TwoPhase, T>());
}
#if CAROUSEL_CUDA
template <class Op>
void run_on(const Cuda& cuda, const Op& op) {
  run_two_phase_on_cuda(cuda, op);
}
#endif

}  // namespace

template <class Op>
void run_two_phase(const Device& device, const Op& op) {
  op.check();
  dispatch<Op>(device, [&](const auto& d) { run_on(d, op); });
}

template void run_two_phase(const Device&, const RecurrentSequenceForward<float>&);
template void run_two_phase(const Device&, const RecurrentSequenceForward<bf16>&);
template void run_two_phase(const Device&, const RecurrentSequenceForward<double>&);
template void run_two_phase(const Device&, const RecurrentSequenceBackward<float>&);
template void run_two_phase(const Device&, const RecurrentSequenceBackward<bf16>&);
template void run_two_phase(const Device&, const RecurrentSequenceBackward<double>&);

}  // namespace carousel::test
