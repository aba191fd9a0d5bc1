"""Where a search starts, and how far around it looks at first."""

from typing import Any

from pydantic import Field, field_validator, model_validator

from loss.by_head import sections
from paploss.strict import StrictModel


class WarmStart(StrictModel):
    """A criterion with parameters, and the spread of the first samples about it.

    A criterion's settings alone are taken as well, as older experiments have them, with `spread`
    among them.
    """

    criterion: dict[str, Any] = Field(description="flat, or one a head; `preset` is a name to show")
    spread: float | tuple[float, ...] | None = Field(
        None,
        description="standard deviation of every coordinate of theta, or one for each; None: the "
        "algorithm's own",
    )
    source: str | None = Field(None, description="what tables call it")
    details: str | None = Field(None, description="how it was found, in one line")

    @model_validator(mode="before")
    @classmethod
    def _of_a_criterion_alone(cls, given: Any) -> Any:
        if not isinstance(given, dict) or "criterion" in given:
            return given
        spread = {"spread": given["spread"]} if "spread" in given else {}
        return {"criterion": {k: v for k, v in given.items() if k != "spread"}, **spread}

    @field_validator("spread", mode="before")
    @classmethod
    def _can_be_drawn_with(cls, spread: Any) -> float | tuple[float, ...] | None:
        if spread is None:
            return None
        values = spread if isinstance(spread, list | tuple) else [spread]
        try:
            numbers = tuple(float(value) for value in values)
        except (TypeError, ValueError):
            numbers = ()
        if not numbers or not all(0 < number <= 1 for number in numbers):
            raise ValueError("expected a number above 0 and at most 1, such as 0.1")
        return numbers if isinstance(spread, list | tuple) else numbers[0]

    @property
    def label(self) -> str:
        """What tables call it: where it comes from, or the presets that it is."""
        if self.source is not None:
            return self.source
        presets = [section.get("preset") for section in sections(self.criterion)]
        return " and ".join(dict.fromkeys(str(name or "given") for name in presets))
