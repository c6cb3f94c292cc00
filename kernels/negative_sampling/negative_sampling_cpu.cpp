#include "kernels/common/check.h"
#include "kernels/negative_sampling/negative_sampling.h"

namespace carousel {
namespace {

// Below this many rows, waking the threads costs more than the work.
constexpr std::int64_t kWorthThreads = 256;

}  // namespace

void NegativeSampling::check() const {
  const std::int64_t rows = target.extent[0];
  expect_at_least("negative_sampling: columns of noise", noise.columns.extent[0], 1);
  expect_at_least("negative_sampling: group", group, 1);
  expect_extent("negative_sampling: rows of choice", choice.extent[0], rows);
  expect_at_least("negative_sampling: columns of choice", choice.extent[1], 2);
  expect_extent("negative_sampling: rows of answer", answer.extent[0], rows);
  expect_extent("negative_sampling: columns of answer", answer.extent[1], choice.extent[1]);
  expect_present("negative_sampling: source.step", source.step.present());
}

void NegativeSampling::run(const Cpu&) const {
  const std::int64_t rows = target.extent[0];
#pragma omp parallel for schedule(static) if (rows >= kWorthThreads)
  for (std::int64_t n = 0; n < rows; ++n) write_row(n);
}

}  // namespace carousel
