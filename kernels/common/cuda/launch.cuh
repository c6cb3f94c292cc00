#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "kernels/common/cuda/context.cuh"
#include "kernels/common/device.h"
#include "kernels/common/journal.h"

namespace carousel {

/// The shape of a launch. An extent of 0 is no error: nothing is launched.
struct Grid {
  std::int64_t blocks = 1, blocks_y = 1, blocks_z = 1;
  unsigned threads = 1, threads_y = 1;
  std::size_t shared_bytes = 0;  ///< dynamic shared memory: sizeof the struct given to
                                 ///< dynamic_shared<S>()
  unsigned cluster = 1;          ///< blocks per cluster, along x
  bool cooperative = false;  ///< all blocks resident at once, so that they can wait for each other
  Where at = Where::here();

  bool empty() const { return blocks == 0 || blocks_y == 0 || blocks_z == 0; }
};

/// Notes a launch in the journal.
void note_launch(Journal& journal, const Grid& grid, const void* kernel);

/// Queues `kernel` on the device's stream and checks the launch. Kernels start only here, so that no
/// launch lacks its stream, its attributes or its error check. With CAROUSEL_SYNC=1 in the
/// environment it waits after every launch, so that a fault is reported at its own launch.
template <class... Params>
void launch(const Cuda& device, const Grid& grid, void (*kernel)(Params...),
            std::type_identity_t<Params>... args) {
  if (grid.empty()) return;
  if (grid.shared_bytes > 48 * 1024) {  // more than the default must be asked for
    check_cuda(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                    cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    static_cast<int>(grid.shared_bytes)),
               "kernel attribute", grid.at);
  }
  cudaLaunchAttribute attributes[2];
  unsigned count = 0;
  if (grid.cluster > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count].val.clusterDim.x = grid.cluster;
    attributes[count].val.clusterDim.y = 1;
    attributes[count++].val.clusterDim.z = 1;
  }
  if (grid.cooperative) {
    attributes[count].id = cudaLaunchAttributeCooperative;
    attributes[count++].val.cooperative = 1;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(grid.blocks), static_cast<unsigned>(grid.blocks_y),
                        static_cast<unsigned>(grid.blocks_z));
  config.blockDim = dim3(grid.threads, grid.threads_y, 1);
  config.dynamicSmemBytes = grid.shared_bytes;
  config.stream = device.stream();
  config.attrs = attributes;
  config.numAttrs = count;
  if (Journal* const journal = Journal::mine()) {
    note_launch(*journal, grid, reinterpret_cast<const void*>(kernel));
  }
  check_cuda(cudaLaunchKernelEx(&config, kernel, args...), "kernel launch", grid.at);
  if (device.context().synchronous) device.synchronize();
}

/// Blocks for `items` at `per_block` each, up to a limit: kernels stride over the rest, so that no
/// grid limit applies and small problems start no idle blocks.
inline std::int64_t blocks_for(std::int64_t items, std::int64_t per_block,
                               std::int64_t cap = 1 << 20) {
  return std::min(cap, (items + per_block - 1) / per_block);
}

}  // namespace carousel
