"""Parts made of Google Benchmark's cases: the ops, and the ceilings of the machine."""
import json
import os
import re
import subprocess

from gpu import command, parts
from gpu.build import Problem
from gpu.gtest import PROBE_SECONDS, probe
from gpu.results import FAILED, PASSED, Outcome

REPETITIONS = 3
REHEARSED = re.compile(r"ceiling|fill<float>.*n:1048576|product<bf16>.*/m:1/|recurrent_sequence.*T:1/")


class Benchmarks(parts.Part):
    """Cases of carousel_bench that match a pattern: the median of three runs and their spread."""
    limit = 90

    def __init__(self, setting, name, kind):
        super().__init__(setting)
        self.name, self.kind = name, re.compile(kind)
        self.program = setting.build.program("carousel_bench")

    def cases(self):
        result = subprocess.run([self.program, "--benchmark_list_tests"], capture_output=True,
                                text=True, timeout=120)
        if result.returncode != 0:
            raise Problem(f"carousel_bench --benchmark_list_tests: {result.stderr.strip()[-200:]}")
        return [name for name in result.stdout.splitlines() if self.kind.search(name) and
                (not self.setting.rehearsal or REHEARSED.search(name))]

    def run(self, names, until, log, take):
        report = self.setting.work / f"{log.stem}.json"
        report.unlink(missing_ok=True)
        finished, taken = set(), set()

        def seen(line):
            name = next((name for name in names if line.startswith(
                (f"{name}_median ", f"{name} ERROR"))), None)
            if finished - taken:  # the report has them when the next case prints its lines
                for done, outcome in read_report(report).items():
                    if done in finished - taken:
                        taken.add(done)
                        take(done, outcome)
            finished.update([name] if name else [])
            return command.NEXT if name else None

        pattern = "|".join(re.sub(r"[^\w/:,<> ]", ".", name) for name in names)
        status = command.run(
            [self.program, f"--benchmark_filter=^({pattern})$",
             f"--benchmark_repetitions={REPETITIONS}", "--benchmark_report_aggregates_only=true",
             f"--benchmark_min_time={0.001 if self.setting.rehearsal else 0.2}",
             f"--benchmark_out={report}", "--benchmark_out_format=json"],
            log, until, self.limit, seen)
        if status == command.TIME_UP:
            return None
        if status == command.STUCK:
            probe(self.setting, PROBE_SECONDS)
            stuck = next((name for name in names if name not in finished), names[-1])
            return {stuck: Outcome(FAILED, f"stuck: stopped after {self.limit} s")}
        outcomes = read_report(report)
        if status != 0:  # it crashed in the first unfinished case
            crashed = next((name for name in names if name not in finished), names[-1])
            outcomes[crashed] = Outcome(FAILED, f"ended with status {status}")
        return {name: outcome for name, outcome in outcomes.items() if name in names}


def read_report(report):
    """The outcomes in a report, which may end in the middle of a case."""
    try:
        text = report.read_text()
    except OSError:
        return {}
    for whole in (text, text.rstrip().rstrip(",") + "]}"):
        try:
            entries = json.loads(whole)["benchmarks"]
            break
        except ValueError:
            continue
    else:
        return {}
    outcomes, spread = {}, {}
    for entry in entries:
        name = entry["run_name"]
        if entry.get("error_occurred"):
            outcomes[name] = Outcome(FAILED, entry["error_message"])
        elif entry.get("aggregate_name") == "median":
            outcomes[name] = Outcome(PASSED, figures=figures_of(entry))
        elif entry.get("aggregate_name") == "cv":
            spread[name] = entry["real_time"]
    for name, cv in spread.items():
        if name in outcomes and outcomes[name].figures:
            outcomes[name].figures["spread"] = round(cv, 4)
    return outcomes


def figures_of(entry):
    """Milliseconds, and the rates that the benchmark counts."""
    to_ms = {"ns": 1e-6, "us": 1e-3, "ms": 1, "s": 1e3}[entry["time_unit"]]
    rates = {key: value for key, value in entry.items() if key.endswith("/s")}
    return {key: float(f"{value:.5g}")
            for key, value in {"ms": entry["real_time"] * to_ms, **rates}.items()}
