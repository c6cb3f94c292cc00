#include "kernels/sampled_loss/sampled_loss.h"

#include "kernels/common/check.h"

namespace carousel {

template <class A>
void SampledCandidates<A>::check() const {
  expect_at_least("sampled_candidates: candidates", candidate.extent[0], target.extent[0]);
  expect_extent("sampled_candidates: extent of counted", counted.extent[0], 1);
  if (candidate.extent[0] == target.extent[0]) return;
  expect_at_least("sampled_candidates: columns of the table", table.columns.extent[0], 1);
  expect_present("sampled_candidates: the step of the source", source.step.present());
}

template <class T>
void SampledLoss<T>::check() const {
  const auto [rows, width] = hidden.extent;
  const std::int64_t candidates = candidate.extent[0];
  expect_at_least("sampled_loss: candidates", candidates, rows + 1);
  expect_extent("sampled_loss: rows of row", row.extent[0], candidates);
  expect_extent("sampled_loss: columns of row", row.extent[1], width);
  expect_extent("sampled_loss: extent of bias", bias.extent[0], candidates);
  expect_at_least("sampled_loss: extent of log_expected", log_expected.extent[0], 1);
  expect_extent("sampled_loss: extent of denominator", denominator.extent[0], 1);
  expect_extent("sampled_loss: rows of loss", loss.extent[0], rows);
  expect_extent("sampled_loss: extent of mean_loss", mean_loss.extent[0], 1);
  if (d_hidden.present()) {
    expect_extent("sampled_loss: rows of d_hidden", d_hidden.view.extent[0], rows);
    expect_extent("sampled_loss: columns of d_hidden", d_hidden.view.extent[1], width);
  }
  if (!d_row.present()) return;
  expect_extent("sampled_loss: rows of d_row", d_row.extent[0], candidates);
  expect_extent("sampled_loss: columns of d_row", d_row.extent[1], width);
  expect_extent("sampled_loss: extent of d_bias", d_bias.extent[0], candidates);
}

template void SampledCandidates<float>::check() const;
template void SampledCandidates<double>::check() const;
template void SampledLoss<float>::check() const;
template void SampledLoss<bf16>::check() const;
template void SampledLoss<double>::check() const;

}  // namespace carousel
