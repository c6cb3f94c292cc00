#include "engine/comparison/comparison_report.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

namespace carousel {
namespace {

using Json = nlohmann::ordered_json;

std::int64_t failures(const Comparison& comparison) {
  return std::count_if(comparison.tensors().begin(), comparison.tensors().end(),
                       [](const TensorVerdict& tensor) { return !tensor.holds(); });
}

/// "step 3, time step 12, row 3, unit 17".
std::string place(const Difference& d) {
  return fmt::format("step {}{}{}", d.step, d.where.empty() ? "" : ", ", d.where);
}

std::string values(const ComparisonReport& report, const Difference& d) {
  return fmt::format("{} {:.6g}, {} {:.6g}; error {:.2g}, relative {:.2g}, allowed {:.2g}",
                     report.a, d.a, report.b, d.b, d.error(), d.relative(), d.allowed);
}

std::string count_text(std::int64_t count, const char* of) {
  return fmt::format("{} {}{}", count, of, count == 1 ? "" : "s");
}

std::string head(const ComparisonReport& report) {
  const Comparison& comparison = report.comparison;
  const auto count = comparison.tensors().size();
  const std::string steps = count_text(report.steps, "step");
  if (const TensorVerdict* wrong = comparison.first_wrong()) {
    const Difference& first = *wrong->first;
    return fmt::format(
        "FAIL  first wrong, in step {}, {}: {}{}{}\n      {}\n"
        "      {} of {} tensors are beyond their tolerance over {}; later ones may follow from "
        "the first\n",
        first.step, name(wrong->phase), wrong->name, first.where.empty() ? "" : ", ", first.where,
        values(report, first), failures(comparison), count, steps);
  }
  const TensorVerdict* worst = comparison.worst();
  std::string nearest = ", to the last bit";
  if (worst != nullptr && worst->largest.excess() > 0) {
    nearest = fmt::format("; nearest to its tolerance, at {:.2g} of it: {}",
                          worst->largest.excess(), worst->name);
  }
  return fmt::format("PASS  {} and {} agree in {} tensors over {}{}\n", report.a, report.b, count,
                     steps, nearest);
}

std::string graph_text(const ComparisonReport& report) {
  const GraphUse& graph = *report.graph;
  std::string text = fmt::format(
      "      {} of {}'s {} were launches of {}, the rest the first of their shape\n", graph.steps,
      report.b, count_text(report.steps, "step"), count_text(graph.graphs, "graph"));
  if (!graph.unseen.empty()) {
    text += fmt::format("      not compared, for the backward pass writes over them: {}\n",
                        fmt::join(graph.unseen, "; "));
  }
  return text;
}

/// A number for JSON, which has neither NaN nor infinities.
Json number(double x) {
  if (std::isfinite(x)) return x;
  return std::isnan(x) ? "nan" : x > 0 ? "inf" : "-inf";
}

Json json_of(const Difference& d) {
  Json json{{"step", d.step}};
  if (d.time >= 0) json["time_step"] = d.time;
  json["where"] = d.where;
  json["a"] = number(d.a);
  json["b"] = number(d.b);
  json["error"] = number(d.error());
  json["relative"] = number(d.relative());
  json["allowed"] = number(d.allowed);
  json["of_tolerance"] = number(d.excess());
  return json;
}

Json json_of(const TensorVerdict& tensor) {
  Json json{{"tensor", tensor.name},
            {"phase", name(tensor.phase)},
            {"holds", tensor.holds()},
            {"tolerance",
             {{"absolute", tensor.tolerance.absolute}, {"relative", tensor.tolerance.relative}}}};
  if (tensor.first) json["first"] = json_of(*tensor.first);
  json["largest"] = json_of(tensor.largest);
  if (!tensor.worst_by_time.empty()) {
    Json& list = json["of_tolerance_by_time_step"] = Json::array();
    for (const double excess : tensor.worst_by_time) list.push_back(number(excess));
  }
  return json;
}

}  // namespace

std::string report_text(const ComparisonReport& report) {
  std::string text = head(report);
  if (report.drift) {
    text += fmt::format(
        "      run freely, not judged: last losses {:.6f} and {:.6f}, relative difference of the "
        "weights {:.1g}\n",
        report.drift->loss_a, report.drift->loss_b, report.drift->weights);
  }
  if (report.graph) text += graph_text(report);
  return text;
}

std::vector<std::vector<std::string>> report_rows(const ComparisonReport& report) {
  const auto row = [](const char* verdict, const std::string& of, const Difference& d) {
    return std::vector<std::string>{verdict,
                                    of,
                                    fmt::format("{:.1e}", d.error()),
                                    fmt::format("{:.1e}", d.relative()),
                                    fmt::format("{:.2g}", d.excess()),
                                    d.error() == 0 ? "" : place(d)};
  };
  std::vector<std::vector<std::string>> rows;
  for (const TensorVerdict& tensor : report.comparison.tensors()) {
    rows.push_back(row(tensor.holds() ? "ok" : "FAIL", tensor.name, tensor.largest));
    if (tensor.first) rows.push_back(row("", "  its first", *tensor.first));
  }
  return rows;
}

std::string report_json(const ComparisonReport& report) {
  const TensorVerdict* wrong = report.comparison.first_wrong();
  Json json{{"holds", report.comparison.holds()}, {"first_wrong", nullptr}};
  if (wrong != nullptr) {
    json["first_wrong"] = {{"tensor", wrong->name}, {"phase", name(wrong->phase)}};
    json["first_wrong"].update(json_of(*wrong->first));
  }
  json["a"] = report.a;
  json["b"] = report.b;
  json["steps"] = report.steps;
  if (report.drift) {
    json["drift"] = {{"loss_a", number(report.drift->loss_a)},
                     {"loss_b", number(report.drift->loss_b)},
                     {"weights", number(report.drift->weights)}};
  }
  if (report.graph) {
    json["graph"] = {{"graphs", report.graph->graphs},
                     {"steps", report.graph->steps},
                     {"not_compared", report.graph->unseen}};
  }
  Json& list = json["tensors"] = Json::array();
  for (const TensorVerdict& tensor : report.comparison.tensors()) list.push_back(json_of(tensor));
  return json.dump();
}

}  // namespace carousel
