"""The search's own settings: what runs how often, on what, and where the results go.

The sections on what a trial trains (detector, data, criterion, schedule) belong to
`trainers.config`; `search.run` reads one YAML into both.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from paploss.strict import StrictModel
from search.mirror_uri import MirrorURI


class AlgorithmConfig(StrictModel):
    """A search algorithm and its budget. The defaults are the paper's."""

    type: Literal["ppo2", "random", "cem", "cma-es", "turbo", "tpe", "evolution", "guided"] = "ppo2"
    rounds: int = Field(40, ge=1, description="T: policy updates")
    samples: int = Field(
        8, ge=2, description="M: thetas drawn in a round, trained side by side and compared"
    )
    sigma: float | None = Field(
        None, gt=0, le=1, description="spread of the first round; None: the algorithm's own"
    )
    clip: float = Field(0.1, gt=0, lt=1, description="PPO2's clipping range")
    learning_rate: float = Field(0.01, gt=0, description="peak of PPO2's Adam steps")
    steps: int = Field(100, ge=2, description="Adam steps in an update; the first has rate 0")
    rehearsal: int = Field(
        160, ge=0, le=600, description="simulated trainings of guided before its first trial"
    )
    attempts: int = Field(
        16, ge=1, description="draws of a sample that the preflight may reject; the last is tried"
    )
    overlap: int = Field(
        0, ge=0, description="samples of a round that idle slots may begin before the last is over"
    )

    @model_validator(mode="after")
    def _a_round_has_samples_of_its_own(self) -> "AlgorithmConfig":
        if self.overlap >= self.samples:
            raise ValueError(
                f"overlap is {self.overlap} of {self.samples} samples; expected fewer, so that "
                "each round has samples of its own policy"
            )
        return self


OWN_SETTINGS = {"clip": "ppo2", "learning_rate": "ppo2", "steps": "ppo2", "rehearsal": "guided"}
"""Settings of an algorithm that only one has."""


def _by_name(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


class PreflightConfig(StrictModel):
    """What a sample has to pass before a trial is spent on it."""

    enabled: bool = Field(True, description="try losses out on made-up images for a moment first")


class RungsConfig(StrictModel):
    """Successive halving in a round: all samples at `fidelity`, the best of them in full."""

    factor: int = Field(4, ge=2, description="one of so many samples is trained in full")


class EarlyStopConfig(StrictModel):
    """A score part of the way, by which a trial may end early once that has proven right."""

    at: float = Field(0.5, gt=0, lt=1, description="of a trial's iterations")
    images: int = Field(40, ge=1, description="of the validation split")


class FinalConfig(StrictModel):
    """The final race: the policy's mean and the best trials, again, with fresh seeds.

    It takes `candidates` x `repeats` trials at most. Who cannot win any more leaves it, and the
    others get the trials that this saves.
    """

    candidates: int = Field(4, ge=1, description="the policy mean and the best candidates - 1")
    repeats: int = Field(3, ge=1, description="seeds for each, and for baseline and start")
    first: int = Field(2, ge=1, description="seeds for each before anyone may leave the race")
    drop: float = Field(
        0.1, ge=0, lt=0.5, description="who is less likely to be the best leaves; 0: nobody"
    )


class ResourcesConfig(StrictModel):
    """What one trial holds while it runs, and what it may wait for."""

    cpus_per_trial: float = Field(1, gt=0, description="of all its workers together")
    gpus_per_trial: float | None = Field(
        None, ge=0, description="a fraction of one, or a whole number; None: 1 if there are any"
    )
    workers_per_trial: int | None = Field(
        None, ge=1, description="processes that train together; None: one a GPU"
    )
    autoscaling: bool = Field(
        False, description="the cluster adds machines on demand: ask for them, and wait"
    )
    reuse_actors: bool = Field(True, description="keep a trial's process for the next trial")
    stall_minutes: float = Field(
        30, gt=0, description="a trial without progress for so long is stopped and tried again"
    )
    pending_minutes: float = Field(
        30, gt=0, description="with trials waiting and none running for so long, the search stops"
    )
    storage_minutes: float = Field(
        10, ge=0, description="storage that cannot be written is tried again for so long"
    )

    @property
    def workers(self) -> int:
        """Processes of one trial, each with its share of the CPUs and GPUs."""
        return self.workers_per_trial or max(1, int(self.gpus))

    @property
    def gpus(self) -> float:
        """GPUs of one trial, 0 as long as it is not known whether there are any."""
        return self.gpus_per_trial or 0.0

    def where(self, there_are_gpus: bool) -> "ResourcesConfig":
        """With `gpus_per_trial` decided, if it is not: a GPU for each worker, or none."""
        if self.gpus_per_trial is not None:
            return self
        gpus = float(self.workers) if there_are_gpus else 0.0
        return self.model_copy(update={"gpus_per_trial": gpus})

    @model_validator(mode="after")
    def _gpus_can_be_shared_out(self) -> "ResourcesConfig":
        gpus, workers = self.gpus, self.workers
        if self.autoscaling and self.gpus_per_trial is None:
            raise ValueError(
                "autoscaling is on, so the machines to come are not known; expected gpus_per_trial "
                "to say what a trial trains on: 1, or 0 for CPUs"
            )
        if gpus > 1 and (gpus != int(gpus) or gpus % workers):
            raise ValueError(
                f"gpus_per_trial is {gpus:g} for {workers} workers; expected a fraction of one "
                "GPU, or a whole number for each worker"
            )
        if gpus < workers and workers > 1 and gpus:
            raise ValueError(
                f"gpus_per_trial is {gpus:g} for {workers} workers, but no two workers can share "
                "a GPU; expected a GPU for each, or none"
            )
        return self


class SearchConfig(StrictModel):
    """One search.

    `name` is the experiment's folder under `storage`; `seed` decides every sample and every
    trial's training seed.
    """

    name: str = Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0, lt=2**32)
    storage: Path = Path("experiments")
    algorithm: Annotated[AlgorithmConfig, BeforeValidator(_by_name)] = AlgorithmConfig()
    paired_seeds: bool = Field(False, description="all samples of a round train with one seed")
    preflight: PreflightConfig = PreflightConfig()
    rungs: RungsConfig | None = None
    early_stop: EarlyStopConfig | None = None
    final: FinalConfig = FinalConfig()
    resources: ResourcesConfig = ResourcesConfig()
    trackers: tuple[Literal["wandb", "mlflow"], ...] = Field(
        (), description="where trials are reported to as well"
    )
    mirror: MirrorURI | None = Field(
        None, description="s3://, gs:// or file:// folder; small files are copied to NAME in it"
    )

    @property
    def full_samples(self) -> int:
        """Samples of a round that are trained in full."""
        samples = self.algorithm.samples
        return samples // self.rungs.factor if self.rungs else samples

    @model_validator(mode="after")
    def _rungs_divide_a_round(self) -> "SearchConfig":
        samples = self.algorithm.samples
        if self.rungs and samples % self.rungs.factor:
            raise ValueError(
                f"rungs.factor is {self.rungs.factor} for rounds of {samples} samples; expected a "
                f"factor that divides them, {_divisors(samples)}, so that each round trains as "
                "many in full"
            )
        return self


def _divisors(count: int) -> str:
    """Those above 1: "2, 4 or 8"."""
    *others, last = [str(k) for k in range(2, count + 1) if count % k == 0]
    return f"{', '.join(others)} or {last}" if others else last
