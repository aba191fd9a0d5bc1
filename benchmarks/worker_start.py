"""How long until two workers of a trial can train: Ray Train's worker group, and this project's.

    python benchmarks/worker_start.py [--trials 3]

Both ways get a Ray that runs already. Ray Train starts its controller and its workers anew for each
training; here they are kept, and each trial is a fork of a process that has imported everything.
Prints, for each trial after another, the seconds from asking to the end of a training function that
joins the other worker by gloo, adds up one number and returns, with mmdet imported.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_TRAIN_V2_ENABLED"] = "1"

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from trainers.trial import TrialSpec

TRIALS = "benchmarks.meeting_trials"


def meet() -> None:
    """What Ray Train's workers train."""
    import torch
    import torch.distributed as dist

    from trainers.mmdet.training import preload

    preload()
    total = torch.ones(())
    dist.all_reduce(total)
    assert total == 2


def by_ray_train(folder: Path) -> float:
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    begun = time.perf_counter()
    TorchTrainer(
        meet,
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
        torch_config=TorchConfig(backend="gloo"),
        run_config=RunConfig(storage_path=str(folder), name=f"{time.time_ns()}"),
    ).fit()
    return time.perf_counter() - begun


class Actor:
    """What Tune's actor is to a trial, in the first bundle of a placement group."""

    def __init__(self) -> None:
        from trainers.trainable import FirstWorker, start_others

        others = start_others(TRIALS)
        self._team = [FirstWorker(TRIALS), *others]

    def run(self, spec: TrialSpec, folder: Path) -> str:
        from trainers.team import run_together

        return run_together(self._team, spec, folder, 120).status


def by_kept_workers(spec: TrialSpec, folder: Path, trials: int) -> list[float]:
    begun = time.perf_counter()
    group = placement_group([{"CPU": 0.5}] * 2)
    actor = (
        ray.remote(Actor)
        .options(num_cpus=0.5, scheduling_strategy=PlacementGroupSchedulingStrategy(group, 0))
        .remote()
    )
    seconds = []
    for trial in range(trials):
        assert ray.get(actor.run.remote(spec, folder / f"{trial}")) == "ok"
        seconds.append(time.perf_counter() - begun)
        begun = time.perf_counter()
    ray.kill(actor)
    return seconds


def main() -> None:
    from benchmarks.gather_logits import quick_start

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=3)
    trials = parser.parse_args().trials
    with tempfile.TemporaryDirectory() as folder:
        spec = quick_start(Path(folder))
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        kept = by_kept_workers(spec, Path(folder), trials)
        train = [by_ray_train(Path(folder)) for _ in range(trials)]
        ray.shutdown()
    print("| trial | Ray Train's workers, s | kept workers, s | ratio |\n| --- | --- | --- | --- |")
    for trial, (one, other) in enumerate(zip(train, kept, strict=True)):
        print(f"| {trial + 1} | {one:.1f} | {other:.1f} | {one / other:.1f} |")


if __name__ == "__main__":
    main()
