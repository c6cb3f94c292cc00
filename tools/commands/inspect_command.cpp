#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>

#include "engine/config/nearest.h"
#include "engine/files/matrix_file.h"
#include "engine/text/utf8.h"
#include "engine/training/checkpoint.h"
#include "engine/vectors/judgement.h"
#include "engine/vectors/word_map.h"
#include "kernels/common/check.h"
#include "tools/commands/commands.h"
#include "tools/console/json_line.h"
#include "tools/console/progress.h"
#include "tools/console/streams.h"

namespace carousel {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMostOnMap = 500;  // the time grows with the third power

/// What is told, in words and as JSON.
struct Answer {
  std::string text;
  Json json;
};

/// The words of a run, or of a file of vectors, and what is asked about them.
class Inspection {
 public:
  Inspection(const InspectArguments& arguments, const CommonArguments& common)
      : arguments_(arguments),
        file_(VectorFile::open(find_weights(arguments.run, arguments.checkpoint))),
        space_(*file_, open_device(machine_config(common)),
               arguments.ignore_case ? WordSpace::Case::ignored : WordSpace::Case::told_apart) {}

  Answer answer() const {
    if (arguments_.what == "similarity") return similarity();
    if (arguments_.what == "analogies") return analogies();
    return arguments_.what == "map" ? map() : neighbours();
  }
  /// What it is read from.
  std::string source() const {
    return fmt::format("{} of {}, {} numbers each", counted(space_.words(), "word"),
                       file_->path().string(), space_.width());
  }
  const std::filesystem::path& path() const { return file_->path(); }

 private:
  Answer neighbours() const;  ///< of one word, or of the answer to an analogy
  Answer similarity() const;
  Answer analogies() const;
  Answer map() const;
  /// ConfigError for a word that is not there or has no direction.
  std::int32_t id_of(const std::string& word) const;

