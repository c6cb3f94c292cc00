"""A part has many cases. A call runs as many as its time allows; a later call continues."""
import concurrent.futures
import os
import threading
import time
from typing import Any, NamedTuple

from gpu import command, results
from gpu.build import Problem
from gpu.results import FAILED, Outcome

# The cases of a batch share a process, because a start costs seconds. When a part's time is up, the
# results of its running batches are lost.
BATCH_SECONDS = 30
FIRST_BATCH = 4
MOST_IN_A_BATCH = 40


class Setting(NamedTuple):
    """Shared by all parts of a call."""
    build: Any
    logs: Any  # a folder
    rehearsal: bool  # an emulated device: few and small cases


class Part:
    """Base class: a derived class names its cases and runs some of them."""
    name: str
    unit = "cases"
    limit = 120  # seconds a case may take
    jobs = 1  # processes at a time
    batched = True  # several cases to a process

    def __init__(self, setting):
        self.setting = setting
        self.figures = {}  # of the record; those of an unfinished case may be kept

    def unavailable(self):
        """Why this machine cannot run the part, or None."""
        return None

    def cases(self):
        """Names, in the order in which they are run."""
        raise NotImplementedError

    def run(self, names, until, log):
        """{name: Outcome} of the cases that ended; None if the time was up."""
        raise NotImplementedError


def processes():
    """How many tests run at once: they share the GPU, but spend most of their time on the CPU."""
    return max(1, min(4, (os.cpu_count() or 1) // 2))


def environment(jobs):
    """The environment of one of `jobs` processes."""
    cores = max(1, (os.cpu_count() or 1) // jobs)
    return {**os.environ, "OMP_NUM_THREADS": str(cores)} if jobs > 1 else None


def work(part, record, save, until):
    """Runs the remaining cases of a part until `until`, a time of time.monotonic()."""
    lock = threading.Lock()
    busy, done, spent = set(), 0, 0.0
    began, before = time.monotonic(), record["seconds"]
    part.figures = record["figures"]

    def batch():
        free = [name for name in record["left"] if name not in busy]
        size = FIRST_BATCH
        if done:
            mean = spent / done
            seconds = min(BATCH_SECONDS, until - time.monotonic())
            size = max(1, min(MOST_IN_A_BATCH, int(seconds / max(mean, 1e-3))))
        return free[:size if part.batched else 1]

    def worker(number):
        nonlocal done, spent
        log = part.setting.logs / f"{part.name}-{number}.log"
        while time.monotonic() < until:
            with lock:
                names = batch()
                busy.update(names)
            if not names:
                return
            started = time.monotonic()
            outcomes = part.run(names, until, log)
            if outcomes == {}:
                outcomes = {names[0]: Outcome(FAILED, f"it did not end; see {log.name}")}
            with lock:
                busy.difference_update(names)
                if outcomes is None:
                    record["seconds"] = round(before + time.monotonic() - began, 1)
                    return
                for name, outcome in outcomes.items():
                    results.take(record, name, outcome)
                    if outcome.verdict == FAILED:
                        print(f"gpu_check: FAILED {part.name}: {name}", flush=True)
                done += len(outcomes)
                spent += time.monotonic() - started
                record["seconds"] = round(before + time.monotonic() - began, 1)
                save()

    def guarded(number):
        try:
            worker(number)
        except BaseException:
            command.stop_all()  # those of the other workers too, so that the caller learns of it now
            raise

    with concurrent.futures.ThreadPoolExecutor(part.jobs) as pool:
        for future in [pool.submit(guarded, number) for number in range(part.jobs)]:
            future.result()


def begin_or_go_on(part, found, again):
    """The part's record, and whether cases are left. A record of an earlier call is continued, and
    so are its logs."""
    record = found.part(part.name)
    if record is None or again or isinstance(record["skipped"], str):
        why = part.unavailable()
        if why:
            found.skip(part.name, why)
            return found.part(part.name), False
        for log in part.setting.logs.glob(f"{part.name}-*"):
            log.unlink()
        record = found.begin(part.name, part.unit, part.cases())
    elif record["left"]:
        why = part.unavailable()
        if why:
            raise Problem(f"{part.name} cannot go on: {why}")
    return record, bool(record["left"])
