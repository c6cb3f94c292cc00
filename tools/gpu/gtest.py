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
PROBE = "WarpReduce.MaxAndSumKeepNaN"  # it skips without a GPU
PROBE_SECONDS = 20
# For the emulated device, which would need minutes for all tests.
REHEARSED = re.compile(r"^(kernel/)?(Fill|Cast|GlobalNorm)\.(?!.*Sweep)|"
                       r"^(engine|model)/(Schedule|Loss|LstmLm)\.")
# The sanitizers print findings immediately, each line with this prefix.
FINDING = re.compile(r"^========= (?!COMPUTE-SANITIZER|(ERROR|RACECHECK) SUMMARY: 0 |Target app|$)")
# The line of a finding that names its kernel.
KERNEL = re.compile(r"^=========\s+at (?P<kernel>.*)")
RUN = re.compile(r"\[ RUN      \] (\S+)")
END = re.compile(r"\[ +(OK|FAILED|SKIPPED) +\] ([^\s,]+)")
# What a sweep prints of its tolerance: tests/support/close.h.
WORST = re.compile(r"worst (?P<worst>\S+), recorded (?P<recorded>\S+), of absolute "
                   r"(?P<absolute>\S+) \+ relative (?P<relative>\S+)$")
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


def findings_of(lines, ours_only):
    """A sanitizer's findings among the lines, without those in kernels of libraries if so wanted;
    and whether any was left out."""
    kept, left_out, block = [], False, []

    def end():
        nonlocal left_out
        if not block:
            return
        kernels = [match["kernel"] for match in map(KERNEL.match, block) if match]
        if ours_only and not any("carousel" in kernel for kernel in kernels):
            left_out = True
        else:
            kept.extend(block)

    for line in filter(FINDING.match, lines):
        if not re.match(r"^=========\s\s", line):  # its details are indented
            end()
            block = []
        block.append(line)
    end()
    return kept, left_out


class Listener:
    """Parses the output of a test program."""

    def __init__(self, take=lambda name, outcome: None, ours_only=False):
        self.take, self.ours_only = take, ours_only
        self.outcomes, self.current, self.lines = {}, None, []
        self.findings, self.left_out = {}, False  # a sanitizer's, by test

    def __call__(self, line):
        if began := RUN.search(line):
            self.current, self.lines = began[1], []
            return command.NEXT
        ended = END.search(line)
        if self.current is None or not ended or ended[2] != self.current:
            self.lines.append(line)
            return None
        name, self.current = self.current, None
        self.outcomes[name] = self.outcome(VERDICTS[ended[1]])
        findings, left_out = findings_of(self.lines, self.ours_only)
        self.left_out |= left_out
        if findings:  # if they are errors, the exit status will say
            self.findings[name] = Outcome(FAILED, text_of(findings))
        else:
            self.take(name, self.outcomes[name])
        return command.NEXT

    def outcome(self, verdict):
        if verdict == SKIPPED:
            # GoogleTest prints "file:line: Skipped", then the words.
            words = [line for line in self.lines if line.strip()]
            why = words[-1].strip() if words else "no reason given"
            return Outcome(FAILED if NO_GPU in why else SKIPPED, why)
        worst = [{key: float(number) for key, number in match.groupdict().items()}
                 for match in map(WORST.search, self.lines) if match]
        return Outcome(verdict, text_of(self.lines) if verdict == FAILED else "",
                       {"sweeps": worst} if worst else None)


def run_tests(words, names, log, until, limit, environment, listener=None):
    """Runs tests of one program in one process: {name: Outcome}, or None if the time was up, and
    the exit status."""
    listener = listener or Listener()
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
    elif status == SANITIZER_STATUS and listener.left_out and not listener.findings:
        pass  # findings, but none of ours
    elif status != 0 and all(outcome.verdict != FAILED for outcome in outcomes.values()):
        text = f"status {status} after the tests: {text_of(listener.lines)}"
        outcomes = {name: Outcome(FAILED, text) for name in outcomes or names}
    return {name: outcome for name, outcome in outcomes.items() if name in names}, status


