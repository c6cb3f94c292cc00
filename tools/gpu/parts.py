"""A part is many cases, of which a call does as many as its time allows; a later one goes on."""
import concurrent.futures
import os
import threading
import time
from typing import Any, NamedTuple

from gpu import command, results
from gpu.build import Problem
from gpu.results import FAILED, Outcome

# A batch's cases share a process, whose start costs seconds; when a part's time is up, what its
# running batches have done is lost.
BATCH_SECONDS = 30
FIRST_BATCH = 4
MOST_IN_A_BATCH = 40


class Setting(NamedTuple):
    """What all parts of a call share."""
    build: Any
    logs: Any  # a folder
    rehearsal: bool  # an emulated device: few and small cases


class Part:
    """Derive from it, and say what the cases are and how to run some."""
    name: str
    unit = "cases"
    limit = 120  # seconds a case may take
    jobs = 1  # processes at a time
    batched = True  # several cases to a process

    def __init__(self, setting):
        self.setting = setting
        self.figures = {}  # the record's: what a case that is not finished has measured may be kept

    def unavailable(self):
        """Why this machine cannot do the part, in a few words, or None."""
        return None

    def cases(self):
        """Names, in the order in which they are run."""
        raise NotImplementedError

    def run(self, names, until, log):
        """{name: Outcome} of those of the cases that came to an end; None if the time was up."""
        raise NotImplementedError


def processes():
    """How many tests may run at once: they share the GPU, and most of their time is the CPU's."""
    return max(1, min(4, (os.cpu_count() or 1) // 2))


def environment(jobs):
    """Of one of so many processes."""
    cores = max(1, (os.cpu_count() or 1) // jobs)
    return {**os.environ, "OMP_NUM_THREADS": str(cores)} if jobs > 1 else None


def work(part, record, save, until):
    """Does what is left of a part, until it is done or `until` (time.monotonic()) has come."""
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
                outcomes = {names[0]: Outcome(FAILED, f"it came to no end; see {log.name}")}
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
            command.stop_all()  # the other workers' too: whoever waits here shall hear of it now
            raise

    with concurrent.futures.ThreadPoolExecutor(part.jobs) as pool:
        for future in [pool.submit(guarded, number) for number in range(part.jobs)]:
            future.result()


def begin_or_go_on(part, found, again):
    """The part's record, and whether there is anything to do in it. The record tells what is left
    of an earlier call; logs go on where the record does."""
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
