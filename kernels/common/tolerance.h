#pragma once

namespace carousel {

/// How far a result may be from the oracle's: |got − want| ≤ absolute + relative·|want|, a test
/// written so that NaN fails it. `worst` is the largest value of
/// |got − want| / (absolute + relative·|want|) that the op's seeded sweep has shown on the CPU and
/// the emulated device; the sweep's test fails when it is exceeded there, when a GPU's exceeds 1, or
/// when the tolerance is more than ten times larger than necessary (worst < 0.1).
struct Tolerance {
  double absolute = 0;
  double relative = 0;
  double worst = 1;
};

/// What an op promises for each storage type.
struct Tolerances {
  Tolerance f32;
  Tolerance bf16;
};

}  // namespace carousel