def probe(setting, seconds):
    """Raises Problem unless the build's programs see the GPU and it answers."""
    name = PROBE
    outcomes, _ = run_tests([setting.build.program(TESTS["kernel"])], [name],
                            setting.log(0), float("inf"), seconds, None)
    if outcomes is None:  # the call is being ended
        return
    found = outcomes.get(name, Outcome(FAILED, "it was not run"))
    if found.verdict != PASSED:
        raise Problem(f"the GPU does not answer: {name} has {found.verdict}: {found.text}")


def uses_device(name):
    return not re.search(r"/cpu\b|^(kernel/)?Cpu", name)


class Tests(parts.Part):
    """Every test, those of the device's kernels first; those against cuDNN too if the library is
    there."""
    name, unit = "tests", "tests"
    weight = 3
    jobs = parts.processes()

    def cases(self):
        names = [f"{area}/{name}" for area, program in TESTS.items()
                 for name in list_tests(self.setting.build.program(program))]
        names = [name for name in names if not self.setting.rehearsal or REHEARSED.search(name)]
        return sorted(names, key=lambda name: not uses_device(name))

    def run(self, names, until, log, take):
        area = names[0].partition("/")[0]
        names = [name[len(area) + 1:] for name in names if name.startswith(area + "/")]
        outcomes, status = run_tests(
            [self.setting.build.program(TESTS[area])], names, log, until, self.limit,
            parts.environment(self.jobs),
            Listener(lambda name, outcome: take(f"{area}/{name}", outcome)))
        if status == command.STUCK:
            probe(self.setting, PROBE_SECONDS)
        return outcomes and {f"{area}/{name}": outcome for name, outcome in outcomes.items()}


class Sanitizer(parts.Part):
    """A compute-sanitizer tool over the kernel tests that use the device, long ones last. It looks
    at our kernels: those of libraries take most of the time and are not ours to mend. initcheck must
    see all that is written and counts what ours read."""
    unit = "tests"
    limit = 180
    PROBE_SECONDS = 60
    jobs = parts.processes()

    def __init__(self, setting, tool):
        super().__init__(setting)
        self.name = tool
        places = glob.glob("/usr/local/cuda*/bin/compute-sanitizer")
        self.checker = shutil.which("compute-sanitizer") or next(iter(places), None)

        self.filter = []

    def unavailable(self):
        """Tries the tool with a test, and without its filter if it knows none."""
        if not self.checker:
            return "no compute-sanitizer on PATH or in a toolkit"
        filters = [[]] if self.name == "initcheck" else [["--kernel-name", "kns=carousel"], []]
        for self.filter in filters:
            outcomes, status = self.check([PROBE], self.setting.log(0), float("inf"),
                                          self.PROBE_SECONDS, Listener())
            if outcomes and outcomes.get(PROBE, Outcome(FAILED)).verdict == PASSED:
                return None
        return f"compute-sanitizer does not work here: {PROBE} ended with {status}"

    def cases(self):
        names = [name for name in list_tests(self.setting.build.program(TESTS["kernel"]))
                 if uses_device(name) and "Cudnn" not in name]
        if self.setting.rehearsal:
            names = list(filter(REHEARSED.search, names))
        return sorted(names, key=lambda name: "Sweep" in name)

    def check(self, names, log, until, limit, listener):
        words = [self.checker, "--tool", self.name, "--error-exitcode", SANITIZER_STATUS,
                 *self.filter]
        if self.name == "memcheck":  # some tests cause API errors on purpose
            words += ["--report-api-errors", "no"]
        environment = {**os.environ, **(parts.environment(self.jobs) or {})}
        if self.name == "initcheck":  # tests fill outputs, which would count as written
            environment["CAROUSEL_TEST_FILL"] = "0"
        return run_tests([*words, self.setting.build.program(TESTS["kernel"])], names, log, until,
                         limit, environment, listener)

    def run(self, names, until, log, take):
        outcomes, status = self.check(names, log, until, self.limit,
                                      Listener(take, self.name == "initcheck"))
        if status == command.STUCK:
            probe(self.setting, PROBE_SECONDS)
        return outcomes
