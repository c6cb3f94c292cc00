#include "engine/config/options.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>
#include <string>

#include "engine/config/nearest.h"
#include "kernels/common/check.h"
#include "tests/support/files.h"

namespace carousel {
namespace {

namespace fs = std::filesystem;
using test::error_text;
using test::TemporaryFolder;

enum class Unit { stream, line };

/// One variable of every kind, described as a model and a trainer would.
struct Example {
  int hidden = 256, layers = 2;
  std::int64_t seed = 1;
  float dropout = 0.2F;
  double learning_rate = 2e-3;
  bool tied = false;
  std::string kind = "lstm_lm", tokens = "char";
  fs::path text;
  Unit unit = Unit::stream;
  Options options;

  Example() {
    OptionSection& model = options.section("model", "the network");
    model.add("kind", kind, "which model");
    model.add("hidden", hidden, "units per layer", {.least = 1, .most = 65536});
    model.add("layers", layers, "stacked layers", {.least = 1});
    model.add("dropout", dropout, "between layers", {.least = 0, .most = 1, .below_most = true});
    model.add("tied", tied, "embedding is the output matrix");
    OptionSection& data = options.section("data");
    data.add("text", text, "the corpus");
    data.add("tokens", tokens, "what a token is", {"byte", "char", "word"});
    data.add("unit", unit, "what a row is", {{"stream", Unit::stream}, {"line", Unit::line}});
    OptionSection& train = options.section("train");
    train.add("seed", seed, "of all random numbers");
    train.add("learning_rate", learning_rate, "per step", {.least = 0, .above_least = true});
  }
  void apply(const std::string& text_of_file) {
    options.apply(Config::parse(text_of_file, "c.toml", "/corpora"));
  }
  std::string error(const std::string& text_of_file) {
    return error_text<ConfigError>([&] { apply(text_of_file); });
  }
};

TEST(Options, EveryKindIsReadAndWhatIsNotSetKeepsItsDefault) {
  Example e;
  e.apply(
      "[model]\nkind = \"gru_lm\"\nhidden = 512\ndropout = 0\ntied = true\n"
      "[data]\ntext = \"kjv.txt\"\ntokens = \"word\"\nunit = \"line\"\n"
      "[train]\nseed = 9223372036854775807\nlearning_rate = 1\n");
  EXPECT_EQ(e.kind, "gru_lm");
  EXPECT_EQ(e.hidden, 512);
  EXPECT_EQ(e.layers, 2);
  EXPECT_EQ(e.dropout, 0.0F);
  EXPECT_TRUE(e.tied);
  EXPECT_EQ(e.text, "/corpora/kjv.txt");
  EXPECT_EQ(e.tokens, "word");
  EXPECT_EQ(e.unit, Unit::line);
  EXPECT_EQ(e.seed, 9223372036854775807);
  EXPECT_EQ(e.learning_rate, 1.0);
}

TEST(Options, AFloatThatIsWholeIsAnInteger) {
  Example e;
  e.apply("[model]\nhidden = 2e3\n[train]\nseed = -1e18\n");
  EXPECT_EQ(e.hidden, 2000);
  EXPECT_EQ(e.seed, -1'000'000'000'000'000'000);
  for (const char* value : {"2.5", "1e30", "inf", "nan", "-inf"}) {
    EXPECT_NE(e.error(std::string("[train]\nseed = ") + value), "") << value;
  }
  EXPECT_NE(e.error("[train]\nseed = 9.3e18"), "");  // just beyond 63 bits
}

struct Refusal {
  const char* file;
  const char* error;
};

TEST(Options, ErrorsNameKeyPlaceValueAndWhatWasExpected) {
  const Refusal refusals[] = {
      {"[model]\nhidden = -3", "model.hidden in c.toml:2 is -3, expected an integer of 1 to 65536"},
      {"[model]\nlayers = 0", "model.layers in c.toml:2 is 0, expected an integer of at least 1"},
      {"[model]\nlayers = 2147483648",
       "model.layers in c.toml:2 is 2147483648, expected an integer of -2147483648 to 2147483647"},
      {"[model]\nhidden = \"8\"",
       "model.hidden in c.toml:2 is \"8\", expected an integer of 1 to 65536"},
      {"[model]\ndropout = 1",
       "model.dropout in c.toml:2 is 1, expected a number of at least 0 and below 1"},
      {"[model]\ndropout = 0.999999999999",
       "model.dropout in c.toml:2 is 0.999999999999, expected a number of at least 0 and below 1"},
      {"[model]\ndropout = nan",
       "model.dropout in c.toml:2 is nan, expected a number of at least 0 and below 1"},
      {"[train]\nlearning_rate = 0.0",
       "train.learning_rate in c.toml:2 is 0, expected a number above 0"},
      {"[train]\nlearning_rate = inf",
       "train.learning_rate in c.toml:2 is inf, expected a number above 0"},
      {"[model]\ntied = 1", "model.tied in c.toml:2 is 1, expected true or false"},
      {"[model]\nkind = 7", "model.kind in c.toml:2 is 7, expected a string"},
      {"[model]\nkind = [7]", "model.kind in c.toml:2 is an array, expected a string"},
      {"[model.kind]\na = 1", "model.kind in c.toml:1 is a table, expected a string"},
      {"[data]\ntext = 1979-05-27", "data.text in c.toml:2 is a date or time, expected a path"},
      {"[data]\n\ntokens = \"chars\"",
       "data.tokens in c.toml:3 is \"chars\", expected one of byte, char, word"},
      {"[data]\nunit = \"lines\"",
       "data.unit in c.toml:2 is \"lines\", expected one of stream, line"},
      {"[model]\nkind = \"a\"\n\nhiden = 5",
       "unknown key 'model.hiden' in c.toml:4; did you mean 'hidden'?"},
      {"[model]\nHIDDEN = 5", "unknown key 'model.HIDDEN' in c.toml:2; did you mean 'hidden'?"},
      {"[model]\nseed = 5", "unknown key 'model.seed' in c.toml:2; did you mean 'train.seed'?"},
      {"[model]\nxyzzy = 5", "unknown key 'model.xyzzy' in c.toml:2"},
      {"hidden = 5",
       "unknown key 'hidden' in c.toml:1, outside any section; did you mean 'model.hidden'?"},
      {"[modle]\nhidden = 5", "unknown section 'modle' in c.toml:1; did you mean 'model'?"},
      {"\n[empty]\n", "unknown section 'empty' in c.toml:2"},
  };
  for (const Refusal& refusal : refusals) {
    EXPECT_EQ(Example().error(refusal.file), refusal.error);
  }
}

TEST(Options, TheCommandLineIsHeldToTheSameRules) {
  const auto error = [](const std::string& assignment) {
    return error_text<ConfigError>([&] {
      Config config;
      config.set(assignment);
      Example().options.apply(config);
    });
  };
  EXPECT_EQ(error("model.hidden=12"), "");
  EXPECT_EQ(error("model.kind=gru_lm"), "");
  EXPECT_EQ(error("data.unit=line"), "");
  EXPECT_EQ(
      error("model.hidden=twelve"),
      "model.hidden in --set model.hidden=twelve is twelve, expected an integer of 1 to 65536");
  EXPECT_EQ(error("model.hidden="),
            "model.hidden in --set model.hidden= is empty, expected an integer of 1 to 65536");
  EXPECT_EQ(error("model.hiden=5"),
            "unknown key 'model.hiden' in --set model.hiden=5; did you mean 'hidden'?");
  EXPECT_EQ(error("mdoel.hidden=5"),
            "unknown section 'mdoel' in --set mdoel.hidden=5; did you mean 'model'?");
}

TEST(Options, AWrongSettingThatTheCommandLineReplacesDoesNotCount) {
  Config config = Config::parse("[model]\nhidden = -3\n", "c.toml", "/");
  config.set("model.hidden=3");
  Example e;
  e.options.apply(config);
  EXPECT_EQ(e.hidden, 3);
}

TEST(Options, PathsStartAtTheConfigsFolderOrWhereTheUserIs) {
  const TemporaryFolder folder;
  folder.write("c.toml", "[data]\ntext = \"../corpora/./kjv.txt\"\n");
  Example e;
  Config config = Config::read(folder / "c.toml");
  e.options.apply(config);
  EXPECT_EQ(e.text, folder.path().parent_path() / "corpora/kjv.txt");
  config.set("data.text=kjv.txt");
  e.options.apply(config);
  EXPECT_EQ(e.text, fs::current_path() / "kjv.txt");
  config.set("data.text=/kjv.txt");
  e.options.apply(config);
  EXPECT_EQ(e.text, "/kjv.txt");
  config.set("data.text=");
  e.options.apply(config);
  EXPECT_EQ(e.text, "");
}

TEST(Options, ARequiredKeyThatIsMissingIsNamedWithItsMeaning) {
  fs::path text;
  Options options;
  options.section("data").add("text", text, "the corpus").require();
  EXPECT_EQ(error_text<ConfigError>([&] { options.apply(Config()); }),
            "data.text is missing, expected a path: the corpus");
  options.apply(Config::parse("[data]\ntext = \"a\"", "c.toml", "/"));
  EXPECT_EQ(text, "/a");
}

TEST(Options, TheConfigAsItRanNamesEveryOptionAndReadsBackTheSame) {
  Example e;
  e.apply("[data]\ntext = \"kjv.txt\"\n");
  const std::string text =
      "[model]\nkind = \"lstm_lm\"\nhidden = 256\nlayers = 2\ndropout = 0.2\ntied = false\n\n"
      "[data]\ntext = \"/corpora/kjv.txt\"\ntokens = \"char\"\nunit = \"stream\"\n\n"
      "[train]\nseed = 1\nlearning_rate = 0.002\n";
  EXPECT_EQ(e.options.toml(), text);
  Example again;
  again.options.apply(Config::parse(text, "config.toml", "/elsewhere"));
  EXPECT_EQ(again.options.toml(), text);
}

TEST(Options, EveryFloatAndDoubleIsWrittenSuchThatItReadsBackBitForBit) {
  float narrow = 0;
  double wide = 0;
  Options options;
  options.section("a").add("narrow", narrow, "");
  options.section("a").add("wide", wide, "");
  std::mt19937_64 random(13);
  for (int i = 0; i < 3000; ++i) {
    const auto n = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    const auto w = std::bit_cast<double>(random());
    if (!std::isfinite(n) || !std::isfinite(w)) continue;
    narrow = n;
    wide = w;
    const std::string text = options.toml();
    narrow = 7;
    wide = 7;
    options.apply(Config::parse(text, "c.toml", "/"));
    ASSERT_EQ(std::bit_cast<std::uint32_t>(narrow), std::bit_cast<std::uint32_t>(n)) << text;
    ASSERT_EQ(std::bit_cast<std::uint64_t>(wide), std::bit_cast<std::uint64_t>(w)) << text;
  }
}

TEST(Options, HelpShowsEveryOptionWithDefaultMeaningAndRange) {
  Example e;
  const std::string help = e.options.help();
  EXPECT_TRUE(help.starts_with("[model]  the network\n")) << help;
  for (const char* part : {"hidden = 256", "units per layer (an integer of 1 to 65536)",
                           "unit = \"stream\"", "(one of byte, char, word)", "text = \"\""}) {
    EXPECT_NE(help.find(part), std::string::npos) << part << " in\n" << help;
  }
}

TEST(Options, TheListHasTypesBoundsAndChoices) {
  Example e;
  e.options.section("train").add("seeds", e.seed, "", {.least = 0}).require().may_change();
  const auto option = [&](const std::string& section, const std::string& key) -> const Option& {
    for (const OptionSection& candidate : e.options.sections()) {
      for (const Option& o : candidate.options()) {
        if (candidate.name() == section && o.info().key == key) return o;
      }
    }
    throw ConfigError(section + "." + key);
  };
  const struct {
    const char *section, *key, *type, *value;
    std::optional<double> least, most;
    std::size_t choices;
  } cases[] = {{"model", "hidden", "integer", "256", 1.0, 65536.0, 0},
               {"model", "layers", "integer", "2", 1.0, {}, 0},
               {"model", "dropout", "number", "0.2", 0.0, 1.0, 0},
               {"model", "tied", "boolean", "false", {}, {}, 0},
               {"model", "kind", "string", "\"lstm_lm\"", {}, {}, 0},
               {"data", "text", "path", "\"\"", {}, {}, 0},
               {"data", "tokens", "choice", "\"char\"", {}, {}, 3},
               {"data", "unit", "choice", "\"stream\"", {}, {}, 2},
               {"train", "seed", "integer", "1", {}, {}, 0}};
  for (const auto& c : cases) {
    const OptionInfo& info = option(c.section, c.key).info();
    EXPECT_EQ(info.type, c.type) << c.key;
    EXPECT_EQ(option(c.section, c.key).value(), c.value);
    EXPECT_EQ(info.least, c.least) << c.key;
    EXPECT_EQ(info.most, c.most) << c.key;
    EXPECT_EQ(info.choices.size(), c.choices) << c.key;
    EXPECT_FALSE(info.required || info.may_change) << c.key;
  }
  EXPECT_TRUE(option("model", "dropout").info().below_most);
  EXPECT_FALSE(option("model", "dropout").info().above_least);
  EXPECT_TRUE(option("train", "learning_rate").info().above_least);
  const OptionInfo& seeds = option("train", "seeds").info();
  EXPECT_TRUE(seeds.required && seeds.may_change);
}

TEST(Options, NamesOfOtherProgramsAreUnderstood) {
  Example e;
  const char* const cases[][2] = {{"[train]\nlr = 1", "did you mean 'learning_rate'?"},
                                  {"[model]\nlr = 1", "did you mean 'train.learning_rate'?"},
                                  {"[model]\nhidden_size = 1", "did you mean 'hidden'?"},
                                  {"[model]\nDROPOUT_RATE = 1", "did you mean 'dropout'?"},
                                  {"[model]\nname = 1", "did you mean 'kind'?"},
                                  {"[training]\nseed = 1", "did you mean 'train'?"},
                                  {"[dataset]\ntext = ''", "did you mean 'data'?"}};
  for (const auto& [text, part] : cases)
    EXPECT_TRUE(e.error(text).ends_with(part)) << e.error(text);
}

TEST(Options, AKeyDescribedTwiceIsRefused) {
  int a = 0;
  Options options;
  options.section("x").add("a", a, "");
  EXPECT_THROW(options.section("x").add("a", a, ""), ConfigError);
}

TEST(Nearest, IsTheCandidateOfFewestEditsAndNoneThatIsFar) {
  const std::vector<std::string> keys{"hidden", "layers", "dropout", "embed", "lr"};
  EXPECT_EQ(nearest("hiden", keys), "hidden");
  EXPECT_EQ(nearest("hidedn", keys), "hidden");  // one exchange
  EXPECT_EQ(nearest("layer", keys), "layers");
  EXPECT_EQ(nearest("drop_out", keys), "dropout");
  EXPECT_EQ(nearest("rl", keys), "lr");
  EXPECT_EQ(nearest("colour", keys), "");
  EXPECT_EQ(nearest("", keys), "");
  EXPECT_EQ(nearest("hidden", {}), "");
}

}  // namespace
}  // namespace carousel
