#include "engine/config/nearest.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <string_view>
#include <utility>

namespace carousel {
namespace {

int edit_distance(const std::string& a, const std::string& b) {
  // Optimal string alignment: three rows of the table of prefixes.
  std::vector<int> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = static_cast<int>(j);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    before = std::exchange(above, std::exchange(row, before));
    row[0] = static_cast<int>(i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const int replace = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, replace});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        row[j] = std::min(row[j], before[j - 2] + 1);
      }
    }
  }
  return row[b.size()];
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

struct NamesElsewhere {
  const char* here;
  std::string_view elsewhere;  ///< between blanks
};

constexpr NamesElsewhere kNames[] = {
    // Keys.
    {"batch", " batch_size batchsize bs "},
    {"cell", " rnn_type cell_type rnn "},
    {"clip_norm", " clip grad_clip clip_grad clip_grad_norm max_grad_norm max_norm "},
    {"dropout", " dropout_rate drop_rate dropout_p drop "},
    {"embed",
     " embed_dim embed_size embedding embedding_dim embedding_size emb_size emsize n_embd "},
    {"evaluate_every", " eval_every eval_interval eval_steps validate_every val_every "},
    {"hidden", " hidden_size hidden_dim hidden_units units num_units nhid n_hidden d_model "},
    {"keep", " save_total_limit max_to_keep "},
    {"kind", " type name optimizer optim architecture arch "},
    {"layers", " num_layers n_layers nlayers n_layer "},
    {"learning_rate", " lr eta step_size max_lr base_lr "},
    {"maximum_vocabulary", " vocab_size max_vocab max_vocab_size vocabulary_size "},
    {"minimum_count", " min_freq min_count min_frequency "},
    {"patience", " early_stopping early_stopping_patience "},
    {"precision", " dtype amp fp16 mixed_precision "},
    {"projection", " proj_size projection_size "},
    {"report_every", " log_every log_interval logging_steps print_every "},
    {"save_every", " save_interval save_steps checkpoint_every "},
    {"seed", " random_seed manual_seed "},
    {"steps", " epochs num_epochs max_epochs max_steps num_steps iterations iters max_iters "},
    {"text", " file path corpus train_file train_data train_path input dataset "},
    {"threads", " num_threads num_workers workers "},
    {"tokens", " tokenizer level tokenization "},
    {"validation", " val valid valid_file val_file validation_file val_data valid_data "},
    {"warm_up", " warmup warmup_steps num_warmup_steps "},
    {"weight_decay", " wd l2 weightdecay "},
    {"weights", " pretrained init_from load_from load "},
    {"window", " seq_len seq_length sequence_length block_size context_length bptt max_length "},
    // Sections.
    {"data", " dataset datasets corpus "},
    {"model", " network net "},
    {"optimizer", " optim optimiser optimization "},
    {"run", " machine system hardware device "},
    {"schedule", " scheduler lr_scheduler lr_schedule "},
    {"train", " training trainer "},
};

}  // namespace

std::vector<std::string> names_here(const std::string& elsewhere) {
  const std::string word = fmt::format(" {} ", lower(elsewhere));
  std::vector<std::string> names;
  for (const NamesElsewhere& row : kNames) {
    if (row.elsewhere.find(word) != std::string_view::npos) {
      names.emplace_back(row.here);
    }
  }
  return names;
}

std::string nearest(const std::string& word, const std::vector<std::string>& candidates) {
  int least = std::max(1, static_cast<int>(word.size()) / 3) + 1;
  std::string result;
  for (const std::string& candidate : candidates) {
    const int distance = edit_distance(lower(word), lower(candidate));
    if (distance < least) {
      least = distance;
      result = candidate;
    }
  }
  return result;
}

}  // namespace carousel
