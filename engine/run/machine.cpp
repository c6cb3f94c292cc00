#include "engine/run/machine.h"

#include <fmt/format.h>
#include <omp.h>

#include "kernels/common/check.h"

namespace carousel {

void MachineConfig::describe(OptionSection& section) {
  section
      .add("device", device, "where to run; auto: a GPU if there is one",
           {{"auto", DeviceChoice::automatic},
            {"cpu", DeviceChoice::cpu},
            {"cuda", DeviceChoice::cuda}})
      .may_change();
  section.add("precision", precision, "of products; weights stay float",
              {{"f32", Precision::f32}, {"tf32", Precision::tf32}, {"bf16", Precision::bf16}});
  section.add("threads", threads, "CPU threads; 0: all cores", {0, 4096}).may_change();
  section.add("graph", graph, "on CUDA, a step is one CUDA graph; the same bits").may_change();
}

Device open_device(const MachineConfig& machine) {
  if (machine.threads > 0) omp_set_num_threads(static_cast<int>(machine.threads));
#if CAROUSEL_CUDA
  const bool present = Cuda::count() > 0;
  const bool wanted = machine.device == DeviceChoice::cuda ||
                      (machine.device == DeviceChoice::automatic && present);
  if (wanted && !present) throw ConfigError("run.device is cuda, and this machine has no CUDA GPU");
  if (wanted) return Cuda();
#else
  if (machine.device == DeviceChoice::cuda) {
    throw ConfigError(
        "run.device is cuda, and this build has no CUDA: configure with -DCAROUSEL_CUDA=ON");
  }
#endif
  if (machine.precision == Precision::tf32) {
    throw ConfigError("run.precision is tf32, which only CUDA knows; on the CPU use f32 or bf16");
  }
  return Cpu{};
}

std::string device_text(const Device& device) {
#if CAROUSEL_CUDA
  if (const Cuda* cuda = std::get_if<Cuda>(&device)) return cuda->name();
#endif
  const int threads = is_cpu(device) ? omp_get_max_threads() : 0;
  return fmt::format("cpu ({} thread{})", threads, threads == 1 ? "" : "s");
}

DType compute_type(Precision precision) {
  return precision == Precision::bf16 ? DType::bf16 : DType::f32;
}

}  // namespace carousel
