#!/usr/bin/env python3
"""tools/gpu_check: its results for programs that pass, fail, crash and hang, and all of its parts on
the emulated device.

    gpu_check_test.py BUILD_FOLDER [TEST...]

The programs of the first half are scripts that imitate the real ones, in a temporary tree.
"""

import contextlib
import importlib.machinery
import importlib.util
import io
import json
import os
import pathlib
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import unittest
from unittest import mock

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(sys.argv[1])
sys.dont_write_bytecode = True
sys.path.append(str(ROOT / "tools"))
loader = importlib.machinery.SourceFileLoader("gpu_check", str(ROOT / "tools/gpu_check"))
gpu_check = importlib.util.module_from_spec(importlib.util.spec_from_loader("gpu_check", loader))
loader.exec_module(gpu_check)
from gpu import bench, build, command, gtest, parts, peers, results, table

# A test program: the name of a test decides what it does.
TESTS = """#!{python}
import os, signal, sys, time
names = {names}
if "--gtest_list_tests" in sys.argv:
    for name in names:
        suite, test = name.split(".")
        print(suite + ".")
        print("  " + test + "  # GetParam() = 1")
    sys.exit()
wanted = [a.split("=", 1)[1] for a in sys.argv if a.startswith("--gtest_filter=")][0].split(":")
failed = False
for name in names:
    if name not in wanted:
        continue
    print("[ RUN      ] " + name, flush=True)
    word = "OK"
    if "Slow" in name:
        time.sleep(0.4)
    if "Hangs" in name:
        time.sleep(1000)
    if "Crashes" in name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "Fails" in name:
        print("x.cpp:7: Failure\\nexpected 1, found 2")
        word, failed = "FAILED", True
    if "Skips" in name or "SeesNoGpu" in name:
        print("x.cpp:8: Skipped\\n" + ("no CUDA device" if "Sees" in name else "no such hardware"))
        word = "SKIPPED"
    if "Sweep" in name:
        print("worst 0.7, recorded 0.5, of absolute 2e-06 + relative 0")
    kernel = {{"Races": "carousel::fill_kernel<float>(float*)+0x40", "Theirs": "gemm_sm90+0x1"}}
    for part in kernel:
        if part in name and os.environ.get("FAKE_SANITIZER"):
            print("========= Error: Race reported between two writes")
            print("=========     at " + kernel[part])
            print("=========         Host Frame: carousel::run() in carousel_kernel_tests")
            open(os.environ["FAKE_SANITIZER"], "w").close()
    if "Fill0" in name and os.environ.get("CAROUSEL_TEST_FILL") != "0":
        word, failed = "FAILED", True
    if "FAKE_ENDED" in os.environ:
        with open(os.environ["FAKE_ENDED"], "a") as file:
            file.write(name + "\\n")
    print("[%s] %s (1 ms)" % ({{"OK": "       OK ", "FAILED": "  FAILED  ",
                               "SKIPPED": "  SKIPPED "}}[word], name), flush=True)
sys.exit(1 if failed else 0)
"""
# compute-sanitizer: its status is that of --error-exitcode if it has findings and the program passes.
# It does not work where FAKE_REFUSED is among its options.
SANITIZER = """#!/bin/sh
case " $* " in *" ${FAKE_REFUSED:-none} "*) echo "unknown option"; exit 1;; esac
export FAKE_SANITIZER=$(mktemp -u)
echo "========= COMPUTE-SANITIZER"
while [ "${1#-}" != "$1" ] || [ ! -x "$1" ]; do shift; done
"$@" || exit $?
if [ -e "$FAKE_SANITIZER" ]; then
  rm "$FAKE_SANITIZER"; echo "========= RACECHECK SUMMARY: 1 hazard displayed"; exit 99
fi
echo "========= ERROR SUMMARY: 0 errors"
"""
PROBE = "WarpReduce.MaxAndSumKeepNaN"
# lstm_vs_cudnn: two cells a call.
CUDNN = """#!{python}
import json, sys
option = dict(zip(sys.argv[1::2], sys.argv[2::2]))
old = [json.loads(line) for line in open(option["--out"])]
done = {{line["B"] for line in old}}
left = [b for b in (8, 16, 32) if b not in done]
with open(option["--out"], "a") as file:
    for batch in left[:2]:
        for library, ms in (("carousel", 1.0), ("cudnn", 2.0)):
            file.write(json.dumps({{"H": int(option["--hidden"]), "B": batch, "T": 256,
                "pass": "train", "library": library, "version": "9", "algorithm": "STANDARD",
                "dtype": "bf16", "status": "ok", "median_ms": ms}}) + "\\n")
print("%d of 3 cells left" % len(left[2:]) if left[2:] else "done")
"""
# lstm_vs_cudnn that hangs, then crashes, then loses the device, each time at the case it has marked.
CUDNN_HARD = """#!{python}
import json, os, pathlib, sys, time
option = dict(zip(sys.argv[1::2], sys.argv[2::2]))
file, mark = (pathlib.Path(option["--out"] + end) for end in ("", ".running"))
lines = [json.loads(line) for line in file.read_text().splitlines()]
if mark.is_file():
    lines.append({{"H": 128, "B": 8, "T": 256, "status": "ended at " + mark.read_text()}})
    file.write_text("".join(json.dumps(line) + "\\n" for line in lines))
    mark.unlink()
if len(lines) < 2:
    mark.write_text(str(len(lines)))
    print("at", len(lines), flush=True)
    time.sleep(60) if not lines else os.abort()
if len(lines) == 2:
    file.write_text(file.read_text() + json.dumps({{"H": 128, "status": "lost"}}) + "\\n")
    sys.exit(2)
print("all 3 cells are measured")
"""


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


