"""The search's own settings: what runs how often, on what, and where the results go.

The sections on what a trial trains (detector, data, criterion, schedule) belong to
`trainers.config`; `search.run` reads one YAML into both.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from paploss.strict import StrictModel


class AlgorithmConfig(StrictModel):
    """A search algorithm and its budget. The defaults are the paper's."""

    type: Literal["ppo2", "random"] = "ppo2"
    rounds: int = Field(40, ge=1, description="T: policy updates")
    samples: int = Field(8, ge=2, description="M: thetas drawn in a round, trained side by side")
    sigma: float = Field(0.2, gt=0, le=1, description="spread of the first round, falls linearly")
    clip: float = Field(0.1, gt=0, lt=1, description="PPO2's clipping range")
    learning_rate: float = Field(0.01, gt=0, description="peak of PPO2's Adam steps")
    steps: int = Field(100, ge=2, description="Adam steps in an update; the first has rate 0")


class FinalConfig(StrictModel):
    """The final race: the policy's mean and the best trials, again, with fresh seeds."""

    candidates: int = Field(4, ge=1, description="the policy mean and the best candidates - 1")
    repeats: int = Field(3, ge=1, description="seeds for each, and for baseline and start")


class ResourcesConfig(StrictModel):
    """What one trial holds while it runs."""

    cpus_per_trial: float = Field(1, gt=0)
    gpus_per_trial: float = Field(0, ge=0)
    reuse_actors: bool = Field(True, description="keep a trial's process for the next trial")
    stall_minutes: float = Field(
        30, gt=0, description="a trial without progress for so long is stopped and tried again"
    )
    pending_minutes: float = Field(
        30, gt=0, description="with trials waiting and none running for so long, the search stops"
    )


class SearchConfig(StrictModel):
    """One search.

    `name` is the experiment's folder under `storage`; `seed` decides every sample and every
    trial's training seed.
    """

    name: str = Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    seed: int = Field(0, ge=0, lt=2**32)
    storage: Path = Path("experiments")
    algorithm: AlgorithmConfig = AlgorithmConfig()
    final: FinalConfig = FinalConfig()
    resources: ResourcesConfig = ResourcesConfig()
