#include "tools/console/explain.h"

#include <fmt/format.h>

#include "kernels/common/cpu_product.h"
#include "kernels/common/memory.h"
#include "tools/console/progress.h"

namespace carousel {
namespace {

std::string precision_text(const Device& device, Precision precision) {
  switch (precision) {
    case Precision::f32:
      return is_cpu(device) ? "f32"
                            : "f32; refused: tf32 and bf16, which round the inputs of products: "
                              "--precision asks for them";
    case Precision::tf32:
      return "tf32: training's products round their inputs to 10 bits after the point; all else, "
             "and evaluation, is f32";
    case Precision::bf16:
      break;
  }
  std::string text = "bf16: products read bf16 and sum in float; weights, moments and sums are f32";
  if (is_cpu(device) && !multiplies_bf16()) {
    text += "; refused: bf16 products, which this CPU multiplies no faster than their exact f32";
  }
  return text;
}

std::string steps_text(const Device& device, const MachineConfig& machine) {
  if (is_cpu(device)) return "as they come; graphs are CUDA's";
  if (!machine.graph)
    return "eager, kernel by kernel; refused: CUDA graphs, for run.graph is false";
  return "one CUDA graph each from the second of its shape on; the first is eager";
}

std::string memory_text(const Device& device, const std::vector<MemoryPart>& parts) {
  const MemoryUse use = memory_use(device);
  std::string text = fmt::format("{} now, peak {}:", bytes_text(use.current), bytes_text(use.peak));
  std::size_t rest = use.current;
  for (const MemoryPart& part : parts) {
    if (part.bytes == 0) continue;
    text += fmt::format(" {} {},", part.purpose, bytes_text(part.bytes));
    rest -= part.bytes;
  }
  return text + fmt::format(" all else {}", bytes_text(rest));
}

/// An op with one kernel takes one line.
void write(std::string& text, const Journal::Entry& entry, int indent) {
  text += fmt::format("\n{:{}}", "", indent);
  if (entry.count > 1) text += fmt::format("{} × ", entry.count);
  text += entry.text;
  const auto& within = entry.entries;
  if (within.size() == 1 && within[0].entries.empty() && within[0].count == 1) {
    text += ": " + within[0].text;
    return;
  }
  for (const Journal::Entry& part : within) write(text, part, indent + 2);
}

}  // namespace

std::string Explanation::text(bool trains, const std::vector<MemoryPart>& parts) const {
  std::string text = fmt::format("device: {}\nprecision: {}", description(device_),
                                 precision_text(device_, machine_.precision));
  if (trains) text += "\nsteps: " + steps_text(device_, machine_);
  text += "\nmemory: " + memory_text(device_, parts) + "\nwhat ran:";
  for (const Journal::Entry& entry : journal_.entries()) write(text, entry, 2);
  return text;
}

}  // namespace carousel
