#include "kernels/common/cuda/launch.cuh"

#include <string>

#include "kernels/common/journal.h"
#include "kernels/common/symbol.h"

namespace carousel {

void note_launch(Journal& journal, const Grid& grid, const void* kernel) {
  const char* name = nullptr;
  check_cuda(cudaFuncGetName(&name, kernel), "kernel name", grid.at);
  std::string text = "kernel " + readable_symbol(name) + ", grid " +
                     std::to_string(grid.blocks * grid.blocks_y * grid.blocks_z) + " × " +
                     std::to_string(grid.threads * grid.threads_y);
  if (grid.shared_bytes > 0) text += ", " + std::to_string(grid.shared_bytes) + " B shared";
  if (grid.cluster > 1) text += ", clusters of " + std::to_string(grid.cluster);
  if (grid.cooperative) text += ", cooperative";
  journal.note(std::move(text));
}

}  // namespace carousel
