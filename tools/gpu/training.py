"""Part tokens: tokens per second of `carousel train`."""
import json
import pathlib
import random
import re
import statistics
import tempfile
import time

from gpu import command, parts
from gpu.build import ROOT
from gpu.results import FAILED, PASSED, Outcome

CONFIG = ROOT / "models/configs/speed.toml"
# Models, as changes to models/configs/speed.toml: none, and one with products that fill a large GPU.
MODELS = {
    "2 x 256, B 32, T 64": {},
    "2 x 1024, B 128, T 128": {"model.embed": 512, "model.hidden": 1024, "train.batch": 128,
                 "train.window": 128},
}
TINY = {"model.embed": 8, "model.hidden": 16, "train.batch": 2, "train.window": 4}
PRECISIONS = ("bf16", "tf32", "f32")
SECONDS = 6  # of steady training
WARM_UP = 3  # reports: the first step, the graph's capture, the clocks
TEXT_CHARACTERS = 2_000_000


def make_text(file, characters=TEXT_CHARACTERS):
    """The same text each time: made-up words with frequencies like those of a real language."""
    if file.is_file():
        return file
    draw = random.Random(1)
    words = ["".join(draw.choices("etaoinshrdlucmfwypvbgkjqxz", range(26, 0, -1),
                                  k=draw.randint(1, 9))) for _ in range(5000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]
    lines, length = [], 0
    while length < characters:
        line = " ".join(draw.choices(words, weights, k=draw.randint(4, 14))).capitalize()
        lines.append(line + draw.choice([".", "?", "!", ",", ";"]) + "\n")
        length += len(lines[-1])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(lines))
    return file


def tokens_per_second(driver, changes, log, until, seconds=SECONDS, limit=None, config=CONFIG):
    """{tokens/s, spread, reports} of a training run, which is interrupted after `seconds` of steady
    reports; or the status of a run that ended before."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "run"
        seen = _Enough(seconds)
        words = [driver, "train", config, "--out", out, "--set", "train.steps=1000000000"]
        for key, value in changes.items():
            words += ["--set", f"{key}={value}"]
        status = command.run(words, log, until, limit, seen)
        if status not in (0, 130):
            return status
        reports = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    # The last report is of the steps until the interruption.
    rates = [report["tokens_per_second"] for report in reports[WARM_UP:-1]]
    return {"tokens/s": float(f"{statistics.median(rates):.4g}"),
            "spread": round((max(rates) - min(rates)) / statistics.median(rates), 3),
            "reports": len(rates)}


class _Enough:
    """Counts the driver's reports until there are enough."""

    def __init__(self, seconds):
        self.reports, self.seconds, self.since, self.asked = 0, seconds, None, False

    def __call__(self, line):
        if self.asked or not re.match(r"step \d+/", line):
            return None
        self.reports += 1
        if self.reports == WARM_UP:
            self.since = time.monotonic()
        if self.reports >= WARM_UP + 3 and time.monotonic() >= self.since + self.seconds:
            self.asked = True
            return command.ENOUGH
        return None


class Tokens(parts.Part):
    """Training on CUDA in every precision, as one CUDA graph a step and kernel by kernel."""
    name, unit = "tokens", "runs"
    weight = 2
    limit = 90
    batched = False

    def cases(self):
        return [f"{model}/{precision}/{way}" for model in MODELS for precision in PRECISIONS
                for way in ("graph", "eager")]

    def run(self, names, until, log, take):
        model, precision, way = names[0].split("/")
        found = tokens_per_second(
            self.setting.build.program("carousel"),
            {**machine_keys(self.setting, model),
             "run.device": "cuda", "run.precision": precision,
             "run.graph": "true" if way == "graph" else "false"},
            log, until, 0.3 if self.setting.rehearsal else SECONDS, self.limit)
        if found == command.TIME_UP:
            return None
        if isinstance(found, dict):
            return {names[0]: Outcome(PASSED, figures=found)}
        how = f"stopped after {self.limit} s" if found == command.STUCK else f"status {found}"
        return {names[0]: Outcome(FAILED, f"{how}; see {log.name}")}


def machine_keys(setting, model):
    """The settings of a model."""
    text = make_text(setting.build.folder / "gpu_check/text.txt",
                     20_000 if setting.rehearsal else TEXT_CHARACTERS)
    changes = TINY if setting.rehearsal else MODELS[model]
    return {**changes, "data.text": text, "train.report_every": 2 if setting.rehearsal else 20}
