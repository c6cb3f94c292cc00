#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "engine/files/atomic.h"
#include "engine/files/matrix_file.h"
#include "engine/model/attention_picture.h"
#include "engine/model/attention_reader.h"
#include "engine/run/translations.h"
#include "engine/text/line_encoder.h"
#include "engine/text/prompt.h"
#include "kernels/common/check.h"
#include "models/registry.h"
#include "tools/commands/commands.h"
#include "tools/console/json_line.h"
#include "tools/console/progress.h"
#include "tools/console/streams.h"

namespace carousel {
namespace {

using Json = nlohmann::ordered_json;

/// A text as a field of one row, and its tokens as labels.
struct FieldText {
  Field field;
  std::vector<std::string> tokens;
};

FieldText field_text(const std::string& name, const LineIds& ids, const Vocabulary& vocabulary,
                     const Device& device) {
  FieldText text{.field = {.name = name,
                           .values = Tensor(device, {std::ssize(ids), 1}, DType::i32),
                           .lengths = Tensor(device, {1}, DType::i32)},
                 .tokens = {}};
  const auto length = static_cast<std::int32_t>(ids.size());
  copy_from_host(text.field.values, ids.data());
  copy_from_host(text.field.lengths, &length);
  for (const std::int32_t id : ids) text.tokens.push_back(vocabulary.token(id));
  return text;
}

/// The likeliest translation, from <bos> to <eos>.
LineIds translated(TrainedModel& trained, const LineIds& source) {
  Translations translations(trained);
  const Vocabulary& target = translations.target();
  const auto found = translations.translate(std::span(&source, 1), {});
  LineIds result = found.front().front().tokens;
  result.insert(result.begin(), target.begin());
  if (result.back() != target.end()) result.push_back(target.end());
  return result;
}

/// What a model of this kind reads of the texts that are given.
std::vector<FieldText> fields_of(const InspectArguments& a, TrainedModel& trained) {
  const auto ids = [&](const std::string& role, const std::string& text, const char* option) {
    LineEncoder encoder(
        trained.vocabularies()[role], option,
        trained.config().entry->translates ? LineEncoder::End::closed : LineEncoder::End::open);
    LineIds line = encoder.next(text);
    if (line.empty()) throw ConfigError(fmt::format("{} has no token", option));
    return line;
  };
  const auto field = [&](const std::string& name, const std::string& role, const LineIds& of) {
    return field_text(name, of, trained.vocabularies()[role], trained.device());
  };
  if (!trained.config().entry->translates) {
    if (!a.target.empty()) {
      throw ConfigError(fmt::format("--target is for models that translate, and model.kind is {}",
                                    trained.config().kind));
    }
    return {field("token", "token", ids("token", a.source, "--source"))};
  }
  LineIds source = ids("source", a.source, "--source");
  const LineIds target =
      a.target.empty() ? translated(trained, source) : ids("token", a.target, "--target");
  source.erase(source.begin());  // <bos>
  return {field("source", "source", source),
          field("token", "token", {target.begin(), target.end() - 1}),
          field("target", "token", {target.begin() + 1, target.end()})};
}

const std::vector<std::string>& labels(const std::vector<FieldText>& fields,
                                       const std::string& name) {
  const auto found = std::find_if(fields.begin(), fields.end(),
                                  [&](const FieldText& text) { return text.field.name == name; });
  if (found == fields.end()) throw Error(fmt::format("no field '{}' to label attention by", name));
  return found->tokens;
}

/// A picture of each head whose title contains `only`.
std::vector<AttentionPicture> pictures_of(TrainedModel& trained,
                                          const std::vector<FieldText>& fields,
                                          const std::string& only) {
  AttentionReader* const reader = trained.model().attention_reader();
  if (reader == nullptr) {
    throw ConfigError(
        fmt::format("attention: model.kind = {}{}", trained.config().kind,
                    trained.config().entry->translates ? " has none as it is set" : " has none"));
  }
  Arena arena(trained.device());
  Tape tape(arena, false);
  Pass pass(tape);
  Batch batch{.rows = 1, .first = true};
  for (const FieldText& text : fields) batch.fields.push_back(text.field);
  std::vector<AttentionPicture> pictures;
  std::size_t all = 0;
  for (const AttentionWeights& one : reader->attention_weights(pass, batch)) {
    const std::vector<float> weights = host_floats(one.weights);
    const std::int64_t heads = one.weights.shape()[1];
    const std::size_t size = weights.size() / static_cast<std::size_t>(heads);
    for (std::int64_t head = 0; head < heads; ++head) {
      const auto from = weights.begin() + head * static_cast<std::int64_t>(size);
      AttentionPicture picture{
          .title = heads == 1 ? one.name : fmt::format("{}, head {}", one.name, head),
          .rows = labels(fields, one.queries),
          .columns = labels(fields, one.keys),
          .weights = {from, from + static_cast<std::int64_t>(size)}};
      ++all;
      if (picture.title.find(only) != std::string::npos) pictures.push_back(std::move(picture));
    }
  }
  if (pictures.empty()) {
    throw ConfigError(
        fmt::format("--only is '{}', which none of the {} has in its title, as in 'layer 0'", only,
                    counted(static_cast<std::int64_t>(all), "picture")));
  }
  return pictures;
}

std::string json_of(const std::vector<AttentionPicture>& pictures) {
  Json all = Json::array();
  for (const AttentionPicture& picture : pictures) {
    Json rows = Json::array();
    for (std::size_t i = 0; i < picture.rows.size(); ++i) {
      const auto row =
          picture.weights.begin() + static_cast<std::ptrdiff_t>(i * picture.columns.size());
      rows.push_back(std::vector<float>(row, row + std::ssize(picture.columns)));
    }
    all.push_back({{"title", picture.title},
                   {"rows", picture.rows},
                   {"columns", picture.columns},
                   {"weights", std::move(rows)}});
  }
  return json_line({{"what", "attention"}, {"pictures", std::move(all)}});
}

}  // namespace

int attention_command(const InspectArguments& arguments, const CommonArguments& common) {
  const bool page = arguments.out.ends_with(".html");
  if (!arguments.out.empty()) {
    if (!page && !arguments.out.ends_with(".svg")) {
      throw ConfigError(
          fmt::format("--out is {}, expected a name that ends in .svg or .html", arguments.out));
    }
    expect_new_file(arguments.out);
  }
  TrainedModel trained(arguments.run, model_registry(), common, arguments.checkpoint);
  const std::vector<FieldText> fields = fields_of(arguments, trained);
  const auto pictures = pictures_of(trained, fields, arguments.only);
  if (!common.json) tell_checkpoint("inspect", trained);
  const std::string content = page ? html(pictures, arguments.source) : svg(pictures);
  if (!arguments.out.empty()) write_file_atomically(arguments.out, content);
  if (common.json) {
    write_output(json_of(pictures));
  } else if (arguments.out.empty()) {
    write_output(content);
  } else {
    print(fmt::format("{}: {}\n", arguments.out, counted(std::ssize(pictures), "picture")));
  }
  return 0;
}

}  // namespace carousel
