#include "engine/run/translations.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "engine/generation/beam_search.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

constexpr std::size_t kSideBySide = 32;  // sources of a search

Translator& translator_of(TrainedModel& trained) {
  if (Translator* const translator = trained.model().translator()) return *translator;
  throw ConfigError(
      fmt::format("predict: model.kind = {} translates nothing", trained.config().kind));
}

}  // namespace

Translations::Translations(TrainedModel& trained)
    : trained_(trained), translator_(translator_of(trained)) {}

LineEncoder Translations::encoder(std::string name) const {
  return {source(), std::move(name), LineEncoder::End::closed};
}

std::vector<std::vector<Hypothesis>> Translations::translate(std::span<const LineIds> lines,
                                                             BeamOptions options,
                                                             std::uint64_t first_line) {
  options.suppressed.insert(options.suppressed.end(), {target().unknown(), target().begin()});
  std::vector<LineIds> read(lines.begin(), lines.end());
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < read.size(); ++i) {
    std::erase(read[i], source().begin());
    const bool is_empty = read[i].empty() || read[i].front() == source().end();
    if (!is_empty) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return read[a].size() < read[b].size(); });
  BeamSearch search(translator_, trained_.device(),
                    {.begin = target().begin(), .end = target().end()}, options);
  std::vector<std::vector<Hypothesis>> result(lines.size());
  for (std::size_t first = 0; first < order.size(); first += kSideBySide) {
    const auto numbers =
        std::span(order).subspan(first).first(std::min(kSideBySide, order.size() - first));
    std::vector<LineIds> sources;
    std::vector<std::uint64_t> streams;
    for (const std::size_t number : numbers) {
      sources.push_back(std::move(read[number]));
      streams.push_back(first_line + number);
    }
    std::vector<std::vector<Hypothesis>> found = search.search(sources, streams);
    for (std::size_t i = 0; i < numbers.size(); ++i) result[numbers[i]] = std::move(found[i]);
  }
  return result;
}

std::string Translations::text(const Hypothesis& hypothesis) const {
  std::vector<std::int32_t> ids = hypothesis.tokens;
  if (hypothesis.ended) ids.pop_back();
  return target().decode(ids);
}

}  // namespace carousel
