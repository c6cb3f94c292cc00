#include "engine/run/fitting.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <limits>

#include "engine/model/estimator.h"
#include "engine/run/trained_model.h"
#include "kernels/common/check.h"

namespace carousel {
namespace {

class Fitting {
 public:
  Fitting(OpenedRun& opened, const TrainOptions& options)
      : opened_(opened),
        options_(options),
        model_(opened.config.model->make(opened.corpus.vocabularies, opened.device, DType::f32,
                                         opened.config.seed())),
        estimator_(*model_->estimator()) {
    if (opened.corpus.validation.empty()) return;
    validation_ = opened.config.entry->sampler(opened.corpus, opened.corpus.validation,
                                               opened.config.sampler_options(opened.device, false));
    status_.validation = validation_.get();
  }

  RunEnd run() {
    const Resumed* const former = opened_.former.get();
    if (former != nullptr) restore(former->saved);
    if (former != nullptr && estimator_.is_over(status_.step)) {
      if (options_.begin) options_.begin(status_);
      return end(RunEnd::nothing_to_do);
    }
    opened_.write_config();
    RunMetrics observer(opened_.metrics_file(), former != nullptr ? status_.step : -1,
                        options_.observer);
    if (former != nullptr) status_.seconds = observer.seconds();
    if (options_.begin) options_.begin(status_);
    for (const std::string& notice : notices()) observer.on_notice(notice);
    iterate(observer);
    if (!estimator_.is_over(status_.step)) return end(RunEnd::interrupted);
    evaluate_and_save(observer);
    return end(RunEnd::finished);
  }

 private:
  void restore(const SavedCheckpoint& saved) {
    estimator_.load(saved.model());
    status_.step = saved.step();
    status_.tokens = saved.scalars().count("tokens");
    best_ = saved.scalars().real("best_loss");
    status_.best = best_score(opened_.config, opened_.corpus.vocabularies, best_);
  }

  std::vector<std::string> notices() const {
    const Resumed* const former = opened_.former.get();
    if (former == nullptr) return opened_.config.without_effect();
    if (former->changes.empty()) return {};
    return {fmt::format("resumed with {}", fmt::join(former->changes, "; "))};
  }

  void iterate(RunMetrics& observer) {
    const std::int64_t tokens = opened_.corpus.train["token"].count;
    const auto began = std::chrono::steady_clock::now();
    const double before = status_.seconds;
    const auto report = [&](std::int64_t iteration, std::optional<double> loss) {
      const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - began;
      status_.step = iteration;
      status_.tokens = iteration * tokens;
      status_.seconds = before + spent.count();
      observer.on_fit({status_.step, status_.tokens, status_.seconds, loss});
      // The last one is saved with its evaluation.
      if (!estimator_.is_over(iteration)) save(observer, /*is_best=*/false);
    };
    const bool fitted =
        estimator_.fit({.corpus = opened_.corpus,
                        .scratch = opened_.folder.path(),
                        .stop = options_.stop_flag(),
                        .progress = [&](auto... phase) { observer.on_progress(phase...); },
                        .iterated = report,
                        .taken = status_.step});
    if (fitted && status_.step == 0) report(1, {});
  }

  void evaluate_and_save(RunMetrics& observer) {
    double cost = std::numeric_limits<double>::infinity();
    if (validation_) {
      Arena arena(opened_.device);
      const Evaluation evaluation = evaluate(*model_, *validation_, arena, [&] {
        return opened_.config.entry->metrics(opened_.corpus.vocabularies);
      });
      cost = evaluation.cost();
      observer.on_fit({status_.step, status_.tokens, status_.seconds, {}, evaluation});
    }
    const bool is_best = cost < best_;
    if (is_best) best_ = cost;
    status_.best = best_score(opened_.config, opened_.corpus.vocabularies, best_);
    save(observer, is_best);
  }

  void save(RunMetrics& observer, bool is_best) {
    opened_.find_folder(observer);
    observer.before_save();
    CheckpointData data{.weights = estimator_.tables(),
                        .state = {},
                        .metadata = run_metadata(opened_.config, opened_.corpus.vocabularies),
                        .scalars = {}};
    data.scalars.set("tokens", status_.tokens);
    data.scalars.set("best_loss", best_);
    opened_.checkpoints.expect_room(data);
    try {
      opened_.checkpoints.save(status_.step, data, is_best);
    } catch (const IoError&) {
      opened_.folder.keep();
      throw;
    }
  }

  RunEnd end(RunEnd how) {
    if (options_.end) options_.end(status_, how, opened_.folder.path());
    return how;
  }

  OpenedRun& opened_;
  const TrainOptions& options_;
  const std::unique_ptr<Model> model_;
  Estimator& estimator_;
  std::unique_ptr<BatchSource> validation_;
  double best_ = std::numeric_limits<double>::infinity();  ///< Evaluation::cost()
  RunStatus status_{.config = opened_.config,
                    .corpus = opened_.corpus,
                    .device = opened_.device,
                    .model = *model_,
                    .batches = nullptr,
                    .validation = nullptr};
};

}  // namespace

RunEnd fit(OpenedRun& opened, const TrainOptions& options) {
  return Fitting(opened, options).run();
}

}  // namespace carousel