  const InspectArguments& arguments_;
  std::unique_ptr<VectorFile> file_;
  WordSpace space_;
};

std::int32_t Inspection::id_of(const std::string& word) const {
  const std::int32_t id = space_.find(word);
  if (id < 0) {
    std::vector<std::string> known;
    for (std::int32_t i = 0; i < space_.words(); ++i) known.push_back(space_.word(i));
    const std::string meant = nearest(word, known);
    throw ConfigError(fmt::format("'{}' is none of the {} of {}{}", word,
                                  counted(space_.words(), "word"), file_->path().string(),
                                  meant.empty() ? "" : fmt::format(", did you mean '{}'?", meant)));
  }
  const auto vector = space_.vector(id);
  if (std::all_of(vector.begin(), vector.end(), [](float number) { return number == 0; })) {
    throw ConfigError(fmt::format("the vector of '{}' is zero, which is near to nothing", word));
  }
  return id;
}

Answer Inspection::neighbours() const {
  std::vector<std::int32_t> ids;
  for (const std::string& word : arguments_.words) ids.push_back(id_of(word));
  const WordQuery query = ids.size() == 1 ? WordQuery{.plus = ids}
                                          : WordQuery{.plus = {ids[1], ids[2]}, .minus = {ids[0]}};
  Answer answer{.text = {}, .json = {{"words", arguments_.words}, {"neighbours", Json::array()}}};
  const auto found = space_.nearest(std::span(&query, 1), arguments_.top);
  for (const Neighbour& one : found.front()) {
    answer.text += fmt::format("{}\t{:.4f}\n", escaped(space_.word(one.word)), one.cosine);
    answer.json["neighbours"].push_back({{"word", space_.word(one.word)}, {"cosine", one.cosine}});
  }
  return answer;
}

Answer Inspection::similarity() const {
  const SimilarityJudgement result = judge(space_, read_scored_pairs(arguments_.file));
  const std::int64_t judged = result.pairs - result.unknown;
  const bool none = std::isnan(result.spearman);  // which JSON has not
  const std::string value = none ? "-" : fmt::format("{:.4f}", result.spearman);
  return {fmt::format("Spearman {} over {}; {} with an unknown word\n", value,
                      counted(judged, "pair"), result.unknown),
          {{"spearman", none ? Json() : Json(result.spearman)},
           {"pairs", result.pairs},
           {"judged", judged},
           {"unknown_pairs", result.unknown}}};
}

Json json_of(const AnalogyJudgement& one) {
  return {{"section", one.section},
          {"questions", one.questions},
          {"unknown", one.unknown},
          {"correct", one.correct},
          {"accuracy", std::isnan(one.accuracy()) ? Json() : Json(one.accuracy())}};
}

Answer Inspection::analogies() const {
  std::vector<AnalogyJudgement> sections =
      judge(space_, read_analogies(arguments_.file), arguments_.most_frequent);
  const AnalogyJudgement all = total(sections);
  Answer answer{.text = {}, .json = json_of(all)};
  answer.json.erase("section");
  answer.json["sections"] = Json::array();
  for (const AnalogyJudgement& one : sections) answer.json["sections"].push_back(json_of(one));
  sections.push_back(all);
  std::size_t width = 0;
  for (const AnalogyJudgement& one : sections) width = std::max(width, one.section.size());
  for (const AnalogyJudgement& one : sections) {
    const std::string accuracy =
        std::isnan(one.accuracy()) ? "-" : fmt::format("{:.1f} %", 100 * one.accuracy());
    answer.text +=
        fmt::format("{:<{}}  {:>7}  {} right of {}; {} with an unknown word\n", one.section, width,
                    accuracy, one.correct, one.questions - one.unknown, one.unknown);
  }
  return answer;
}

Answer Inspection::map() const {
  std::vector<std::span<const float>> vectors;
  for (const std::string& word : arguments_.words) vectors.push_back(space_.vector(id_of(word)));
  const WordMap map = principal_components(vectors);
  Answer answer{.text = svg(map, arguments_.words),
                .json = {{"share", map.share}, {"points", Json::array()}}};
  for (std::size_t i = 0; i < map.points.size(); ++i) {
    answer.json["points"].push_back(
        {{"word", arguments_.words[i]}, {"x", map.points[i][0]}, {"y", map.points[i][1]}});
  }
  if (arguments_.out.empty()) return answer;
  write_file_atomically(arguments_.out, answer.text);
  answer.text =
      fmt::format("{}: {}, {:.1f} % of their variance\n", arguments_.out,
                  counted(std::ssize(map.points), "word"), 100 * (map.share[0] + map.share[1]));
  return answer;
}

void check(const InspectArguments& a) {
  if (a.top < 1 || a.top > WordSpace::kMostNeighbours) {
    throw ConfigError(
        fmt::format("--top is {}, expected 1 to {}", a.top, WordSpace::kMostNeighbours));
  }
  if (a.most_frequent < 0) {
    throw ConfigError(
        fmt::format("--most-frequent is {}, expected 1 or more, or 0 for all", a.most_frequent));
  }
  if (a.what == "map" && (a.words.size() < 2 || a.words.size() > kMostOnMap)) {
    throw ConfigError(
        fmt::format("map: {}, expected 2 to {}", counted(std::ssize(a.words), "word"), kMostOnMap));
  }
  if (!a.out.empty()) expect_new_file(a.out);
}

}  // namespace

int inspect_command(const InspectArguments& arguments, const CommonArguments& common) {
  if (arguments.what == "attention") return attention_command(arguments, common);
  check(arguments);
  const Inspection inspection(arguments, common);
  const Answer answer = inspection.answer();
  if (common.json) {
    Json whole{{"what", arguments.what}, {"file", inspection.path().string()}};
    whole.update(answer.json);
    write_output(json_line(whole));
    return 0;
  }
  talk(fmt::format("inspect: {}\n", inspection.source()));
  write_output(answer.text);
  return 0;
}

}  // namespace carousel
