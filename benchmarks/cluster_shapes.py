"""How well does a search fill clusters of 1 to 64 slots, and what does its driver cost?

    PYTHONPATH=. python benchmarks/cluster_shapes.py [--slots 1 2 4 8 16 32 64] [--seconds 1]

The paper's search of 40 rounds of 8, with baseline, start and final race, on a real Ray with so
many CPUs to give away: the real searcher, plan, journal, Tune, display, history and TensorBoard.
Only a trial is none: its actor sleeps, and gives a smooth function of theta with noise. How long
it sleeps is a function of the trial's key: log-normal, and every twentieth takes twice as long.

What the rounds allow is the time that the same plan with the same durations takes when nothing
else takes any: the plan itself, played through event by event.
"""

import argparse
import contextlib
import heapq
import io
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from search.journal import TrialKey
from search.ledger import Assignment
from search.plan import Plan

SPREAD, STRAGGLERS = 0.2, 0.05
LONG = 1800.0  # seconds of a trial of the paper's size, for the numbers that are worked out


# --- a trial, without training ------------------------------------------------------------------


def duration(key: tuple[str, int, int, int], seconds: float) -> float:
    """Seconds that the trial with this key takes; their median is `seconds`."""
    luck = np.random.default_rng([*key[0].encode(), *key[1:]])
    return seconds * luck.lognormal(0, SPREAD) * (2 if luck.random() < STRAGGLERS else 1)


def outcome(theta: Any, seed: int) -> dict[str, Any]:
    """What a trial gives, as a `trainers.trial.TrialResult` would."""
    height = 0.35 * math.exp(-2 * float(np.mean((np.array(theta or [0.3]) - 0.6) ** 2)))
    reward = float(np.clip(height + 0.015 * np.random.default_rng(seed).standard_normal(), 0, 1))
    scores = {"AP": reward, "AP50": min(1.0, 1.5 * reward)}
    return {
        "status": "ok", "reward": reward, "test_reward": reward, "val": scores, "test": scores,
        "fingerprint": f"{seed:08x}", "iterations": 1, "timing": {}, "skipped_images": {},
        "error": None, "control_points": None, "gradient_scale": None,
    }  # fmt: skip


def sleeper(seconds: float) -> Any:
    """The actor of a search whose trials take `seconds` and train nothing."""
    from ray.tune import Trainable

    class Sleep(Trainable):
        def step(self) -> dict[str, Any]:
            config = self.config
            key = tuple(config[part] for part in ("phase", "round", "slot", "repeat"))
            started = time.time()
            time.sleep(duration(key, seconds))
            finished = time.time()
            record = {
                **outcome(list(config["theta"].values()), config["seed"]),
                "started": started, "finished": finished, "seconds": finished - started,
                "trial_dir": self.trial_name, "node": "", "pid": 0, "cpus": 1.0, "gpus": 0.0,
            }  # fmt: skip
            return {"record": json.dumps(record), "reward": record["reward"], "done": True}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            return True

    return Sleep


# --- what the rounds allow ----------------------------------------------------------------------


def ideal(plan: Plan, slots: int, seconds: Callable[[Assignment], float]) -> dict[TrialKey, float]:
    """When each trial ends, in seconds, if the plan is carried out without any delay.

    A free slot takes the first open trial that nobody has; the plan gets its records.
    """
    running: list[tuple[float, int, Assignment]] = []
    ends: dict[TrialKey, float] = {}
    taken: set[TrialKey] = set()
    now = 0.0
    while not plan.finished:
        waiting = [a for a in plan.open if a.key not in taken]
        for assignment in waiting[: slots - len(running)]:
            taken.add(assignment.key)
            heapq.heappush(running, (now + seconds(assignment), len(taken), assignment))
        now, _, ended = heapq.heappop(running)
        ends[ended.key] = now
        theta = None if ended.theta is None else list(ended.theta)
        about = {"label": ended.label, "theta": theta, "seed": ended.seed}
        plan.record({**ended.key._asdict(), **about, **outcome(theta, ended.seed)})
    return ends


def round_ends(ends: Mapping[TrialKey, float]) -> list[float]:
    """When each round is over."""
    rounds = 1 + max(key.round for key in ends if key.phase == "search")
    return [
        max(end for key, end in ends.items() if (key.phase, key.round) == ("search", number))
        for number in range(rounds)
    ]


# --- one cluster --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shape:
    """What a search on one cluster took, in seconds unless said otherwise.

    Attributes:
        wall: from the call of Tune to its end; `allowed` is what the rounds allow.
        first: until the first trial ran.
        steady: from the end of the first round to that of the last, and what the rounds allow.
        busy: all trials together.
        cpu: of the driver, all its threads: before the first trial, and from then on.
        memory: MiB of the driver, before its first trial and at the peak.
    """

    slots: int
    trials: int
    rounds: int
    wall: float
    allowed: float
    first: float
    steady: tuple[float, float]
    busy: float
    cpu: tuple[float, float]
    memory: tuple[float, float]

    @property
    def delay(self) -> float:
        """Seconds that a round takes longer than it has to."""
        return (self.steady[0] - self.steady[1]) / (self.rounds - 1)

    def ratio_at(self, stretch: float) -> float:
        """What the rounds allow over what they take, were trials `stretch` times as long."""
        took, allowed = self.steady
        return stretch * allowed / (stretch * allowed + took - allowed)