class Fakes(unittest.TestCase):
    """gpu_check in a temporary tree whose programs are scripts."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.bin = self.root / "build/cuda/bin"
        for program in build.PROGRAMS:
            script(self.bin / program, "#!/bin/sh\n")
        self.commit("a" * 40)
        tools = self.root / "path"
        script(tools / "ldd", "#!/bin/sh\necho 'libc.so.6 => /lib/libc.so.6 (0x1)'\n")
        script(tools / "nvidia-smi", "#!/bin/sh\necho 'NVIDIA T1, 580.1'\n")
        script(tools / "strip", "#!/bin/sh\n")
        script(tools / "compute-sanitizer", SANITIZER)
        self.program("kernel")
        for patch in (mock.patch.object(build, "ROOT", self.root),
                      mock.patch.object(gpu_check, "ROOT", self.root),
                      mock.patch.object(gtest.Tests, "limit", 1),
                      mock.patch.object(gtest.Sanitizer, "limit", 1),
                      mock.patch.object(gpu_check, "LEAST_SECONDS", 0),
                      mock.patch.object(command, "_stopping", False),
                      mock.patch.dict(os.environ, PATH=f"{tools}:{os.environ['PATH']}")):
            patch.start()
            self.addCleanup(patch.stop)

    def commit(self, text):
        (self.root / "build/cuda/commit").write_text(text + "\n")

    def program(self, area, *names):
        names = [PROBE, *names] if area == "kernel" else list(names)
        script(self.bin / build.TESTS[area], TESTS.format(python=sys.executable, names=names))
        os.utime(self.root / "build/cuda/commit")  # it is of this build

    def lstm_vs_cudnn(self, text):
        script(self.bin / "lstm_vs_cudnn", text)
        os.utime(self.root / "build/cuda/commit")

    def check(self, *words, status=0, seconds=20):
        """Runs gpu_check: what it said. `seconds` is what a part may take."""
        said = io.StringIO()
        with mock.patch.object(sys, "argv", ["gpu_check", *words]), \
                mock.patch.object(gpu_check, "PART_SECONDS", seconds), \
                contextlib.redirect_stdout(said):
            try:
                found = gpu_check.check(gpu_check.arguments())
            except build.Problem as problem:
                found = str(problem)
        self.assertEqual(found, status, said.getvalue())
        return said.getvalue()

    def record(self, part):
        file = self.root / "tests/bench/results/nvidia-t1.json"
        return json.loads(file.read_text())["parts"][part]

    def test_all_tests_pass(self):
        self.program("kernel", "A.One", "A.Two/cuda")
        self.program("engine", "B.Skips")
        said = self.check("tests")
        self.assertIn("passed tests: 4 of 4 tests, 0 failed, 1 skipped (no such hardware)", said)
        record = self.record("tests")
        self.assertEqual((record["passed"], record["left"], record["failed"]), (3, [], {}))
        self.assertIn("passed tests: 4 of 4", self.check("tests"))  # from the record

    def test_a_failure_a_crash_and_a_blind_program_are_named_and_the_rest_runs(self):
        self.program("kernel", "A.Fails", "A.One", "A.Crashes", "A.Two", "A.SeesNoGpu")
        self.check("tests", status=1)
        record = self.record("tests")
        self.assertEqual(set(record["failed"]),
                         {"kernel/A.Fails", "kernel/A.Crashes", "kernel/A.SeesNoGpu"})
        self.assertIn("expected 1, found 2", record["failed"]["kernel/A.Fails"])
        self.assertIn("signal 11", record["failed"]["kernel/A.Crashes"])
        self.assertEqual((record["passed"], record["left"]), (3, []))
        self.assertIn("FAILED", self.check("tests", status=1))  # a failure stays one
        self.program("kernel", "A.One")
        self.check("tests", "--again")

    def test_a_stuck_test_is_stopped_and_the_rest_runs(self):
        self.program("kernel", "A.One", "A.Hangs", "A.Two")
        began = time.monotonic()
        self.check("tests", status=1)
        self.assertLess(time.monotonic() - began, 15)
        record = self.record("tests")
        self.assertEqual(record["failed"], {"kernel/A.Hangs": "stuck: stopped after 1 s"})
        self.assertEqual((record["passed"], record["left"]), (3, []))

    def test_a_part_stops_in_time_says_what_is_left_and_goes_on_there(self):
        names = [f"A.Slow{n}" for n in range(8)]
        self.program("kernel", *names)
        with mock.patch.object(gtest.Tests, "jobs", 1), \
                mock.patch.object(parts, "FIRST_BATCH", 2), \
                mock.patch.object(parts, "BATCH_SECONDS", 0.8):
            said = self.check("tests", status=3, seconds=2)
            first = self.record("tests")
            self.assertGreater(first["passed"], 0)
            self.assertGreater(len(first["left"]), 0)
            self.assertEqual(first["passed"] + len(first["left"]), 9)
            self.assertIn(f"partial tests: {first['passed']} of 9 tests, 0 failed", said)
            self.assertIn("call again for the rest", said)
            self.assertIn("cases are left", said)
            said = self.check("tests")
            self.assertIn(f"{len(first['left'])} of 9 tests to do", said)
        self.assertEqual((self.record("tests")["passed"], self.record("tests")["left"]), (9, []))

    def test_another_commit_begins_anew(self):
        self.program("kernel", "A.Fails")
        self.check("tests", status=1)
        self.program("kernel", "A.One")
        self.commit("b" * 40)
        self.assertIn("are replaced", self.check("tests"))
        self.assertEqual(self.record("tests")["failed"], {})

    def test_minutes_bound_the_whole_call(self):
        self.program("kernel", *(f"A.Slow{n}" for n in range(40)))
        began = time.monotonic()
        self.check("tests", "memcheck", "--minutes", "0.03", status=3)
        self.assertLess(time.monotonic() - began, 8)
        self.assertGreater(len(self.record("memcheck")["left"]), 0)

    def test_a_sanitizers_finding_fails_its_test_alone(self):
        self.program("kernel", "A.One", "A.Races", "A.Two", "A.OnThe/cpu", "Cpu.Alone")
        self.check("tests")
        self.check("racecheck", status=1)
        record = self.record("racecheck")
        self.assertEqual(list(record["failed"]), ["A.Races"])
        self.assertIn("Race reported", record["failed"]["A.Races"])
        self.assertEqual((record["cases"], record["passed"]), (4, 3))

    def test_without_a_sanitizer_its_parts_are_skipped_in_one_line(self):
        (self.root / "path/compute-sanitizer").unlink()
        self.program("kernel", "A.One")
        with mock.patch.object(gtest.glob, "glob", lambda pattern: []):
            said = self.check("memcheck")
        self.assertIn("SKIPPED memcheck: no compute-sanitizer on PATH or in a toolkit\n", said)
        self.assertNotIn("passed memcheck", said)

    def test_a_gpu_that_does_not_answer_ends_the_call(self):
        with mock.patch.object(sys.modules[__name__], "PROBE", "A.Other"):
            self.program("kernel", "A.One")
        self.check("tests", status="the GPU does not answer: WarpReduce.MaxAndSumKeepNaN "
                                   "has failed: it was not run")

    def test_a_call_that_is_ended_leaves_what_it_has_not_done(self):
        self.program("kernel", "Fill.One", "Fill.Hangs")
        file = self.root / "build/cuda/gpu_check/emulated.json"
        process = subprocess.Popen(
            [sys.executable, ROOT / "tools/gpu_check", "--rehearse", "--build",
             self.root / "build/cuda", "tests"], stdout=subprocess.PIPE, text=True)
        self.assertIn("2 of 2 tests to do", process.stdout.readline())
        time.sleep(1)
        process.terminate()
        said, _ = process.communicate(timeout=20)
        self.assertEqual((process.returncode, said), (128 + signal.SIGTERM, ""))
        record = json.loads(file.read_text())["parts"]["tests"]
        self.assertEqual((record["failed"], record["left"]), ({}, ["kernel/Fill.Hangs"]))

    def assert_no_command_left(self):
        program, until = str(self.root / "build/cuda/bin").encode(), time.monotonic() + 10
        while True:
            left = []
            for line in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    if program in line.read_bytes():
                        left.append(line)
                except OSError:  # it has ended meanwhile
                    pass
            if not left:
                return
            self.assertLess(time.monotonic(), until, left)
            time.sleep(0.05)

    def test_calls_that_are_killed_at_any_moment_are_continued(self):
        names = [f"Fill.Slow{n}" for n in range(6)] + [f"Fill.N{n}" for n in range(40)]
        self.program("kernel", *names)
        draw, kills, ended = random.Random(3), 0, 0
        record, log = {}, self.root / "ended"
        while True:
            # Each call begins in an empty folder, into which the last one's file may be copied.
            given = self.root / f"given{kills}"
            process = subprocess.Popen(
                [sys.executable, ROOT / "tools/gpu_check", "--rehearse", "--results", given,
                 "--build", self.root / "build/cuda", "tests", "memcheck"],
                env={**os.environ, "FAKE_ENDED": str(log)}, stdout=subprocess.PIPE, text=True,
                start_new_session=True)
            try:
                # Ever later, so that all is done in the end, however slow the machine is.
                process.communicate(timeout=draw.uniform(0.2, 1.6) + 0.25 * kills)
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                self.assert_no_command_left()
                kills += 1
            file = given / "emulated.json"
            if file.is_file():  # always whole, and never less than before
                found = json.loads(file.read_text())
                now = results.ended(found)[0]
                self.assertGreaterEqual(now, ended)
                ended = now
            self.assertLess(kills, 40)
        self.assertGreater(kills, 3)
        self.assertEqual(process.returncode, 0)
        for part in ("tests", "memcheck"):
            record = json.loads((given / "emulated.json").read_text())["parts"][part]
            self.assertEqual((record["passed"], record["left"]), (len(names), []))
        # A case is run again only if its call was killed before its end was saved. The program may end
        # one more before it notices.
        again = [name for name in log.read_text().split() if name != PROBE]
        self.assertLessEqual(len(again), 2 * len(names) + 2 * kills)

    def test_a_call_continues_from_results_that_another_machine_gave_back(self):
        self.program("kernel", "A.One", "A.Two")
        given, usual = self.root / "given", self.root / "tests/bench/results"
        self.check("tests", "--results", str(given))
        self.assertFalse(usual.exists())
        self.assertEqual(sorted(file.name for file in given.iterdir()),
                         ["log-0.txt", "nvidia-t1.json"])
        shutil.rmtree(self.root / "build/cuda/gpu_check")  # another machine
        usual.mkdir(parents=True)
        shutil.move(given / "nvidia-t1.json", usual)
        said = self.check("tests", "--results", str(given))
        self.assertNotIn("to do", said)
        self.assertIn("passed tests: 3 of 3", said)

    def test_parts_share_the_time_that_is_left(self):
        self.program("kernel", *(f"A.Slow{n}" for n in range(40)))
        with mock.patch.object(gtest.Tests, "jobs", 1), \
                mock.patch.object(gtest.Sanitizer, "jobs", 1), \
                mock.patch.object(parts, "FIRST_BATCH", 1):
            self.check("tests", "memcheck", "racecheck", "--minutes", "0.12", status=3)
        for part in ("tests", "memcheck", "racecheck"):
            self.assertGreater(self.record(part)["passed"], 0)
            self.assertGreater(len(self.record(part)["left"]), 0)
        self.assertGreater(self.record("tests")["seconds"], self.record("memcheck")["seconds"])

    def test_sweeps_leave_their_worst_in_the_results(self):
        self.program("kernel", "A.Sweep", "A.One")
        self.check("tests")
        self.assertEqual(self.record("tests")["figures"], {"kernel/A.Sweep": {"sweeps": [
            {"worst": 0.7, "recorded": 0.5, "absolute": 2e-6, "relative": 0}]}})

    def test_initcheck_counts_findings_in_our_kernels_and_sees_unfilled_memory(self):
        self.program("kernel", "A.Theirs", "A.Fill0", "A.One")
        self.check("initcheck")
        self.assertEqual(self.record("initcheck")["failed"], {})
        self.program("kernel", "A.Theirs", "A.Fill0", "A.One", "A.Races")
        self.check("initcheck", "--again", status=1)
        self.assertEqual(list(self.record("initcheck")["failed"]), ["A.Races"])

    def test_a_sanitizer_is_tried_with_its_filter_and_without_it(self):
        self.program("kernel", "A.One")
        for refused, there in (("none", True), ("--kernel-name", False)):
            with mock.patch.dict(os.environ, FAKE_REFUSED=refused):
                self.check("memcheck", "--again")
            command = (self.root / "build/cuda/logs/log-0.txt").read_text().split("\n$ ")[-1]
            self.assertEqual("--kernel-name kns=carousel" in command, there)
        with mock.patch.dict(os.environ, FAKE_REFUSED="--tool"):
            self.check("memcheck", "--again")
        self.assertIn("does not work here", self.record("memcheck")["skipped"])

    def test_an_archive_brings_its_programs_and_their_commit(self):
        self.program("engine", "B.One")
        self.assertIn(f"of commit {'a' * 40}; without lstm_vs_cudnn", self.check("--pack"))
        shutil.rmtree(self.root / "build/cuda")
        self.assertIn("passed tests: 2 of 2", self.check("tests"))
        self.assertEqual((self.root / "build/cuda/commit").read_text(), "a" * 40 + "\n")
        # The archive does not replace programs that were built later.
        self.program("engine", "B.One", "B.Two")
        self.assertIn("passed tests: 3 of 3", self.check("tests", "--again"))

    def test_what_is_wrong_is_said_in_a_line(self):
        self.check("memtest", status="unknown part 'memtest', expected " + ", ".join(
            gpu_check.all_parts(parts.Setting(build.Build(self.root), self.root, False,
                                          self.root))))
        (self.bin / "carousel_bench").unlink()
        self.check("tests", status=f"{self.bin}/carousel_bench is missing, expected a whole build")

    def test_cudnn_keeps_what_it_has_measured_of_a_width_it_did_not_finish(self):
        self.check("cudnn")
        self.assertIn("built without cuDNN's headers", self.record("cudnn")["skipped"])
        self.lstm_vs_cudnn(CUDNN.format(python=sys.executable))
        with mock.patch.object(peers, "has_library", lambda name: True), \
                mock.patch.object(peers.Cudnn, "HIDDEN", (128,)), \
                mock.patch.object(peers, "END_SECONDS", 1):
            said = self.check("cudnn", status=3)
            self.assertIn("partial cudnn: 0 of 1 hidden widths", said)
            self.assertEqual(len(self.record("cudnn")["figures"]["H = 128"]["rows"]), 4)
            shutil.rmtree(self.root / "build/cuda/logs")  # as on another machine
            self.check("cudnn")
        record = self.record("cudnn")
        self.assertEqual((record["passed"], len(record["figures"]["H = 128"]["rows"])), (1, 6))

    def test_cudnn_goes_on_behind_what_hangs_crashes_or_loses_the_device(self):
        self.lstm_vs_cudnn(CUDNN_HARD.format(python=sys.executable))
        with mock.patch.object(peers, "has_library", lambda name: True), \
                mock.patch.object(peers.Cudnn, "HIDDEN", (128,)), \
                mock.patch.object(peers.Cudnn, "limit", 1), \
                mock.patch.object(peers, "END_SECONDS", 1):
            self.check("cudnn")
            columns, rows = self.record("cudnn")["figures"]["H = 128"].values()
            self.assertEqual([row[columns.index("status")] for row in rows],
                             ["ended at 0", "ended at 1", "lost"])
            self.lstm_vs_cudnn("#!/bin/sh\necho 'no CUDA device'; exit 1\n")
            self.check("cudnn", "--again", status=1)
        self.assertIn("status 1: no CUDA device", self.record("cudnn")["failed"]["H = 128"])


class Reports(unittest.TestCase):
    def test_a_report_that_is_being_written_gives_the_cases_that_are_whole(self):
        entry = ('{"run_name": "%s", "aggregate_name": "median", "real_time": 2, '
                 '"time_unit": "ms", "GB/s": 7}')
        text = '{"benchmarks": [\n' + entry % "a" + ",\n" + entry % "b" + "\n]}"
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "report.json"
            self.assertEqual(bench.read_report(file), {})
            for length, names in ((12, ""), (len(text) // 2, ""), (text.index(entry % "b"), "a"),
                                  (len(text) - 3, "ab"), (len(text), "ab")):
                file.write_text(text[:length])
                found = bench.read_report(file)
                self.assertEqual("".join(found), names, text[:length])
                for outcome in found.values():
                    self.assertEqual(outcome.figures, {"ms": 2, "GB/s": 7})


class Tables(unittest.TestCase):
    """--table for a given results file."""

    def markdown(self, **figures):
        done = {"unit": "cases", "cases": 1, "passed": 1, "seconds": 1, "failed": {}, "skipped": {},
                "left": []}
        return table.markdown({
            "gpu": "NVIDIA T1", "driver": "580.1", "commit": "abc", "date": "today",
            "parts": {name: {**done, "figures": value} for name, value in figures.items()}})

    def test_cudnns_fastest_success_of_equal_width_over_ours(self):
        columns = ["H", "B", "T", "pass", "library", "algorithm", "dtype", "status", "median_ms"]
        rows = [[128, 8, 256, "train", "carousel", "carousel", "bf16", "ok", 2.0],
                [128, 8, 256, "train", "cudnn", "STANDARD", "bf16", "ok", 9.0],
                [128, 8, 256, "train", "cudnn", "STANDARD", "fp16", "ok", 5.0],
                [128, 8, 256, "train", "cudnn", "PERSIST_STATIC", "fp16", "refused", None],
                [128, 8, 256, "train", "cudnn", "STANDARD", "tf32", "ok", 1.0],
                [128, 16, 256, "train", "carousel", "carousel", "bf16", "ok", 1.0],
                [128, 16, 256, "train", "cudnn", "STANDARD", "fp16", "ok", 2.0],
                [128, 16, 256, "train", "cudnn", "STANDARD", "fp16", "ok", 1.6],
                [256, 8, 256, "train", "carousel", "carousel", "bf16", "ok", 1.0]]
        said = self.markdown(cudnn={"H = 128": {"columns": columns, "rows": rows}})
        self.assertTrue(said.endswith(
            "| H \\ B | 8 | 16 |\n| --- | ---: | ---: |\n| 128 | 2.50 | 1.60 |"), said)
        self.assertIn("geometric mean 2.00, least 1.60", said)
        self.assertNotIn("tf32:", said)  # ours has not run in it

    def test_training_beside_pytorch(self):
        said = self.markdown(
            tokens={"m/bf16/graph": {"tokens/s": 3e6}, "m/bf16/eager": {"tokens/s": 2e6}},
            pytorch={"m/bf16": {"carousel": 3e6, "pytorch": 1e6, "ratios": [2.9, 3.1],
                                "way": "graph"},
                     "nn.LSTM/f32/round 1": {"train 1,2,3,4": {"carousel ms": 2, "pytorch ms": 3}},
                     "nn.LSTM/f32/round 2": {"train 1,2,3,4": {"carousel ms": 2, "pytorch ms": 5}}})
        self.assertIn("| m, bf16 | 3,000k | 2,000k | 1.50 | 1,000k (graph) | 3.00 |", said)
        self.assertIn("| T, B, I, H | f32 train |\n| --- | ---: |\n| 1, 2, 3, 4 | 2.00 |", said)

    def test_kernels_as_shares_of_the_ceilings(self):
        said = self.markdown(
            ceilings={"copy_ceiling/cuda:1/real_time": {"ms": 1, "GB/s": 4000},
                      "launch_ceiling/cuda:1/real_time": {"ms": 1, "million/s": 0.5},
                      "product_ceiling<GemmType::bf16>/cuda:1/n:8/real_time":
                          {"ms": 1, "GFLOP/s": 800000}},
            bench={"fill<float>/cuda:1/n:1/real_time": {"ms": 1, "GB/s": 1000},
                   "fill<float>/cuda:1/n:9/real_time": {"ms": 1, "GB/s": 3000},
                   "recurrent_sequence/cuda/lstm/bf16/train/T:1/B:2/I:3/H:4/real_time":
                       {"ms": 1, "FLOP/s": 2e14}})
        self.assertIn("| `fill<float>` | copy | 2 | 0.25 | 0.75 |", said)
        self.assertIn("| `recurrent_sequence/cuda/lstm/bf16/train` | bf16 product | 1 | 0.25 | 0.25 |", said)
        self.assertIn("| `launch_ceiling` | 2 µs |", said)


class Rehearsal(unittest.TestCase):
    """Every part with the programs of an emulated build, as far as this machine can."""

    def test_every_part(self):
        with tempfile.TemporaryDirectory() as folder:
            script(pathlib.Path(folder) / "compute-sanitizer", SANITIZER)
            result = subprocess.run(
                [sys.executable, ROOT / "tools/gpu_check", "--rehearse", "--again", "--build",
                 BUILD], capture_output=True, text=True,
                env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"})
        said = result.stdout
        self.assertEqual(result.returncode, 0, said + result.stderr)
        found = json.loads((BUILD / "gpu_check/emulated.json").read_text())["parts"]
        for part in ("tests", "driver", "memcheck", "racecheck", "initcheck", "synccheck", "ceilings",
                     "bench", "tokens"):
            self.assertIn(f"passed {part}: ", said)
            self.assertGreater(found[part]["passed"], 0)
        self.assertRegex(said, "(passed|SKIPPED) pytorch: ")  # whether it ran or not, it is said
        rows = [row for case in found["cudnn"]["figures"].values() for row in case["rows"]]
        status = found["cudnn"]["figures"]["H = 8"]["columns"].index("status")
        self.assertGreater([row[status] for row in rows].count("ok"), len(rows) // 2)
        self.assertIn("LSTM, train, bf16: the fastest of cuDNN (bf16, fp16) over ours", said)
        for name, figures in found["tokens"]["figures"].items():
            self.assertGreater(figures["tokens/s"], 0, name)
        for part in ("ceilings", "bench"):
            self.assertEqual(len(found[part]["figures"]), found[part]["cases"])


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]])
