#pragma once

#include <cstddef>
#include <cstdint>
#include <fstream>
#include <map>
#include <string>

namespace carousel::bench {

/// One implementation's time for one pass over one size of layer, or why there is none. Names are
/// those of the JSON lines.
struct Record {
  std::int64_t H = 0, B = 0, T = 0;
  std::string pass;       ///< "forward" | "train"
  std::string library;    ///< "carousel" | "cudnn"
  std::string version;    ///< of cuDNN
  std::string algorithm;  ///< "carousel" | "STANDARD" | …
  std::string dtype;      ///< "f32" | "tf32" | "bf16" | "fp16"
  std::string launch;     ///< "eager" | "graph"
  std::string layout;     ///< cuDNN's name for the sequences: "padded" | "packed"
  std::string status;     ///< "ok", or the call that failed, with its status and words
  double median_ms = 0, min_ms = 0, max_ms = 0;  ///< where ok
  int repetitions = 0;
  std::size_t workspace_bytes = 0;  ///< needed while a pass runs
  std::size_t reserve_bytes = 0;    ///< kept from the forward to the backward pass

  std::string key() const;  ///< what is measured: sizes, pass, library, algorithm, dtype, launch
  bool ok() const { return status == "ok"; }
};

/// The JSON lines of a file, one a record, each written as soon as it is known. Opening a file that
/// is there continues it; the last line of a key counts. What the program was stopped in is known by
/// <file>.running, which says what is tried, and fails then: a library that hangs or ends the
/// program is not tried again.
///
/// Errors   IoError if the file cannot be written; FormatError for a whole line that is no record.
///          (A last line without its end is what a stop may leave, and is dropped.)
class Results {
 public:
  explicit Results(const std::string& path);

  /// What is recorded under the same key; null if nothing is.
  const Record* find(const Record& same_key) const;
  void add(const Record& record);

  /// Marks as tried, until nothing is.
  void trying(const Record& record);
  void tried();

  /// Prints for each size, pass and width the fastest of cuDNN over our fastest: more than 1, ours
  /// is faster. bf16 is held against bf16 and fp16. Geometric means at the end.
  void print_table() const;

 private:
  void read();
  void take_up_stopped();
  const Record* fastest(const Record& cell, const std::string& library,
                        const std::string& dtype) const;

  std::string path_, running_;
  std::ofstream out_;
  std::map<std::string, Record> records_;
};

}  // namespace carousel::bench
