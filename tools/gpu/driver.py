"""Part driver: the driver's own comparisons on the device, and generation, as tests."""
import json
import pathlib
import tempfile

from gpu import command, parts, training
from gpu.results import FAILED, PASSED, Outcome

STEPS = 4  # of a comparison; a step is a graph from the third on
TOKENS = 40


class Driver(parts.Part):
    """`carousel compare` of CPU and CUDA and of eager steps and graphs, and `carousel generate` with
    and without graphs, which must write the same."""
    name, unit = "driver", "commands"
    limit = 120
    batched = False
    COMPARISONS = {
        "compare cpu and cuda, f32": ["--devices", "cpu,cuda", "--precisions", "f32"],
        "compare cpu and cuda, bf16": ["--devices", "cpu,cuda", "--precisions", "bf16"],
        "compare cpu in f32 and cuda in tf32": ["--devices", "cpu,cuda", "--precisions", "f32,tf32"],
        **{f"compare eager and graph, {precision}":
           ["--device", "cuda", "--modes", "eager,graph", "--precision", precision]
           for precision in training.PRECISIONS}}
    GENERATIONS = {f"generate, {precision}": precision for precision in training.PRECISIONS}

    def cases(self):
        return [*self.COMPARISONS, *self.GENERATIONS]

    def run(self, names, until, log, take):
        name = names[0]
        if name in self.COMPARISONS:
            found = self.call(until, log, "compare", training.CONFIG, "--steps", STEPS,
                              *self.COMPARISONS[name], *self.model())
        else:
            found = self.generate(self.GENERATIONS[name], until, log)
        if found is None:
            return None
        return {name: Outcome(FAILED, found) if isinstance(found, str) else Outcome(PASSED)}

    def model(self):
        """The options of the model to run."""
        keys = training.machine_keys(self.setting, next(iter(training.MODELS)))
        return [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]

    def call(self, until, log, *words):
        """The lines that the driver prints; a description of its failure; or None if the time was
        up."""
        lines = []
        status = command.run([self.setting.build.program("carousel"), *words], log, until,
                             self.limit, lines.append)
        if status == command.TIME_UP:
            return None
        if status == command.STUCK:
            return f"stuck: stopped after {self.limit} s"
        return lines if status == 0 else f"status {status}: " + " | ".join(lines[-6:])

    def generate(self, precision, until, log):
        with tempfile.TemporaryDirectory() as folder:
            run = pathlib.Path(folder) / "run"
            found = self.call(until, log, "train", training.CONFIG, "--out", run, "--device", "cuda",
                              "--precision", precision, *self.model(), "--set", "train.steps=6")
            if not isinstance(found, list):
                return found
            texts = {}
            for graph in ("true", "false"):
                found = self.call(until, log, "generate", run, "--device", "cuda", "--prompt", "a",
                                  "--tokens", TOKENS, "--count", 2, "--seed", 3, "--json",
                                  "--set", f"run.graph={graph}")
                if not isinstance(found, list):
                    return found
                texts[graph] = [json.loads(line) for line in found if line.startswith("{")]
        if not texts["true"] or texts["true"] != texts["false"]:
            return f"as graphs: {texts['true']}, kernel by kernel: {texts['false']}"
        return []
