#include <fmt/format.h>

#include <cmath>

#include "kernels/common/check.h"
#include "kernels/common/cpu_parallel.h"
#include "kernels/scheduled_tokens/scheduled_tokens.h"

namespace carousel {

void ScheduledTokens::check() const {
  expect_extent("scheduled_tokens: own tokens", own.extent[0], given.extent[0]);
  expect_extent("scheduled_tokens: tokens", token.extent[0], given.extent[0]);
  expect_present("scheduled_tokens: step of random", random.step.present());
  if (!(forcing.steps > 0)) {
    throw ConfigError(
        fmt::format("scheduled_tokens: steps is {}, expected more than 0", forcing.steps));
  }
  if (!(forcing.least >= 0 && forcing.least <= 1)) {
    throw ConfigError(fmt::format("scheduled_tokens: least is {}, expected 0 to 1", forcing.least));
  }
}

void ScheduledTokens::run(const Cpu&) const {
  const std::int64_t step = random.step.data[0];
  const double share = given_share(forcing, step, [](double x) { return std::exp(x); });
  in_chunks(given.extent[0], [&](std::int64_t begin, std::int64_t count) {
    for (std::int64_t n = begin; n < begin + count; ++n) {
      const auto words = random.words(static_cast<std::uint64_t>(first + n), step);
      const bool is_given = static_cast<double>(uniform(words[0])) < share || own(n) < 0;
      token(n) = is_given ? given(n) : own(n);
    }
  });
}

}  // namespace carousel
