#include "kernels/recurrent_sequence/backward_products_cpu.h"
#include "kernels/recurrent_sequence/cells/table.h"
#include "kernels/recurrent_sequence/forward_cpu.h"

namespace carousel {
namespace {

template <class T>
struct RowsOf {
  template <class Cell>
  struct Code {
    static constexpr CellRows<T> value = cell_rows_of<Cell, T>();
  };
};

template <class Pass, class T>
void run_pass(const Cpu& cpu, const auto& op, const CellRows<T>& rows) {
  ScratchCutter cut(cpu, op.scratch);
  Pass pass(op, rows, cut);
  cut.expect_enough("recurrent_sequence: scratch bytes");
  pass.run();
}

template <class Pass, class T>
std::size_t bytes_of(const auto& op) {
  ScratchCutter cut;
  const CellRows<T> none{};
  Pass(op, none, cut);
  return cut.bytes();
}

}  // namespace

template <class T>
void run_cell(const Cpu& cpu, const RecurrentSequenceForward<T>& op, const CellRows<T>& rows) {
  run_pass<ForwardPass<T>>(cpu, op, rows);
}

template <class T>
void run_cell(const Cpu& cpu, const RecurrentSequenceBackward<T>& op, const CellRows<T>& rows) {
  run_pass<BackwardPass<T>>(cpu, op, rows);
}

template <class T>
void RecurrentSequenceForward<T>::run(const Cpu& cpu) const {
  run_cell(cpu, *this, code_of<RowsOf<T>::template Code>(cell));
}

template <class T>
void RecurrentSequenceBackward<T>::run(const Cpu& cpu) const {
  run_cell(cpu, *this, code_of<RowsOf<T>::template Code>(cell));
}

template <class T>
std::size_t RecurrentSequenceForward<T>::scratch_bytes(const Cpu&) const {
  return bytes_of<ForwardPass<T>, T>(*this);
}

template <class T>
std::size_t RecurrentSequenceBackward<T>::scratch_bytes(const Cpu&) const {
  return bytes_of<BackwardPass<T>, T>(*this);
}

template void run_cell(const Cpu&, const RecurrentSequenceForward<float>&, const CellRows<float>&);
template void run_cell(const Cpu&, const RecurrentSequenceForward<bf16>&, const CellRows<bf16>&);
template void run_cell(const Cpu&, const RecurrentSequenceForward<double>&,
                       const CellRows<double>&);
template void run_cell(const Cpu&, const RecurrentSequenceBackward<float>&, const CellRows<float>&);
template void run_cell(const Cpu&, const RecurrentSequenceBackward<bf16>&, const CellRows<bf16>&);
template void run_cell(const Cpu&, const RecurrentSequenceBackward<double>&,
                       const CellRows<double>&);
template void RecurrentSequenceForward<float>::run(const Cpu&) const;
template void RecurrentSequenceForward<bf16>::run(const Cpu&) const;
template void RecurrentSequenceForward<double>::run(const Cpu&) const;
template void RecurrentSequenceBackward<float>::run(const Cpu&) const;
template void RecurrentSequenceBackward<bf16>::run(const Cpu&) const;
template void RecurrentSequenceBackward<double>::run(const Cpu&) const;
template std::size_t RecurrentSequenceForward<float>::scratch_bytes(const Cpu&) const;
template std::size_t RecurrentSequenceForward<bf16>::scratch_bytes(const Cpu&) const;
template std::size_t RecurrentSequenceForward<double>::scratch_bytes(const Cpu&) const;
template std::size_t RecurrentSequenceBackward<float>::scratch_bytes(const Cpu&) const;
template std::size_t RecurrentSequenceBackward<bf16>::scratch_bytes(const Cpu&) const;
template std::size_t RecurrentSequenceBackward<double>::scratch_bytes(const Cpu&) const;

}  // namespace carousel
