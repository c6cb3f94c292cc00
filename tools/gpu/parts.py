"""A part has many cases. A call runs as many as its time allows; a later call continues."""
import concurrent.futures
import os
import threading
import time
from typing import Any, NamedTuple

from gpu import command, results
from gpu.results import FAILED, Outcome

# The cases of a batch share a process, because a start costs seconds.
BATCH_SECONDS = 30
FIRST_BATCH = 4
MOST_IN_A_BATCH = 40


class Setting(NamedTuple):
    """Shared by all parts of a call."""
    build: Any
    logs: Any  # a folder
    rehearsal: bool  # an emulated device: few and small cases
    work: Any  # a folder for files that are needed until a case has ended

    def log(self, number):
        """Of all parts' process `number` at a time: few files, for some machines return only few."""
        return self.logs / f"log-{number}.txt"


class Part:
    """Base class: a derived class names its cases and runs some of them."""
    name: str
    unit = "cases"
    weight = 1  # of its share of a call's time
    limit = 120  # seconds a case may take
    jobs = 1  # processes at a time
    batched = True  # several cases to a process

    def __init__(self, setting):
        self.setting = setting
        self.figures = {}  # of the record; those of an unfinished case may be kept
        self.save = lambda: None  # them

    def forget(self):
        """Removes what an earlier run left to go on with."""

    def unavailable(self):
        """Why this machine cannot run the part, or None."""
        return None

    def cases(self):
        """Names, in the order in which they are run."""
        raise NotImplementedError

    def run(self, names, until, log, take):
        """{name: Outcome} of the cases that ended; None if the time was up. Before, take(name,
        outcome) may be called for each case as it ends, so that it is saved at once."""
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
    part.figures, part.save = record["figures"], save

    def batch():
        free = [name for name in record["left"] if name not in busy]
        size = FIRST_BATCH
        if done:
            mean = spent / done
            seconds = min(BATCH_SECONDS, until - time.monotonic())
            size = max(1, min(MOST_IN_A_BATCH, int(seconds / max(mean, 1e-3))))
        return free[:size if part.batched else 1]

    def take(name, outcome):
        with lock:
            results.take(record, name, outcome)
            if outcome.verdict == FAILED:
                print(f"gpu_check: FAILED {part.name}: {name}", flush=True)
            record["seconds"] = round(before + time.monotonic() - began, 1)
            save()

    def worker(number):
        nonlocal done, spent
        log = part.setting.log(number)
        while time.monotonic() < until:
            with lock:
                names = batch()
                busy.update(names)
            if not names:
                return
            started = time.monotonic()
            outcomes = part.run(names, until, log, take)
            if outcomes == {}:
                outcomes = {names[0]: Outcome(FAILED, f"it did not end; see {log.name}")}
            for name, outcome in (outcomes or {}).items():
                if name in record["left"] or outcome.verdict == FAILED:
                    take(name, outcome)
            with lock:
                busy.difference_update(names)
                if outcomes is None:
                    record["seconds"] = round(before + time.monotonic() - began, 1)
                    return
                done += len(outcomes)
                spent += time.monotonic() - started

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
    """The part's record, and whether there are cases to run. A record of an earlier call is
    continued."""
    record = found.part(part.name)
    if record is None or again or isinstance(record["skipped"], str):
        why = part.unavailable()
        if why:
            found.skip(part.name, why)
            return found.part(part.name), False
        part.forget()
        record = found.begin(part.name, part.unit, part.cases())
    elif record["left"]:
        why = part.unavailable()
        if why:
            print(f"gpu_check: {part.name} cannot go on here: {why}", flush=True)
            return record, False
    return record, bool(record["left"])
