#pragma once

#include <string>
#include <vector>

#include "engine/comparison/comparison_report.h"
#include "engine/data/labelled_data.h"
#include "engine/data/pairs_data.h"
#include "engine/data/text_data.h"
#include "engine/run/training.h"
#include "models/registry.h"

namespace carousel::test {

/// Texts of 1 to `longest` letters with one of three labels, or with what they say backwards, or all of
/// them as one stream.
inline Corpus corpus_of(const std::string& data_kind, int longest) {
  std::string labelled, paired, stream;
  for (int i = 0; i < 40; ++i) {
    std::string text;
    for (int n = 0; n <= i * 7 % longest; ++n) text += static_cast<char>('a' + (i + n * n) % 11);
    labelled += std::string(1, "pqr"[i % 3]) + '\t' + text + '\n';
    paired += text + '\t' + std::string(text.rbegin(), text.rend()) + '\n';
    stream += text;
  }
  if (data_kind == "labelled") return LabelledData().corpus(Text::in_memory(labelled));
  if (data_kind == "pairs") {
    PairsData pairs;
    pairs.tokens.rules.kind = TokenKind::character;
    return pairs.corpus({Text::in_memory(paired)});
  }
  return TextData().corpus({Text::in_memory(stream)});
}

/// A side of a comparison, made as the driver makes it.
struct Side {
  Side(const std::string& kind, const std::vector<std::string>& options, const Device& device,
       const char* precision, std::uint64_t seed = 3, int longest = 30)
      : config(text(kind), "config", model_registry(), {.set = options, .precision = precision}),
        corpus(corpus_of(config.data_kind, longest)),
        training(config, corpus, device),
        traced(training.run,
               {.schedule = config.schedule, .seed = seed, .accumulate = config.train.accumulate}) {
  }

  static std::string text(const std::string& kind) {
    return "[model]\nkind = '" + kind +
           "'\nembed = 6\nhidden = 9\ndropout = 0.3\nlabel_smoothing = 0.1\n" +
           (kind == "ngram_lm" ? "" : "layers = 2\n") + "[data]\nkind = '" +
           (kind == "classifier"        ? "labelled"
            : kind.ends_with("seq2seq") ? "pairs"
                                        : "text") +
           "'\ntext = 'unread'\n[train]\nbatch = 5\nwindow = 7\n[optimizer]\nkind = 'adamw'\n";
  }

  RunConfig config;
  Corpus corpus;
  Training training;
  TracedTraining traced;
};

}  // namespace carousel::test
