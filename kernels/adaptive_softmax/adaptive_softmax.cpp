#include "kernels/adaptive_softmax/adaptive_softmax.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "kernels/common/check.h"

namespace carousel {

AdaptiveCutoffs adaptive_cutoffs(std::span<const std::int64_t> cutoffs, std::int64_t vocabulary) {
  const auto refuse = [&](const std::string& expected) {
    throw ConfigError(fmt::format("adaptive_softmax: cutoffs are [{}], expected {}",
                                  fmt::join(cutoffs, ", "), expected));
  };
  if (cutoffs.empty() || cutoffs.size() > AdaptiveCutoffs::kMostClusters) {
    refuse(fmt::format("1 to {} of them", AdaptiveCutoffs::kMostClusters));
  }
  AdaptiveCutoffs result{.clusters = static_cast<int>(cutoffs.size())};
  std::copy(cutoffs.begin(), cutoffs.end(), result.bound.begin());
  result.bound[cutoffs.size()] = vocabulary;
  for (std::size_t k = 0; k < cutoffs.size(); ++k) {
    if (result.bound[k] <= (k == 0 ? 0 : result.bound[k - 1]) || result.bound[k] >= vocabulary) {
      refuse(
          fmt::format("rising numbers of words above 0 and below the vocabulary's {}", vocabulary));
    }
  }
  return result;
}

void AdaptiveCutoffs::check() const {
  expect_at_least("adaptive_softmax: clusters", clusters, 1);
  expect_at_least("adaptive_softmax: room for clusters", kMostClusters, clusters);
  expect_at_least("adaptive_softmax: words of the shortlist", shortlist(), 1);
  for (int k = 0; k < clusters; ++k) {
    expect_at_least("adaptive_softmax: words of a cluster", words(k), 1);
  }
}

template <class A>
void AdaptiveRoute<A>::check() const {
  cutoffs.check();
  const std::int64_t rows = target.extent[0], clusters = cutoffs.clusters;
  expect_extent("adaptive_route: rows of head_target", head_target.extent[0], rows);
  for (const View<std::int32_t, 2>& each : {row, local, place}) {
    expect_extent("adaptive_route: clusters of row, local and place", each.extent[0], clusters);
    expect_extent("adaptive_route: rows of row, local and place", each.extent[1], rows);
  }
  expect_extent("adaptive_route: extent of count", count.extent[0], clusters);
  expect_extent("adaptive_route: extent of counted", counted.extent[0], 1);
}

template <class T>
void SelectRows<T>::check() const {
  expect_extent("select_rows: rows of to", to.view.extent[0], row.extent[0]);
  expect_extent("select_rows: columns of to", to.view.extent[1], from.extent[1]);
}

template <class T>
void AdaptiveLogProbabilities<T>::check() const {
  cutoffs.check();
  const std::int64_t rows = head.extent[0];
  expect_extent("adaptive_log_probabilities: columns of head", head.extent[1], cutoffs.head());
  expect_extent("adaptive_log_probabilities: rows of y", y.extent[0], rows);
  expect_extent("adaptive_log_probabilities: columns of y", y.extent[1], cutoffs.vocabulary());
  if (!tail.present()) return;
  expect_at_least("adaptive_log_probabilities: cluster", cluster, 0);
  expect_at_least("adaptive_log_probabilities: clusters", cutoffs.clusters, cluster + 1);
  expect_extent("adaptive_log_probabilities: rows of tail", tail.extent[0], rows);
  expect_extent("adaptive_log_probabilities: columns of tail", tail.extent[1],
                cutoffs.words(cluster));
}

template void AdaptiveRoute<float>::check() const;
template void AdaptiveRoute<double>::check() const;
template void SelectRows<float>::check() const;
template void SelectRows<bf16>::check() const;
template void SelectRows<double>::check() const;
template void AdaptiveLogProbabilities<float>::check() const;
template void AdaptiveLogProbabilities<bf16>::check() const;
template void AdaptiveLogProbabilities<double>::check() const;

}  // namespace carousel
