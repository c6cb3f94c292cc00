// How the model's weights begin, against how PyTorch's do: tests/golden/*_initial_values.json.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "kernels/recurrent_sequence/cell.h"
#include "models/recurrent/recurrent_lm.h"
#include "tests/support/golden.h"

namespace carousel {
namespace {

using Numbers = std::vector<double>;

/// What a recording of initial values says of a weight.
struct Statistics {
  double least = 0, greatest = 0, mean = 0, variance = 0;
};

Statistics statistics(const Numbers& values) {
  Statistics s{.least = values[0], .greatest = values[0]};
  const auto n = static_cast<double>(values.size());
  for (const double v : values) {
    s.least = std::min(s.least, v), s.greatest = std::max(s.greatest, v);
    s.mean += v / n;
  }
  for (const double v : values) s.variance += (v - s.mean) * (v - s.mean) / n;
  return s;
}

/// Two samples of n numbers with the same distribution: five standard errors apart at most. Where
/// that has bounds (`bounded`), the extremes of the samples are as close to each other as they are
/// to the bounds: 10 / n of the range, but for one in 20,000.
void expect_alike(const Statistics& got, const Statistics& want, double n, bool bounded) {
  EXPECT_NEAR(got.mean, want.mean, 5 * std::sqrt(2 * want.variance / n));
  const double kurtosis = bounded ? 0.8 : 2;  // of a uniform, a normal distribution; less 1
  EXPECT_NEAR(got.variance, want.variance, 5 * want.variance * std::sqrt(2 * kurtosis / n));
  if (!bounded) return;
  EXPECT_NEAR(got.least, want.least, 10 / n * (want.greatest - want.least));
  EXPECT_NEAR(got.greatest, want.greatest, 10 / n * (want.greatest - want.least));
}

/// The largest |element| of MMᵀ − 1 or MᵀM − 1, whichever is smaller, over the blocks M of rows.
double gram_error(const Numbers& matrix, std::size_t columns, std::size_t blocks) {
  const std::size_t rows = matrix.size() / columns / blocks, count = std::min(rows, columns);
  double worst = 0;
  for (std::size_t block = 0; block < blocks; ++block) {
    const auto at = [&](std::size_t i, std::size_t k) {
      const std::size_t r = rows <= columns ? i : k, c = rows <= columns ? k : i;
      return matrix[(block * rows + r) * columns + c];
    };
    for (std::size_t i = 0; i < count; ++i) {
      for (std::size_t j = 0; j <= i; ++j) {
        double dot = 0;
        for (std::size_t k = 0; k < std::max(rows, columns); ++k) dot += at(i, k) * at(j, k);
        worst = std::max(worst, std::abs(dot - (i == j ? 1 : 0)));
      }
    }
  }
  return worst;
}

class GoldenInitialValues : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Cells, GoldenInitialValues, testing::Values("lstm", "gru"));

TEST_P(GoldenInitialValues, AreDistributedAsPyTorchs) {
  const std::string cell = GetParam();
  const test::Golden golden(cell + "_initial_values");
  for (const std::string kind : {"uniform", "xavier", "orthogonal"}) {
    const nlohmann::json& options = golden.options;
    RecurrentLm model({.vocabulary = options.at("vocabulary"),
                       .embed = options.at("embed"),
                       .encoder = {.cell = {cell},
                                   .hidden = options.at("hidden"),
                                   .layers = options.at("layers"),
                                   .init = kind,
                                   .forget_bias = 0}},
                      Cpu{}, DType::f32, /*seed=*/1);
    const Parameters& parameters = model.parameters();
    for (std::size_t i = 0; i < parameters.count(); ++i) {
      const std::string& name = parameters.name(i);
      SCOPED_TRACE(kind + "." + name);
      const Numbers values = test::as_double(parameters.weight(i));
      const Numbers& want = golden.values.at(kind + "." + name).values;
      const bool is_token = name == "embedding.weight";
      expect_alike(statistics(values), {want[0], want[1], want[2], want[3]},
                   static_cast<double>(values.size()), kind != "orthogonal" && !is_token);
      if (want.size() > 4) {
        ASSERT_LT(want[4], 1e-12);
        const int gates = name.starts_with(cell) ? cell_kind(cell)->gates : 1;
        const auto columns = static_cast<std::size_t>(parameters.weight(i).shape().back());
        EXPECT_LT(gram_error(values, columns, static_cast<std::size_t>(gates)), 1e-6);
      }
    }
  }
}

}  // namespace
}  // namespace carousel
