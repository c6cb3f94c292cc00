#include "tests/bench/lstm_results.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <iterator>
#include <nlohmann/json.hpp>
#include <tuple>
#include <utility>

#include "kernels/common/check.h"

namespace carousel::bench {
namespace {

nlohmann::ordered_json to_json(const Record& r) {
  nlohmann::ordered_json line{{"H", r.H},
                              {"B", r.B},
                              {"T", r.T},
                              {"pass", r.pass},
                              {"library", r.library},
                              {"version", r.version},
                              {"algorithm", r.algorithm},
                              {"dtype", r.dtype},
                              {"launch", r.launch},
                              {"layout", r.layout},
                              {"status", r.status}};
  if (r.ok()) {
    line["median_ms"] = r.median_ms;
    line["min_ms"] = r.min_ms;
    line["max_ms"] = r.max_ms;
    line["repetitions"] = r.repetitions;
  }
  line["workspace_bytes"] = r.workspace_bytes;
  line["reserve_bytes"] = r.reserve_bytes;
  return line;
}

/// nlohmann's exceptions where it is none.
Record from_json(const std::string& text) {
  const auto line = nlohmann::json::parse(text);
  Record r{.H = line.at("H"),
           .B = line.at("B"),
           .T = line.at("T"),
           .pass = line.at("pass"),
           .library = line.at("library"),
           .version = line.at("version"),
           .algorithm = line.at("algorithm"),
           .dtype = line.at("dtype"),
           .launch = line.at("launch"),
           .layout = line.at("layout"),
           .status = line.at("status"),
           .workspace_bytes = line.at("workspace_bytes"),
           .reserve_bytes = line.at("reserve_bytes")};
  if (r.ok()) {
    r.median_ms = line.at("median_ms");
    r.min_ms = line.at("min_ms");
    r.max_ms = line.at("max_ms");
    r.repetitions = line.at("repetitions");
  }
  return r;
}

}  // namespace

std::string Record::key() const {
  return fmt::format("H{} B{} T{} {} {} {} {} {}", H, B, T, pass, library, algorithm, dtype,
                     launch);
}

Results::Results(const std::string& path) : path_(path), running_(path + ".running") {
  if (std::filesystem::exists(path_)) read();
  out_.open(path_, std::ios::app);
  if (!out_) throw_io_error("writing", path_);
  take_up_stopped();
}

void Results::read() {
  std::ifstream in(path_);
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  std::size_t line = 0, begin = 0;
  for (std::size_t end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    ++line;
    try {
      const Record record = from_json(text.substr(begin, end - begin));
      records_[record.key()] = record;
    } catch (const nlohmann::json::exception& e) {
      throw FormatError(fmt::format("{}:{}: no line of lstm_vs_cudnn: {}", path_, line, e.what()));
    }
  }
  if (begin != text.size()) std::filesystem::resize_file(path_, begin);
}

void Results::take_up_stopped() {
  if (!std::filesystem::exists(running_)) return;
  std::ifstream in(running_);
  std::string text;
  if (std::getline(in, text)) {
    Record record = from_json(text);
    record.status = "the program was stopped, or ended, while this ran";
    add(record);
  }
  tried();
}

const Record* Results::find(const Record& same_key) const {
  const auto found = records_.find(same_key.key());
  return found == records_.end() ? nullptr : &found->second;
}

void Results::add(const Record& record) {
  out_ << to_json(record).dump() << '\n' << std::flush;
  if (!out_) throw_io_error("writing", path_);
  records_[record.key()] = record;
}

void Results::trying(const Record& record) {
  std::ofstream(running_) << to_json(record).dump() << '\n';
}

void Results::tried() { std::filesystem::remove(running_); }

const Record* Results::fastest(const Record& cell, const std::string& library,
                               const std::string& dtype) const {
  const Record* best = nullptr;
  for (const auto& [key, r] : records_) {
    const bool same_cell =
        std::tie(r.H, r.B, r.T, r.pass) == std::tie(cell.H, cell.B, cell.T, cell.pass);
    const bool same_width = r.dtype == dtype || (dtype == "bf16" && r.dtype == "fp16");
    if (!same_cell || r.library != library || !same_width || !r.ok()) continue;
    if (best == nullptr || r.median_ms < best->median_ms) best = &r;
  }
  return best;
}

void Results::print_table() const {
  std::map<std::tuple<std::string, std::int64_t, std::int64_t, std::int64_t>, const Record*> cells;
  for (const auto& [key, r] : records_) cells[{r.pass, r.T, r.H, r.B}] = &r;
  std::map<std::pair<std::string, std::string>, std::pair<double, int>> means;
  fmt::print("cuDNN's fastest over ours, milliseconds; more than 1: ours is faster\n");
  fmt::print("{:8} {:>5} {:>5} {:>5}  {:5} {:>6} {:>10} {:>10}  {}\n", "pass", "T", "H", "B",
             "dtype", "ratio", "ours", "cuDNN", "cuDNN's");
  for (const auto& [at, cell] : cells) {
    for (const char* dtype : {"f32", "tf32", "bf16"}) {
      const Record* const ours = fastest(*cell, "carousel", dtype);
      const Record* const theirs = fastest(*cell, "cudnn", dtype);
      if (ours == nullptr && theirs == nullptr) continue;
      const auto time = [](const Record* r) {
        return r == nullptr ? std::string("-") : fmt::format("{:.4f}", r->median_ms);
      };
      std::string ratio = "-", who;
      if (ours != nullptr && theirs != nullptr) {
        const double value = theirs->median_ms / ours->median_ms;
        ratio = fmt::format("{:.2f}", value);
        auto& [logs, count] = means[{cell->pass, dtype}];
        logs += std::log(value);
        ++count;
      }
      if (theirs != nullptr) {
        who = fmt::format("{} {} {}", theirs->algorithm, theirs->dtype, theirs->launch);
      }
      fmt::print("{:8} {:>5} {:>5} {:>5}  {:5} {:>6} {:>10} {:>10}  {}\n", cell->pass, cell->T,
                 cell->H, cell->B, dtype, ratio, time(ours), time(theirs), who);
    }
  }
  for (const auto& [of, mean] : means) {
    fmt::print("geometric mean of {} {} ratios, {}: {:.2f}\n", mean.second, of.first, of.second,
               std::exp(mean.first / mean.second));
  }
}

}  // namespace carousel::bench
