"""The results file: outcomes of one commit on one GPU, by part, and the cases that are left."""
import json
import os
from typing import Any, Dict, NamedTuple, Optional

PASSED, FAILED, SKIPPED = "passed", "failed", "skipped"


class Outcome(NamedTuple):
    """Of one case."""
    verdict: str
    text: str = ""  # why it failed or was skipped
    figures: Optional[Dict[str, Any]] = None  # what it measured


class Results:
    def __init__(self, files, earlier, **head):
        """Is saved to each of the files. Continues the one of them, or of the earlier ones, that has
        got furthest for the same commit and GPU."""
        self.files, self.replaced = files, None
        found = [read(file) for file in [*files, *earlier]]
        same = [old for old in found
                if all(old.get(key) == head[key] for key in ("gpu", "commit"))]
        if found[0] and found[0] not in same:
            self.replaced = found[0].get("commit")
        self.all = {**head, "parts": max(same, key=ended)["parts"] if same else {}}

    def save(self):
        text = to_text(self.all) + "\n"
        for file in self.files:
            file.parent.mkdir(parents=True, exist_ok=True)
            draft = file.with_suffix(".draft")
            draft.write_text(text)
            os.replace(draft, file)

    def begin(self, part, unit, cases):
        self.all["parts"][part] = {"unit": unit, "cases": len(cases), "passed": 0, "seconds": 0,
                                   "failed": {}, "skipped": {}, "figures": {}, "left": list(cases)}
        return self.all["parts"][part]

    def skip(self, part, why):
        self.all["parts"][part] = {"skipped": why}

    def part(self, name):
        return self.all["parts"].get(name)


def read(file):
    """A results file, or {} if there is none."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return {}


def ended(found):
    """How many cases of a results file have ended, and how many measurements it has of others."""
    records = [part for part in found["parts"].values() if "left" in part]
    return (sum(record["cases"] - len(record["left"]) for record in records),
            sum(len(record["figures"]) for record in records))


def take(record, name, outcome):
    """Adds the outcome of a case to the record of its part, or replaces it by a failure that showed
    later."""
    if name in record["left"]:
        record["left"].remove(name)
    elif outcome.verdict == FAILED and name not in record["failed"]:
        record["passed"] -= 1
    else:
        return
    if outcome.figures is not None:
        record["figures"][name] = outcome.figures
    if outcome.verdict == FAILED:
        record["failed"][name] = outcome.text
    elif outcome.verdict == SKIPPED:
        record["skipped"].setdefault(outcome.text, []).append(name)
    else:
        record["passed"] += 1


def status(record):
    """Of a part: 'passed', 'failed', 'partial', 'skipped'."""
    if isinstance(record["skipped"], str):
        return SKIPPED
    if record["failed"] or record["cases"] == 0:
        return FAILED
    return "partial" if record["left"] else PASSED


def is_open(record):
    """Whether a part has cases to run, as far as its record tells."""
    return record is None or isinstance(record["skipped"], str) or bool(record["left"])


def sentence(name, record):
    """A part's outcome in one line, with what to do if it is not finished."""
    kind = status(record)
    if kind == SKIPPED:
        return f"SKIPPED {name}: {record['skipped']}"
    if record["cases"] == 0:
        return f"FAILED {name}: there is nothing to run"
    failed, unit = len(record["failed"]), record["unit"]
    skipped = sum(map(len, record["skipped"].values()))
    ran = record["cases"] - len(record["left"])
    text = f"{name}: {ran} of {record['cases']} {unit}, {failed} failed"
    if skipped:
        text += f", {skipped} skipped ({'; '.join(record['skipped'])})"
    text += f", {record['seconds']:.0f} s"
    if record["left"]:
        text += "; call again for the rest"
    return f"{'FAILED' if kind == FAILED else kind} {text}"


def to_text(value, depth=0):
    """JSON with a line for each entry of the outer levels, so that diffs are readable."""
    if depth < 4 and isinstance(value, dict) and value:
        rows = [f"{json.dumps(key)}: {to_text(entry, depth + 1)}" for key, entry in value.items()]
        ends = "{}"
    elif depth < 5 and isinstance(value, list) and any(isinstance(v, list) for v in value):
        rows, ends = [json.dumps(entry, ensure_ascii=False) for entry in value], "[]"
    else:
        return json.dumps(value, ensure_ascii=False)
    margin = " " * (depth + 1)
    return ends[0] + "\n" + ",\n".join(margin + row for row in rows) + "\n" + " " * depth + ends[1]
