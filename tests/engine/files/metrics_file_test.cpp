#include "engine/files/metrics_file.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "kernels/common/check.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

using test::error_text;
using test::file_content;
using test::TemporaryFolder;

std::vector<MetricField> line_of(std::int64_t step) {
  return {{"step", step}, {"loss", 1.0 / static_cast<double>(step)}};
}

TEST(Metrics, FieldsKeepTheirOrderAndNumbersTheirKind) {
  const std::vector<MetricField> line{{"step", std::int64_t{7}},
                                      {"loss", 2.0},
                                      {"learning_rate", 0.002},
                                      {"note", std::string("a \"b\"\n")}};
  EXPECT_EQ(metrics_line(line),
            R"({"step":7,"loss":2.0,"learning_rate":0.002,"note":"a \"b\"\n"})");
}

TEST(Metrics, NumbersThatAreNoneAreWords) {
  const double inf = std::numeric_limits<double>::infinity();
  EXPECT_EQ(metrics_line(std::vector<MetricField>{{"a", std::nan("")}, {"b", inf}, {"c", -inf}}),
            R"({"a":"nan","b":"inf","c":"-inf"})");
}

TEST(Metrics, DoublesReadBackBitForBit) {
  std::mt19937_64 random(5);
  for (int i = 0; i < 10'000; ++i) {
    const double value = std::bit_cast<double>(random());
    if (!std::isfinite(value)) continue;
    const auto json = nlohmann::json::parse(metrics_line(std::vector<MetricField>{{"x", value}}));
    EXPECT_EQ(json["x"].get<double>(), value);
  }
}

TEST(Metrics, ALineIsInTheFileAsSoonAsItIsAppended) {
  const TemporaryFolder folder;
  MetricsFile file(folder / "metrics.jsonl", -1);
  file.append(line_of(1));
  EXPECT_EQ(file_content(folder / "metrics.jsonl"), "{\"step\":1,\"loss\":1.0}\n");
  file.append({{"step", std::int64_t{2}}});
  EXPECT_EQ(file_content(folder / "metrics.jsonl"), "{\"step\":1,\"loss\":1.0}\n{\"step\":2}\n");
}

TEST(Metrics, TheLastLineIsExtendedIfItIsOfThatStep) {
  const std::vector<MetricField> more{{"step", std::int64_t{2}}, {"found", 0.5}};
  for (const auto& [before, after] : std::vector<std::pair<std::string, std::string>>{
           {"{\"step\":1}\n{\"step\":2,\"a\":{}}\n",
            "{\"step\":1}\n{\"step\":2,\"a\":{},\"found\":0.5}\n"},
           {"{\"step\":2}\n", "{\"step\":2,\"found\":0.5}\n"},
           {"{\"step\":1}\n", "{\"step\":1}\n{\"step\":2,\"found\":0.5}\n"},
           {"", "{\"step\":2,\"found\":0.5}\n"}}) {
    const TemporaryFolder folder;
    folder.write("metrics.jsonl", before);
    MetricsFile file(folder / "metrics.jsonl", 2);
    file.extend_last(more);
    file.append({{"step", std::int64_t{3}}});
    EXPECT_EQ(file_content(folder / "metrics.jsonl"), after + "{\"step\":3}\n");
  }
}

TEST(Metrics, AResumedRunCutsOffWhatCameAfterItsCheckpoint) {
  const TemporaryFolder folder;
  const auto path = folder / "metrics.jsonl";
  std::string whole, up_to_6;
  for (std::int64_t step = 1; step <= 9; ++step) {
    whole += metrics_line(line_of(step)) + "\n";
    if (step == 6) up_to_6 = whole;
  }
  // However far the killed run got beyond step 6: nothing, half a line, lines.
  for (std::size_t bytes = up_to_6.size(); bytes <= whole.size(); ++bytes) {
    test::write_content(path, whole.substr(0, bytes));
    MetricsFile file(path, 6);
    EXPECT_EQ(file_content(path), up_to_6) << bytes;
    for (std::int64_t step = 7; step <= 9; ++step) file.append(line_of(step));
    EXPECT_EQ(file_content(path), whole);
  }
}

TEST(Metrics, ANewRunStartsAfreshAndAMissingFileIsMade) {
  const TemporaryFolder folder;
  const auto path = folder / "metrics.jsonl";
  { const MetricsFile file(path, 6); }
  EXPECT_EQ(file_content(path), "");
  test::write_content(path, "anything");
  { const MetricsFile file(path, -1); }
  EXPECT_EQ(file_content(path), "");
}

TEST(Metrics, ABadLineInTheMiddleIsNamedAndNothingIsCutOff) {
  const TemporaryFolder folder;
  const auto path = folder / "metrics.jsonl";
  for (const char* bad : {"{\"step\":", "[]", "{\"loss\":1}", "{\"step\":1.5}", ""}) {
    const std::string text = "{\"step\":1}\n" + std::string(bad) + "\n{\"step\":3}\n";
    test::write_content(path, text);
    const std::string error = error_text<FormatError>([&] { const MetricsFile file(path, 9); });
    EXPECT_TRUE(error.starts_with(path.string() + ":2:")) << error;
    EXPECT_EQ(file_content(path), text);
  }
}

}  // namespace
}  // namespace carousel
