"""One command with time limits; its output goes to a log."""
import ctypes
import os
import select
import signal
import subprocess
import time

# What a line of output means.
NEXT, ENOUGH = "a case began or ended", "the command may end"
# Why a command was stopped.
STUCK, TIME_UP = "stuck", "time up"

_libc = ctypes.CDLL(None)
_running = set()
_stopping = False


def run(command, log, until, limit=None, seen=lambda line: None, environment=None):
    """Runs a command and returns its exit status. `seen` judges each line of its output. STUCK if
    `limit` seconds pass between two lines for which it returns NEXT; TIME_UP at the time `until`
    (time.monotonic()); ENOUGH for a line interrupts the command as Ctrl-C does. The output is
    appended to `log`. All children of the command end with it."""
    with open(log, "ab") as sink:
        sink.write(f"\n$ {' '.join(map(str, command))}\n"[:4000].encode())
        sink.flush()
        process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   env=environment, start_new_session=True,
                                   preexec_fn=_end_with_parent)
        _running.add(process)
        try:
            return _watch(process, sink, until, limit, seen)
        finally:
            _end(process)
            process.stdout.close()
            _running.discard(process)


def stop_all():
    """Ends every command; their unfinished cases count as not run."""
    global _stopping
    _stopping = True
    for process in list(_running):
        _end(process)


def stopping():
    return _stopping


def _end_with_parent():
    """What is killed cannot end its commands, and one left behind would use the GPU for good."""
    set_death_signal = 1  # PR_SET_PDEATHSIG
    _libc.prctl(set_death_signal, signal.SIGKILL)


def _end(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:  # it hangs in the driver: do not wait
        pass


def _watch(process, sink, until, limit, seen):
    began, rest, open_ = time.monotonic(), b"", True
    while True:
        now = time.monotonic()
        if _stopping or now >= until:
            return TIME_UP
        if limit is not None and now >= began + limit:
            return STUCK
        pause = min(until, until if limit is None else began + limit) - now
        if not open_:  # its output has ended, the process has not
            try:
                status = process.wait(min(pause, 1))
                return TIME_UP if _stopping else status
            except subprocess.TimeoutExpired:
                continue
        if not select.select([process.stdout], [], [], min(pause, 1))[0]:
            continue
        block = os.read(process.stdout.fileno(), 1 << 16)
        open_ = block != b""
        sink.write(block)
        sink.flush()
        *lines, rest = (rest + block).split(b"\n")
        if not open_ and rest:
            lines, rest = [rest], b""
        for line in lines:
            meaning = seen(line.decode(errors="replace"))
            if meaning == NEXT:
                began = time.monotonic()
            elif meaning == ENOUGH:
                process.send_signal(signal.SIGINT)
