"""Parts made of GoogleTest's tests: all of them, and the kernels' under compute-sanitizer."""
import glob
import os
import re
import shutil
import subprocess

from gpu import command, parts
from gpu.build import TESTS, Problem
from gpu.results import FAILED, PASSED, SKIPPED, Outcome

NO_GPU = "no CUDA device"
SANITIZER_STATUS = 99
PROBE_SECONDS = 20
# For the emulated device, which would need minutes for all tests.
REHEARSED = re.compile(r"^(kernel/)?(Fill|Cast|GlobalNorm)\.(?!.*Sweep)|"
                       r"^(engine|model)/(Schedule|Loss|LstmLm)\.")
# The sanitizers print findings immediately, each line with this prefix.
FINDING = re.compile(r"^========= (?!COMPUTE-SANITIZER|(ERROR|RACECHECK) SUMMARY: 0 |Target app|$)")
RUN = re.compile(r"\[ RUN      \] (\S+)")
END = re.compile(r"\[ +(OK|FAILED|SKIPPED) +\] ([^\s,]+)")
VERDICTS = {"OK": PASSED, "FAILED": FAILED, "SKIPPED": SKIPPED}


def list_tests(program):
    """'Suite.Test' for each that is not disabled."""
    result = subprocess.run([program, "--gtest_list_tests"], capture_output=True, text=True,
                            timeout=120)
    if result.returncode != 0:
        raise Problem(f"{program.name} --gtest_list_tests: status {result.returncode}: "
                      f"{(result.stderr or result.stdout).strip()[-200:]}")
    names, suite = [], ""
    for line in result.stdout.splitlines():
        word = line.split("#")[0].rstrip()
        if word.endswith(".") and not word.startswith(" "):
            suite = word
        elif word.startswith("  ") and "DISABLED_" not in suite + word:
            names.append(suite + word.strip())
    return names


def text_of(lines, most=12):
    """The part of a test's output that goes into the results."""
    lines = [line for line in lines if line.strip()]
    if len(lines) > most:
        lines = [*lines[:most // 2], "...", *lines[-most // 2:]]
    return "\n".join(line[:300] for line in lines)


class Listener:
    """Parses the output of a test program."""

    def __init__(self):
        self.outcomes, self.current, self.lines = {}, None, []
        self.findings = {}  # a sanitizer's, by test

    def __call__(self, line):
        if began := RUN.search(line):
            self.current, self.lines = began[1], []
            return command.NEXT
        ended = END.search(line)
        if self.current is None or not ended or ended[2] != self.current:
            self.lines.append(line)
            return None
        self.outcomes[self.current] = self.outcome(VERDICTS[ended[1]])
        findings = list(filter(FINDING.match, self.lines))
        if findings:
            self.findings[self.current] = Outcome(FAILED, text_of(findings))
        self.current = None
        return command.NEXT

    def outcome(self, verdict):
        if verdict == SKIPPED:
            # GoogleTest prints "file:line: Skipped", then the words.
            words = [line for line in self.lines if line.strip()]
            why = words[-1].strip() if words else "no reason given"
            return Outcome(FAILED if NO_GPU in why else SKIPPED, why)
        return Outcome(verdict, text_of(self.lines) if verdict == FAILED else "")


def run_tests(words, names, log, until, limit, environment):
    """Runs tests of one program in one process: {name: Outcome}, or None if the time was up, and
    the exit status. Outcomes of a process that was stopped do not count, because a sanitizer
    reports findings also at the end."""
    listener = Listener()
    status = command.run([*words, f"--gtest_filter={':'.join(names)}"], log, until, limit, listener,
                         environment)
    current = listener.current
    if status == command.TIME_UP:
        return None, status
    if status == command.STUCK:
        if current is None:
            current = next((name for name in names if name not in listener.outcomes), names[-1])
        return {current: Outcome(FAILED, f"stuck: stopped after {limit} s")}, status
    outcomes = listener.outcomes
    if status != 0:  # else they are not errors
        outcomes.update(listener.findings)
    if current is not None:
        how = f"signal {-status}" if status < 0 else f"status {status}"
        outcomes[current] = Outcome(FAILED, f"{text_of(listener.lines)}\nended with {how}".strip())
    elif status != 0 and all(outcome.verdict != FAILED for outcome in outcomes.values()):
        text = f"status {status} after the tests: {text_of(listener.lines)}"
        outcomes = {name: Outcome(FAILED, text) for name in outcomes or names}
    return {name: outcome for name, outcome in outcomes.items() if name in names}, status


def probe(setting, seconds):
    """Raises Problem unless the build's programs see the GPU and it answers."""
    name = "WarpReduce.MaxAndSumKeepNaN"  # it skips without a GPU
    outcomes, _ = run_tests([setting.build.program(TESTS["kernel"])], [name],
                            setting.logs / "probe.log", float("inf"), seconds, None)
    if outcomes is None:  # the call is being ended
        return
    found = outcomes.get(name, Outcome(FAILED, "it was not run"))
    if found.verdict != PASSED:
        raise Problem(f"the GPU does not answer: {name} has {found.verdict}: {found.text}")


class Tests(parts.Part):
    """Every test; those against cuDNN too if the library is there."""
    name, unit = "tests", "tests"
    jobs = parts.processes()

    def cases(self):
        names = [f"{area}/{name}" for area, program in TESTS.items()
                 for name in list_tests(self.setting.build.program(program))]
        return [name for name in names if not self.setting.rehearsal or REHEARSED.search(name)]

    def run(self, names, until, log):
        area = names[0].partition("/")[0]
        names = [name[len(area) + 1:] for name in names if name.startswith(area + "/")]
        outcomes, status = run_tests([self.setting.build.program(TESTS[area])], names, log, until,
                                     self.limit, parts.environment(self.jobs))
        if status == command.STUCK:
            probe(self.setting, PROBE_SECONDS)
        return outcomes and {f"{area}/{name}": outcome for name, outcome in outcomes.items()}


class Sanitizer(parts.Part):
    """A compute-sanitizer tool over the kernel tests that use the device, long ones last."""
    unit = "tests"
    limit = 180
    jobs = parts.processes()

    def __init__(self, setting, tool):
        super().__init__(setting)
        self.name = tool
        places = glob.glob("/usr/local/cuda*/bin/compute-sanitizer")
        self.checker = shutil.which("compute-sanitizer") or next(iter(places), None)

    def unavailable(self):
        return None if self.checker else "no compute-sanitizer on PATH or in a toolkit"

    def cases(self):
        names = [name for name in list_tests(self.setting.build.program(TESTS["kernel"]))
                 if not re.search(r"/cpu\b|^Cpu|Cudnn", name)]
        if self.setting.rehearsal:
            names = list(filter(REHEARSED.search, names))
        return sorted(names, key=lambda name: "Sweep" in name)

    def run(self, names, until, log):
        words = [self.checker, "--tool", self.name, "--error-exitcode", SANITIZER_STATUS]
        if self.name == "memcheck":  # some tests cause API errors on purpose
            words += ["--report-api-errors", "no"]
        environment = {**os.environ, **(parts.environment(self.jobs) or {})}
        outcomes, status = run_tests([*words, self.setting.build.program(TESTS["kernel"])], names,
                                     log, until, self.limit, environment)
        if status == command.STUCK:
            probe(self.setting, PROBE_SECONDS)
        return outcomes
