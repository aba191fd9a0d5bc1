"""Do cheaper trials put thetas in the order that full ones do, and what do they cost?

    PYTHONPATH=. python benchmarks/fidelities.py run EXPERIMENT ... --out fidelities.jsonl
    PYTHONPATH=. python benchmarks/fidelities.py report fidelities.jsonl --figure fidelities.png

`run` takes thetas from the search trials of experiments of one task, all drawn alike, and trains
each at every fidelity and twice in full, always with another seed; full trials are looked at part
of the way (early_scores.py). It can be stopped and goes on where it was. `report` is for any time.

A reward is noisy, so no cheap trial can agree with a full one better than a second full one does:
that is the ceiling in the report. The best half is chosen by the experiment's own reward, a third
trial of which no number in the report is made. Costs are seconds of the CPU, of which a busy
machine takes no more; intervals are of 95 %, from thetas drawn with replacement.
"""

import argparse
import json
import tempfile
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fidelity_report import figure, report
from paploss.files import read_json, read_yaml
from search.journal import Journal
from trainers.fidelity import Fidelity
from trainers.search_trial import trial_spec
from trainers.trial import TrialSpec
from trainers.worker import TrialProcess

FIDELITIES: dict[str, Fidelity | None] = {
    "full": None,
    "full again": None,
    "images 1/2": Fidelity(images=0.5),
    "images 1/4": Fidelity(images=0.25),
    "passes 1/2": Fidelity(epochs=0.5),
    "size 2/3": Fidelity(image_size=0.67),
    "1 class": Fidelity(classes=1),
    "images 1/2, size 2/3": Fidelity(images=0.5, image_size=0.67),
    "passes 1/2, size 2/3": Fidelity(epochs=0.5, image_size=0.67),
    "images 1/4, size 2/3": Fidelity(images=0.25, image_size=0.67),
    "images 1/2, 1 class": Fidelity(images=0.5, classes=1),
    "images 1/4, size 2/3, val 1/2": Fidelity(images=0.25, image_size=0.67, val_images=0.5),
}
PHASE = "fidelity"
MEASURED = "measured.json"
"""Of early_scores.py."""
_STALL_SECONDS = 600.0


def chosen(experiments: Sequence[Path], count: int) -> list[dict[str, Any]]:
    """`count` search trials of all experiments, drawn alike but the same each time."""
    trials = [
        {
            "source": f"{path.name}/search-{record['round']:03d}-{record['slot']:02d}",
            "experiment": str(path.absolute()),
            "theta": record["theta"],
            "reward": record["reward"],
        }
        for path in experiments
        for record in Journal(path).records()
        if record["phase"] == "search" and record["status"] in ("ok", "diverged")
    ]
    if len(trials) < count:
        raise SystemExit(f"{count} thetas were asked for; the experiments have {len(trials)} yet.")
    order = np.random.default_rng(0).permutation(len(trials))
    return [trials[k] for k in order[:count]]


def task_of(experiments: Sequence[Path]) -> dict[str, Any]:
    """config.yaml of experiments that train the same thing."""
    parts = ("detector", "data", "criterion", "schedule", "reward")
    configs = [read_yaml(path / "config.yaml") for path in experiments]
    for path, config in zip(experiments, configs, strict=True):
        if any(config.get(part) != configs[0].get(part) for part in parts):
            raise SystemExit(f"{path} trains something else than {experiments[0]}.")
    return configs[0]


def spec_of(task: dict[str, Any], trial: dict[str, Any], fidelity: str) -> TrialSpec:
    seed = _seed(trial["source"], fidelity)
    theta = {str(k): value for k, value in enumerate(trial["theta"])}
    spec = trial_spec(task, {"phase": "search", "repeat": 0, "theta": theta, "seed": seed})
    return spec.model_copy(update={"fidelity": FIDELITIES[fidelity], "threads": 1})


def _seed(source: str, fidelity: str) -> int:
    return zlib.crc32(f"{source} {fidelity}".encode())


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """All whole lines: a last one may have been cut off."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def run(
    experiments: Sequence[Path], out: Path, thetas: int, processes: int, skip: Sequence[str]
) -> None:
    task = task_of(experiments)
    lines = [*read_lines(out)]
    # Experiments go on; what was chosen once stays.
    trials = lines[0]["chosen"] if lines else chosen(experiments, thetas)
    done = {(line["source"], line["fidelity"]) for line in lines[1:]}
    # Theta by theta, so that what is done is of use whenever it ends.
    names = [name for name in FIDELITIES if name not in skip]
    jobs = deque((t, name) for t in trials for name in names if (t["source"], name) not in done)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", encoding="utf-8") as file, ThreadPoolExecutor(processes) as pool:

        def write(line: dict[str, Any]) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()

        def work() -> None:
            with closing(TrialProcess("benchmarks.early_scores")) as server:
                while jobs:
                    trial, name = jobs.popleft()
                    line = measure(server, spec_of(task, trial, name))
                    write({"source": trial["source"], "fidelity": name, **line})
                    outcome = f"{line['status']} {line['reward']}"
                    print(f"{len(jobs)} left  {trial['source']}  {name}: {outcome}", flush=True)

        if not lines:
            write({"chosen": trials, "fidelities": _plain(FIDELITIES)})
        try:
            for future in [pool.submit(work) for _ in range(processes)]:
                future.result()
        finally:  # when interrupted: the trials that run come to their end
            jobs.clear()


def measure(server: TrialProcess, spec: TrialSpec) -> dict[str, Any]:
    """One trial: what it gave, and what it took."""
    with tempfile.TemporaryDirectory() as folder:
        result = server.run(spec, Path(folder), _STALL_SECONDS)
        measured = Path(folder) / MEASURED
        kept = result.model_dump(include={"status", "reward", "iterations", "timing", "error"})
        return {**kept, **(read_json(measured) if measured.exists() else {})}


def _plain(fidelities: dict[str, Fidelity | None]) -> dict[str, Any]:
    return {name: f and f.model_dump(exclude_defaults=True) for name, f in fidelities.items()}


def records_of(path: Path) -> Iterator[dict[str, Any]]:
    """What `run` wrote to `path`, as records of a journal in a phase of their own.

    The round counts thetas, the slot fidelities.
    """
    header, *lines = read_lines(path)
    places = {trial["source"]: place for place, trial in enumerate(header["chosen"])}
    names = list(header["fidelities"])
    for line in lines:
        place, name = places[line["source"]], line["fidelity"]
        yield {
            "phase": PHASE,
            "round": place,
            "slot": names.index(name),
            "repeat": 0,
            "seed": _seed(line["source"], name),
            "theta": header["chosen"][place]["theta"],
            "seconds": sum((line["timing"] or {}).values()),
            "fidelity": header["fidelities"][name],
            **{key: line[key] for key in ("status", "reward")},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("experiments", type=Path, nargs="+")
    running.add_argument("--out", type=Path, required=True)
    running.add_argument("--thetas", type=int, default=64)
    running.add_argument("--processes", type=int, default=2)
    cheaper = [name for name, fidelity in FIDELITIES.items() if fidelity]
    running.add_argument("--skip", nargs="+", default=[], choices=cheaper, metavar="FIDELITY")
    reporting = commands.add_parser("report")
    reporting.add_argument("lines", type=Path)
    reporting.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "run":
        given = arguments
        run(given.experiments, given.out, given.thetas, given.processes, given.skip)
        return
    chosen_line, *lines = read_lines(arguments.lines)
    rows = report(chosen_line["chosen"], lines)
    if arguments.figure:
        figure(rows, arguments.figure)


if __name__ == "__main__":
    main()
