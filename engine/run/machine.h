#pragma once

#include <cstdint>
#include <string>

#include "engine/config/options.h"
#include "engine/tape/tensor.h"

namespace carousel {

enum class DeviceChoice : std::uint8_t { automatic, cpu, cuda };
enum class Precision : std::uint8_t { f32, tf32, bf16 };

/// Section [run]: where and how, which changes speed and rounding and not what is computed.
struct MachineConfig {
  DeviceChoice device = DeviceChoice::automatic;
  Precision precision = Precision::f32;
  std::int64_t threads = 0;
  bool graph = true;

  void describe(OptionSection& section);
};

/// Sets the threads and opens the device that a config asks for. ConfigError if this build or this
/// machine has none, or if it does not know the precision.
Device open_device(const MachineConfig& machine);

/// The device's name for people: "cpu (2 threads)", "cuda (emulated)", "NVIDIA H200".
std::string device_text(const Device& device);

/// The type in which products read their inputs.
DType compute_type(Precision precision);

}  // namespace carousel
