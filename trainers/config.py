"""What a trial trains: detector, data, criterion and schedule, as a user writes them."""

from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from loss import build_criterion
from loss.by_head import family_of, is_by_head, sections, start_label_of
from paploss.strict import StrictModel
from trainers.datasets.coco import DataConfig
from trainers.fidelity import Fidelity
from trainers.reward import Reward, check_reward
from trainers.schedule import ScheduleConfig
from trainers.warm_start import WarmStart


class DetectorConfig(StrictModel):
    """A detector as data: mmdet's `model` settings, with a name to show.

    The number of classes is filled in from the data set. The model's own losses are replaced by
    the criterion; they must not be trusted to be read.
    """

    name: str
    model: dict[str, Any]


_INSIDE = 1e-3


class TaskConfig(StrictModel):
    """What is trained in every trial of a search; only theta differs."""

    detector: DetectorConfig
    data: DataConfig
    criterion: dict[str, Any] = Field(description="the family of losses that is searched")
    baseline: dict[str, Any] = Field(default={"type": "focal_giou", "giou_weight": 2.0})
    schedule: ScheduleConfig = ScheduleConfig()
    training: ScheduleConfig | None = Field(None, description="the full schedule of best.yaml")
    reward: Reward = Field("AP", description="a metric, or {metric: weight}: their weighted mean")
    fidelity: Fidelity | None = Field(None, description="of the trials of a rung")

    warm_start: WarmStart | None = Field(None, description="where the search starts")

    @field_validator("criterion")
    @classmethod
    def _is_searchable(cls, settings: dict[str, Any]) -> dict[str, Any]:
        sections(settings)
        family_of(settings)
        return settings

    @field_validator("baseline")
    @classmethod
    def _can_be_built(cls, settings: dict[str, Any]) -> dict[str, Any]:
        for section in sections(settings):
            build_criterion(section)
        return settings

    @field_validator("reward")
    @classmethod
    def _is_a_reward(cls, reward: Reward) -> Reward:
        return check_reward(reward)

    @field_validator("fidelity")
    @classmethod
    def _has_its_classes(cls, fidelity: Fidelity | None, known: ValidationInfo) -> Fidelity | None:
        if fidelity is not None and "data" in known.data:
            fidelity.check(known.data["data"])
        return fidelity

    @field_validator("warm_start")
    @classmethod
    def _is_of_the_family(cls, start: WarmStart | None, known: ValidationInfo) -> WarmStart | None:
        if start is None or "criterion" not in known.data:  # which is wrong, and said so
            return start
        sections(start.criterion)
        if is_by_head(start.criterion) and not is_by_head(known.data["criterion"]):
            raise ValueError("a start for each head, but `criterion` is one for all of them.")
        family = family_of(known.data["criterion"])
        try:
            family.theta(start.criterion)
        except TypeError as error:
            raise ValueError(f"these are no control points and gradient scale: {error}") from error
        if isinstance(start.spread, tuple) and len(start.spread) != len(family.names):
            raise ValueError(
                f"{len(start.spread)} spreads for {len(family.names)} coordinates; expected one "
                "for each, or one number for all"
            )
        return start

    @property
    def start(self) -> tuple[float, ...]:
        """The theta that the search starts from, inside the unit cube."""
        family = family_of(self.criterion)
        if self.warm_start is None:
            return family.start
        # A policy over the unit cube cannot stand on its faces, where published curves may be.
        theta = family.theta(self.warm_start.criterion)
        return tuple(min(max(x, _INSIDE), 1 - _INSIDE) for x in theta)

    @property
    def spread(self) -> tuple[float, ...] | None:
        """Standard deviation of the first samples by coordinate; None: the algorithm's own."""
        spread = None if self.warm_start is None else self.warm_start.spread
        return (spread,) * len(self.start) if isinstance(spread, float) else spread

    @property
    def start_label(self) -> str:
        """What tables call the start."""
        if self.warm_start is not None:
            return f"start: {self.warm_start.label}"
        return f"start: {start_label_of(family_of(self.criterion))}"
