"""Should a trial's actor be kept for the next trial? Whole searches, both ways, in turn.

    python benchmarks/actor_reuse.py [--repeats 2] [--epochs 1 3]

Prints, for short and longer trials, the wall time of a search over the ideal (sum of its trials'
seconds over the slots), and the ratio of the wall times without and with reuse.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from paploss.files import read_json
from search.history import load_history
from trainers.datasets.shapes import draw_shapes


def run_search(
    data: Path, storage: Path, epochs: int, reuse: bool, repeat: int
) -> tuple[float, float]:
    """(wall seconds, ideal seconds) of one search of 2 rounds of 4 trials."""
    name = f"epochs{epochs}-{'reuse' if reuse else 'fresh'}-{repeat}"
    settings = {
        "name": name,
        "storage": storage,
        "data": data / "dataset.yaml",
        "algorithm.rounds": 2,
        "algorithm.samples": 4,
        "final.candidates": 2,
        "final.repeats": 2,
        "schedule.epochs": epochs,
        "resources.reuse_actors": str(reuse).lower(),
    }
    options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "search.cli", "search", "shapes", *options]
    subprocess.run(command, check=True, capture_output=True)
    summary = read_json(storage / name / "summary.json")
    busy = sum(record["seconds"] for record in load_history(storage / name).records)
    return summary["wall_seconds"], busy / summary["slots"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 6])
    arguments = parser.parse_args()
    print("| trial | wall / ideal, kept | wall / ideal, fresh | wall fresh / wall kept |")
    print("| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        data, storage = Path(folder, "data"), Path(folder, "experiments")
        draw_shapes(data, train=128, val=32, test=32)
        for epochs in arguments.epochs:
            rows = []
            for repeat in range(arguments.repeats):
                kept = run_search(data, storage, epochs, True, repeat)
                fresh = run_search(data, storage, epochs, False, repeat)
                rows.append((kept[0] / kept[1], fresh[0] / fresh[1], fresh[0] / kept[0], kept[1]))
            medians = [statistics.median(column) for column in zip(*rows, strict=True)]
            trial = medians[3] * 2 / 16  # 8 samples, baseline and start twice, 2 x 2 finals
            print(f"| {trial:.1f} s | {medians[0]:.2f} | {medians[1]:.2f} | {medians[2]:.2f} |")


if __name__ == "__main__":
    main()
