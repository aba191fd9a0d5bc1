"""Samples that were drawn and not tried: read back, counted, and said in one line.

EXPERIMENT/samples/round-003.json has what was drawn for a round and what was rejected on the way
(see `search.samples`). As everything that is only read, it may be cut or missing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, BaseModel, Field

from search.screen import Rejection

if TYPE_CHECKING:
    from search.history import History


def _one_line(text: str) -> str:
    return " ".join(text.encode("utf-8", "replace").decode().split())


Line = Annotated[str, AfterValidator(_one_line)]
Unit = Annotated[float, Field(ge=0, le=1)]


class RejectedSample(BaseModel):
    """See `search.screen.Rejection`."""

    slot: int = Field(ge=0, lt=10**6)
    attempt: int = Field(ge=0, lt=10**6)
    theta: list[Unit]
    stage: Line
    reason: Line
    waived: bool = False


class RoundOfSamples(BaseModel):
    """What was drawn for one round.

    Attributes:
        thetas: those that are tried, by slot.
        rejected: by slot and attempt; one that is `waived` is among `thetas` all the same.
    """

    round: int = Field(ge=0, lt=10**6)
    thetas: list[list[Unit]]
    rejected: list[RejectedSample]

    @property
    def drawn(self) -> int:
        """All samples of the round, rejected ones too."""
        return len(self.thetas) + sum(not one.waived for one in self.rejected)


@dataclass(frozen=True)
class Rejections:
    """What a search's screen has done.

    Attributes:
        drawn: samples in all.
        rejected: of them; `waived` of these were tried all the same, as the last of many attempts.
        stages: how many each stage has rejected, the most first.
        saved_seconds: what the samples that were not tried would have taken, at the mean of those
            that were; None while none has.
    """

    drawn: int
    rejected: int
    waived: int
    stages: Mapping[str, int]
    saved_seconds: float | None = None

    @staticmethod
    def of(
        rejected: Sequence["Rejection | RejectedSample"], tried: int, seconds: float | None = None
    ) -> "Rejections":
        """Count them.

        Args:
            tried: how many samples passed, or were tried all the same.
            seconds: what one of them took, in the mean.
        """
        waived = sum(one.waived for one in rejected)
        spared = len(rejected) - waived
        return Rejections(
            drawn=tried + spared,
            rejected=len(rejected),
            waived=waived,
            stages=dict(Counter(one.stage for one in rejected).most_common()),
            saved_seconds=None if seconds is None else spared * seconds,
        )

    def line(self) -> str:
        """In words, without the time."""
        if not self.rejected:
            return f"none of {self.drawn} samples rejected before a trial"
        stages = ", ".join(f"{stage} {count}" for stage, count in self.stages.items())
        waived = f"; {self.waived} tried all the same" if self.waived else ""
        return f"{self.rejected} of {self.drawn} samples rejected before a trial ({stages}){waived}"


def read_samples(folder: Path, damaged: list[str]) -> list[RoundOfSamples]:
    """The rounds in a folder of samples, in their order.

    Args:
        damaged: takes a line for each file that cannot be used.
    """
    rounds = []
    for path in sorted(folder.glob("round-*.json")):
        try:
            rounds.append(RoundOfSamples.model_validate_json(path.read_bytes()))
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            damaged.append(f"{path}: not the samples of a round ({reason})")
    return sorted(rounds, key=lambda one: one.round)


def rejections(history: "History") -> Rejections | None:
    """Of a whole search; None where it has no screen."""
    screened = history.config.get("preflight")
    enabled = isinstance(screened, Mapping) and screened.get("enabled")
    found = [one for samples in history.samples for one in samples.rejected]
    if not history.samples or not (enabled or found):
        return None
    tried = sum(len(samples.thetas) for samples in history.samples)
    return Rejections.of(found, tried, mean_seconds(history.records))


def mean_seconds(records: Iterable[Mapping[str, Any]]) -> float | None:
    """Of what a sample is tried by first: a trial of the rung where there are rungs."""
    records = list(records)
    for phase in ("rung", "search"):
        seconds = [float(record["seconds"]) for record in records if record["phase"] == phase]
        if seconds:
            return sum(seconds) / len(seconds)
    return None


def rejected_rows(rounds: Sequence[RoundOfSamples]) -> list[dict[str, Any]]:
    """One mapping a rejected sample: its round and its fields."""
    return [{"round": own.round, **one.model_dump()} for own in rounds for one in own.rejected]