def create(storage: Path, arguments: argparse.Namespace) -> Path:
    """A new experiment; its data set is named and never read."""
    from search.run.experiment import create_experiment
    from search.run.load import split_config

    split = {"annotations": "none.json", "images": "."}
    values = {
        "name": "shape",
        "storage": str(storage),
        "detector": {"name": "none", "model": {"type": "RetinaNet"}},
        "data": {
            "name": "none",
            "classes": ["thing"],
            **dict.fromkeys(("train", "val", "test"), split),
        },
        "criterion": {"type": "parameterized_ap", "segments": 5},
        "algorithm": {
            "rounds": arguments.rounds,
            "samples": arguments.samples,
            "overlap": arguments.overlap,
        },
        "preflight": {"enabled": False},
    }
    return create_experiment(*split_config(values, "settings"))


class FirstStart:
    """A listener before another one, which sees when the first trial starts.

    Attributes:
        cpu: seconds of this process until then.
    """

    def __init__(self, listener: Any) -> None:
        self._listener = listener
        self.cpu: float | None = None

    def started(self, key: Mapping[str, Any]) -> None:
        if self.cpu is None:
            self.cpu = time.process_time()
        self._listener.started(key)

    def __getattr__(self, event: str) -> Any:
        return getattr(self._listener, event)


def start_ray(slots: int, folder: str) -> Callable[[], None]:
    """A Ray of this process with so many CPUs to give away; what stops it."""
    import ray  # after search.run has set the variables that Ray reads

    ray.init(
        address="local", num_cpus=slots, include_dashboard=False, log_to_driver=False,
        logging_level="error", _temp_dir=folder, object_store_memory=80_000_000,
    )  # fmt: skip
    return ray.shutdown


def run_shape(slots: int, arguments: argparse.Namespace) -> Shape:
    """A whole search on a Ray of this machine with so many slots."""
    from search.history import load_history
    from search.run.cluster import Cluster
    from search.run.experiment import open_experiment, plan_of
    from search.run.follower import Follower
    from search.run.tune import run_tune

    with tempfile.TemporaryDirectory(prefix="cs", dir="/tmp") as folder:
        storage = Path(folder, "experiments")
        experiment = create(storage, arguments)
        config, task = open_experiment(experiment)
        plan = plan_of(experiment, config, task)
        stop_ray = start_ray(slots, f"{folder}/r")
        with (
            Cluster.connect(config.resources) as cluster,
            Follower(experiment, plan.space, config) as follower,
            contextlib.redirect_stderr(io.StringIO()),  # the display's lines
        ):
            assert cluster.slots == slots
            follower.begin([], slots)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            cpu, wall, begun = time.process_time(), time.monotonic(), time.time()
            listener = FirstStart(follower)
            run_tune(
                experiment, plan.space, config, plan.baseline, cluster, listener,
                sleeper(arguments.seconds),
            )  # fmt: skip
            wall = time.monotonic() - wall
            after = time.process_time()
            assert listener.cpu is not None
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        records = load_history(experiment).records
        stop_ray()
        replay = plan_of(Path(folder, "replay"), config, task)
        ends = ideal(replay, slots, lambda a: duration(a.key, arguments.seconds))
    found = {TrialKey.of(record): record["finished"] for record in records}
    assert found.keys() == ends.keys()
    measured, allowed = round_ends(found), round_ends(ends)
    return Shape(
        slots=slots,
        trials=len(records),
        rounds=arguments.rounds,
        wall=wall,
        allowed=max(ends.values()),
        first=min(record["started"] for record in records) - begun,
        steady=(measured[-1] - measured[0], allowed[-1] - allowed[0]),
        busy=sum(record["seconds"] for record in records),
        cpu=(listener.cpu - cpu, after - listener.cpu),
        memory=(before, memory),
    )


# --- all of them --------------------------------------------------------------------------------

COLUMNS = (
    "slots", "trial, s", "start, s", "wall, s", "allowed, s", "whole", "rounds", "delay a round, s",
    "rounds of 30 min", "slots busy", "of allowed", "driver, s to start", "driver, ms a trial",
    "MiB before", "MiB peak",
)  # fmt: skip


def row(shape: Shape, seconds: float) -> str:
    """A line of the table."""
    used, could = (shape.busy / (shape.slots * t) for t in (shape.wall, shape.allowed))
    cells = [
        f"{shape.slots}", f"{seconds:g}", f"{shape.first:.1f}", f"{shape.wall:.1f}",
        f"{shape.allowed:.1f}", f"{shape.allowed / shape.wall:.1%}",
        f"{shape.steady[1] / shape.steady[0]:.1%}",
        f"{shape.delay:.3f}", f"{shape.ratio_at(LONG / seconds):.2%}", f"{used:.1%}",
        f"{could:.1%}", f"{shape.cpu[0]:.1f}", f"{1000 * shape.cpu[1] / shape.trials:.1f}",
        f"{shape.memory[0]:.0f}", f"{shape.memory[1]:.0f}",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    parser.add_argument("--seconds", type=float, default=1.0, help="median of a trial")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--overlap", type=int, default=0, help="algorithm.overlap")
    parser.add_argument("--here", action="store_true", help="one cluster, in this process")
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(asdict(run_shape(arguments.slots[0], arguments))))
        return
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}", flush=True)
    for slots in arguments.slots:
        options = ("seconds", "rounds", "samples", "overlap")
        values = [part for o in options for part in (f"--{o}", str(getattr(arguments, o)))]
        # A process each, so that memory and CPU are this driver's alone.
        command = [sys.executable, __file__, "--here", "--slots", str(slots), *values]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        print(row(Shape(**json.loads(done.stdout.splitlines()[-1])), arguments.seconds), flush=True)


if __name__ == "__main__":
    main()
