#include "engine/config/config.h"

#include <gtest/gtest.h>

#include <string>

#include "kernels/common/check.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

using test::error_text;
using test::TemporaryFolder;

Config parse(const std::string& text) { return Config::parse(text, "a.toml", "/folder"); }

TEST(Config, SettingsComeInTheOrderOfTheFileWithTheirLines) {
  const Config config = parse("[zebra]\nb = 1\n\n[apple]\na = \"x\"  # why\nc = [1]\n");
  ASSERT_EQ(config.settings().size(), 3U);
  EXPECT_EQ(config.settings()[0].name(), "zebra.b");
  EXPECT_EQ(config.settings()[0].source, "a.toml:2");
  EXPECT_EQ(config.settings()[1].name(), "apple.a");
  EXPECT_EQ(config.settings()[1].source, "a.toml:5");
  EXPECT_EQ(config.settings()[2].text, "an array");
  EXPECT_EQ(config.folder(), "/folder");
}

TEST(Config, AFileThatIsNotTomlIsNamedWithItsLine) {
  for (const char* text : {"[model]\nhidden = \n", "[model]\nhidden 5\n", "\n[model\n",
                           "[model]\na = 1\na = 2\n", "[model]\na = \"\xFF\"\n"}) {
    const std::string error = error_text<ConfigError>([&] { parse(text); });
    EXPECT_TRUE(error.starts_with("a.toml:")) << error;
    EXPECT_EQ(error.find('\n'), std::string::npos) << error;
  }
}

// What toml++ would crash on, or take for granted.
TEST(Config, WhatNoConfigHasIsRefusedBeforeItIsParsed) {
  std::string deep;
  for (int i = 0; i < 40'000; ++i) deep += "a.";
  for (const std::string& text :
       {deep + "a = 1", "[" + deep + "a]", "x = {" + deep + "a = 1}",
        "x = [{y = 1, " + deep + "a = 1}]", "x = {y = \"\"\"a\"\"\"\", " + deep + "a = 1}",
        "x = {y = '''a'''', " + deep + "a = 1}", "a." + deep + "\"b\" = 1"}) {
    EXPECT_EQ(error_text<ConfigError>([&] { parse("\n" + text); }),
              "a.toml:2: a key of more than 8 parts, expected section.key");
  }
  for (const char* text : {"x = é", "é = 1", "[é]", "x = 1é", "x = [é", "x = 0xé", "x = \x01"}) {
    EXPECT_EQ(error_text<ConfigError>([&] { parse(text); }),
              "a.toml:1: a character outside ASCII, expected it between quotation marks");
  }
  EXPECT_NE(error_text<ConfigError>([&] { parse("#" + std::string(1 << 20, 'x')); }).find("bytes"),
            std::string::npos);
  Config config = parse(
      "\xEF\xBB\xBF# é a.b.c.d.e.f.g.h.i.j\n[s]\na = \"é.\\\".a.b.c.d.e.f.g.h.i.j\"\nb = "
      "'é.a.b.c.d.e.f.g.h\\'\n"
      "c = \"\"\"\né.a.b.c.d.e.f.g.h.i\"\"\"\n");
  EXPECT_EQ(config.text("s", "a", ""), "é.\".a.b.c.d.e.f.g.h.i.j");
  EXPECT_EQ(config.text("s", "b", ""), "é.a.b.c.d.e.f.g.h\\");
  EXPECT_EQ(config.text("s", "c", ""), "é.a.b.c.d.e.f.g.h.i");
  config.set("s.d={" + deep + "a = 1}");
  config.set("s.e=été.txt");
  EXPECT_EQ(config.text("s", "e", ""), "été.txt");
}

TEST(Config, AFileThatCannotBeReadIsAnIoError) {
  const TemporaryFolder folder;
  EXPECT_THROW(Config::read(folder / "nowhere.toml"), IoError);
  EXPECT_THROW(Config::read(folder.path()), IoError);
}

TEST(Config, TheCommandLineComesOverTheFileAndTheLastWordCounts) {
  Config config = parse("[model]\nhidden = 1\n");
  config.set("model.hidden=2");
  config.set("model.hidden=3");
  config.set("train.batch=8");
  EXPECT_EQ(std::get<std::int64_t>(config.find("model", "hidden")->value), 3);
  EXPECT_EQ(config.find("model", "hidden")->source, "--set model.hidden=3");
  EXPECT_EQ(std::get<std::int64_t>(config.find("train", "batch")->value), 8);
  EXPECT_EQ(config.settings().size(), 2U);
}

TEST(Config, BareWordsOfTheCommandLineAreText) {
  Config config;
  for (const char* text : {"kjv.txt", "a b = c", "", "5", "1979-05-27", "x\ny = 1", "1\ny = 1"}) {
    config.set(std::string("data.text=") + text);
    EXPECT_EQ(config.text("data", "text", "none"), text);
  }
  config.set("data.text=\"quoted \\\" text\"");
  EXPECT_EQ(config.text("data", "text", "none"), "quoted \" text");
}

TEST(Config, AnAssignmentThatIsNoneIsRefused) {
  for (const char* text : {"", "model", "model.hidden", "hidden=5", ".hidden=5", "model.=5", "="}) {
    Config config;
    EXPECT_EQ(error_text<ConfigError>([&] { config.set(text); }),
              std::string("--set ") + text + ": expected section.key=value");
  }
}

TEST(Config, AKeyThatDecidesOnTheOptionsMustBeText) {
  const Config config = parse("[model]\nkind = 5\n");
  EXPECT_EQ(config.text("model", "other", "default"), "default");
  EXPECT_EQ(error_text<ConfigError>([&] { config.text("model", "kind", ""); }),
            "model.kind in a.toml:2 is 5, expected a string");
}

TEST(Config, StringsAreEscapedSuchThatTomlReadsThemBack) {
  std::string all = "кар\"усель\\";
  for (int c = 1; c < 128; ++c) all += static_cast<char>(c);
  const Config config = parse("[a]\nb = " + toml_string(all) + "\n");
  EXPECT_EQ(config.text("a", "b", ""), all);
}

}  // namespace
}  // namespace carousel
