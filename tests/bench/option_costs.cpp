#include <fmt/format.h>
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <CLI/CLI.hpp>
#include <cstdio>
#include <ctime>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/data/labelled_data.h"
#include "engine/data/text_data.h"
#include "engine/run/machine.h"
#include "engine/run/training.h"
#include "engine/training/training_step.h"
#include "kernels/common/check.h"
#include "kernels/common/cpu_product.h"
#include "kernels/copy/copy.h"
#include "models/registry.h"

// What each option of the recurrent family costs on the CPU: whole steps of training a small model
// with and without it, in turn. An option that works element by element is held against the plain
// step. One that adds or saves products or passes over memory is held against what these would take
// at the rates of a large product and of a large copy, measured just before.
namespace carousel::bench {
namespace {

struct Sizes {
  double T = 64, B = 32, E = 128, H = 256, L = 2, P = 128, heads = 4, V = 96;
  double bytes = 4;  ///< of a stored number
  double rows() const { return T * B; }
  double units() const { return rows() * H; }
  /// Of a product with a matrix of so many elements: forward, and backward for both factors.
  double product(double elements) const { return 6 * rows() * elements; }
};

/// What an option adds to a step; negative: saves.
struct Added {
  double flops = 0, bytes = 0;
};

struct Case {
  std::string option;                 ///< of [model]: "key=value", and others after blanks
  std::string plain = "cell='lstm'";  ///< the same, without it and with it
  std::function<Added(const Sizes&)> added = {};  ///< empty: it works element by element
  std::string kind = "recurrent_lm";
};

/// Both parts of the gates are read and written again and kept, in both passes; so is c.
Added layer_norm(const Sizes& s) {
  return {.flops = s.L * s.units() * 17 * 9, .bytes = s.L * s.units() * s.bytes * 35};
}
/// W_hr comes, and W_hh, the next layer's input and the output layer read fewer columns.
Added projection(const Sizes& s) {
  const double saved = s.H - s.P;
  const double gates = s.L * 4 * s.H + (s.L - 1) * 4 * s.H + s.V;
  return {.flops = s.product(s.L * s.H * s.P - gates * saved),
          .bytes = s.L * s.units() * s.bytes * 4};
}
Added blocks(const Sizes& s) {
  return {.flops = -s.product(s.L * 4 * s.H * (s.H - s.H / s.heads))};
}
/// δ·W_hh and its gradient with W_hh, and two readings of rows of δ, h and products of both.
Added gradient_norm_penalty(const Sizes& s) {
  return {.flops = s.L * 2 * 2 * s.units() * s.H, .bytes = s.L * s.units() * (2 * s.bytes + 8) * 2};
}
/// Of the top layer: h is read, its gradient read and written.
Added activation_penalty(const Sizes& s) { return {.flops = 0, .bytes = s.units() * s.bytes * 3}; }
/// The same products; r∘h is kept where the other GRU keeps a product.
Added reset_before(const Sizes&) { return {}; }
/// A second direction in each layer, and layers that read both.
Added bidirectional(const Sizes& s) {
  const double first = 4 * s.H * (s.E + s.H), next = 4 * s.H * (2 * s.H + s.H);
  const double plain = first + (s.L - 1) * 4 * s.H * 2 * s.H;
  const double passes = 2 * (4 + 4 + 2 + 2 + 1 + 1);  // gates, states and h, written and read again
  return {.flops = s.product(2 * first + 2 * (s.L - 1) * next - plain),
          .bytes = s.L * s.units() * s.bytes * passes};
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all{
      {"dropout=0.3"},
      {"embedding_dropout=0.1"},
      {"variational_input=0.3"},
      {"variational_hidden=0.3"},
      {"variational_output=0.3"},
      {"variational_recurrent=0.3"},
      {"recurrent_dropout=0.2"},
      {"weight_drop=0.4"},
      {"zoneout_h=0.1"},
      {"zoneout_c=0.3"},
      {"peephole=true"},
      {"cell_clip=3"},
      {"gradient_clip=1"},
      {"learn_initial_state=true"},
      {"residual=true"},
      {"layer_norm=true", "cell='lstm'", layer_norm},
      {"projection=128", "cell='lstm'", projection},
      {"activation_penalty=2", "cell='lstm'", activation_penalty},
      {"temporal_penalty=1", "cell='lstm'", activation_penalty},
      {"heads=4", "cell='lstm'", blocks},
      {"heads=4", "cell='slstm'", blocks},
      {"reset_before=true", "cell='gru'", reset_before},
      {"gradient_norm_penalty=1", "cell='tanh'", gradient_norm_penalty},
      {"bidirectional=true", "cell='lstm' pooling='mean'", bidirectional, "classifier"},
  };
  return all;
}

struct Options {
  std::string precision = "f32", only;
  int threads = 1, rounds = 30;
  bool processor_time = false;
};

/// Seconds since some beginning: by the clock, or of all threads of this process.
double now(const Options& options) {
  if (options.processor_time) return static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <class Work>
double seconds(const Options& options, const Work& work) {
  const double began = now(options);
  work();
  return now(options) - began;
}

double median(std::vector<double> of) {
  const auto middle = of.begin() + static_cast<std::ptrdiff_t>(of.size() / 2);
  std::nth_element(of.begin(), middle, of.end());
  return *middle;
}

/// As a stream, or as labelled texts that are all as long as a window.
Corpus corpus_of(const std::string& kind, const Sizes& s) {
  std::string text;
  std::uint32_t state = 1;
  const auto window = static_cast<std::size_t>(s.T);
  for (std::size_t i = 0; i < 4000 * window; ++i) {
    if (kind == "classifier" && i % window == 0) text += i / window % 2 == 0 ? "\np\t" : "\nq\t";
    state = state * 1664525 + 1013904223;
    text += static_cast<char>('!' + (state >> 16) % 94);
  }
  if (kind == "classifier") return LabelledData().corpus(Text::in_memory(text.substr(1) + '\n'));
  return TextData().corpus({Text::in_memory(text)});
}

/// A model in training, as the driver makes it.
struct Trained {
  Trained(const Case& of, bool with_option, const Options& options, const Sizes& s)
      : config(text(of, with_option, s), "config", model_registry(),
               {.device = "cpu", .precision = options.precision, .threads = options.threads}),
        corpus(corpus_of(of.kind, s)),
        training(config, corpus, open_device(config.machine)),
        step(training.run, training.step_parts(false, {})) {}

  static std::string text(const Case& of, bool with_option, const Sizes& s) {
    std::string options = with_option ? of.plain + ' ' + of.option : of.plain;
    std::replace(options.begin(), options.end(), ' ', '\n');
    return fmt::format(
        "[model]\nkind = '{}'\nembed = {}\nhidden = {}\nlayers = {}\n{}\n"
        "[data]\nkind = '{}'\ntext = 'unread'\n[train]\nbatch = {}\nwindow = {}\n"
        "[optimizer]\nkind = 'adamw'\nclip_norm = 1.0\n",
        of.kind, s.E, s.H, s.L, options, of.kind == "classifier" ? "labelled" : "text", s.B, s.T);
  }
  void run() {
    step.begin();
    step.run();
  }

  RunConfig config;
  Corpus corpus;
  Training training;
  TrainingStep step;
};

struct Rates {
  double flops, bytes;  ///< per second
};

Rates rates(const Options& options, const Sizes& s) {
  const auto m = static_cast<std::int64_t>(s.rows()), k = static_cast<std::int64_t>(s.H);
  const std::int64_t n = 4 * k, copied = std::int64_t{1} << 24;
  std::vector<float> a(static_cast<std::size_t>(m * k), 0.5F), b(static_cast<std::size_t>(k * n)),
      c(static_cast<std::size_t>(m * n)), from(static_cast<std::size_t>(copied), 1.0F), to(from);
  const CpuProduct<float> product{
      .transpose_b = true, .m = m, .n = n, .k = k, .a = a.data(), .b = b.data(), .c = c.data()};
  const Cast<float, float> copy{.from = {from.data(), {copied}}, .to = {to.data(), {copied}}};
  std::vector<double> products, copies;
  for (int round = 0; round < 11; ++round) {
    products.push_back(seconds(options, [&] { multiply(product); }));
    copies.push_back(seconds(options, [&] { run(Cpu{}, copy); }));
  }
  return {.flops = 2 * static_cast<double>(m * n * k) / median(products),
          .bytes = 2 * static_cast<double>(copied) * sizeof(float) / median(copies)};
}

void measure(const Case& of, const Options& options, const Sizes& s) {
  Trained plain(of, false, options, s);
  std::unique_ptr<Trained> with;
  try {
    with = std::make_unique<Trained>(of, true, options, s);
  } catch (const ConfigError& error) {
    fmt::print("{:<28} {}\n", of.option, error.what());
    return;
  }
  const Rates rate = of.added ? rates(options, s) : Rates{1, 1};
  std::vector<double> plain_times, with_times, ratios;
  for (int round = -3; round < options.rounds; ++round) {
    double time[2];
    for (const int turn : {0, 1}) {  // each is first in turn
      const int which = (turn + round) & 1;
      time[which] = seconds(options, [&] { (which == 0 ? plain : *with).run(); });
    }
    if (round < 0) continue;  // warm-up
    plain_times.push_back(time[0]);
    with_times.push_back(time[1]);
    ratios.push_back(time[1] / time[0]);
  }
  const double before = median(plain_times), ratio = median(ratios);
  fmt::print("{:<28} {:>9.2f} {:>9.2f} {:>7.2f}", of.option, 1e3 * before, 1e3 * median(with_times),
             ratio);
  if (of.added) {
    const auto [flops, bytes] = of.added(s);
    const double predicted = 1 + (flops / rate.flops + bytes / rate.bytes) / before;
    fmt::print(" {:>9.2f} {:>9.2f} {:>8.0f} {:>6.1f}", predicted, ratio / predicted,
               1e-9 * rate.flops, 1e-9 * rate.bytes);
  }
  fmt::print("\n");
  std::fflush(stdout);
}

void measure_all(const Options& options) {
  Sizes s;
  s.bytes = options.precision == "bf16" ? 2 : 4;
  fmt::print(
      "Steps of training, {}, {} threads: embedding {}, {} layers of {}, batch {}, window {}.\n"
      "Medians of {} rounds, milliseconds.\n\n"
      "{:<28} {:>9} {:>9} {:>7} {:>9} {:>9} {:>8} {:>6}\n",
      options.precision, options.threads, s.E, s.L, s.H, s.B, s.T, options.rounds, "option",
      "without", "with", "ratio", "predicted", "measured/", "GFLOP/s", "GB/s");
  std::string plain;
  for (const Case& of : cases()) {
    if (of.option.find(options.only) == std::string::npos) continue;
    const std::string group = fmt::format("{}, {}", of.kind, of.plain);
    if (group != plain) fmt::print("-- {}\n", plain = group);
    measure(of, options, s);
  }
}

}  // namespace
}  // namespace carousel::bench

int main(int argc, char** argv) {
  carousel::bench::Options options;
  options.threads = omp_get_max_threads();
  CLI::App app{"What the options of recurrent layers cost in a step of training on the CPU"};
  app.add_option("--precision", options.precision)->check(CLI::IsMember({"f32", "bf16"}));
  app.add_option("--threads", options.threads)->check(CLI::PositiveNumber);
  app.add_option("--rounds", options.rounds)->check(CLI::PositiveNumber);
  app.add_option("--only", options.only, "options whose text has this in it");
  app.add_flag("--processor-time", options.processor_time,
               "not the clock's: with one thread, on a machine that is busy with other things");
  CLI11_PARSE(app, argc, argv);
  try {
    carousel::bench::measure_all(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
