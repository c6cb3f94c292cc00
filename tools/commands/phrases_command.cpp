#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "engine/files/atomic.h"
#include "engine/files/matrix_file.h"
#include "engine/text/phrases.h"
#include "kernels/common/check.h"
#include "tools/commands/commands.h"
#include "tools/console/json_line.h"
#include "tools/console/progress.h"
#include "tools/console/streams.h"

namespace carousel {
namespace {

constexpr std::size_t kWaitingBytes = std::size_t{1} << 20;

}  // namespace

int phrases_command(const PhrasesArguments& arguments, const CommonArguments& common) {
  expect_new_file(arguments.out);
  const std::filesystem::path path = arguments.text;
  if (std::filesystem::exists(path) && !std::filesystem::is_regular_file(path)) {
    throw ConfigError(fmt::format(
        "{} is not a regular file, expected one: the text is read three times", arguments.text));
  }
  const Text text(arguments.text);
  const Phrases phrases(text, {.discount = arguments.discount, .threshold = arguments.threshold});
  NewFile file(arguments.out);
  std::string waiting;
  const auto write = [&] {
    file.file().write(waiting);
    waiting.clear();
  };
  const std::int64_t joined = phrases.join(text, [&](std::string_view line) {
    waiting += line;
    if (waiting.size() > kWaitingBytes) write();
  });
  write();
  file.commit();
  if (common.json) {
    write_output(json_line({{"file", arguments.out},
                            {"words", phrases.words()},
                            {"phrases", phrases.count()},
                            {"joined", joined}}));
  } else {
    write_output(fmt::format("{}: {} of {}, {} joined\n", arguments.out,
                             counted(phrases.count(), "phrase"), counted(phrases.words(), "word"),
                             joined));
  }
  return 0;
}

}  // namespace carousel
