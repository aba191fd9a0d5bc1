"""Detectors with several heads: a criterion for each, and a theta that holds all of theirs.

Settings are either flat, `{"type": ...}`: every head has a criterion of these settings; or by head,
`{"rpn": {"type": ...}, "rcnn": {"type": ...}}`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from loss.criterion import Family, Parameterization, criterion_type

_EXPECTED = "expected a criterion with its `type`, such as {type: parameterized_ap}"


def is_by_head(settings: Mapping[str, Any]) -> bool:
    """Whether `settings` have a section for each head; flat ones have a type."""
    return "type" not in settings


def sections(settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The settings of every criterion in `settings`: one, or one a head.

    Raises:
        ValueError: a section that is no criterion.
    """
    if not is_by_head(settings):
        if not isinstance(settings["type"], str):
            raise ValueError(f"type is {settings['type']!r}; {_EXPECTED}.")
        return [settings]
    if not settings:
        raise ValueError(f"got nothing; {_EXPECTED}.")
    for head, section in settings.items():
        if not isinstance(section, Mapping) or not isinstance(section.get("type"), str):
            raise ValueError(
                f"{head!r} is {section!r}; {_EXPECTED}, or one for each head, such as "
                "{rpn: {type: ...}, rcnn: {type: ...}}."
            )
    return list(settings.values())


def by_head(settings: Mapping[str, Any], heads: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The settings of each of a detector's `heads`.

    Raises:
        ValueError: settings by head for other heads than these.
    """
    sections(settings)
    names = sorted(heads)
    if not is_by_head(settings):
        return {head: dict(settings) for head in names}
    if sorted(settings) != names:
        raise ValueError(
            f"there is a criterion for {', '.join(sorted(settings))}, but the detector's heads are "
            f"{', '.join(names)}. Give one for each of these, or one with a `type` for all."
        )
    return {head: dict(settings[head]) for head in names}


def of_head(settings: Mapping[str, Any], head: str) -> dict[str, Any]:
    """The settings of one head's criterion."""
    return dict(settings[head] if is_by_head(settings) else settings)


@dataclass(frozen=True)
class FamilyByHead:
    """The criteria of several heads, searched together (a `Family`).

    Theta has the coordinates of each searched head in the order of the sections, its gradient scale
    excepted; then come the gradient scales. A head's own part of theta is that of its own family.

    Args:
        settings: by head; a section is searched if its criterion can be and it has no parameters
            yet, otherwise it is the fixed criterion of that head.

    Raises:
        ValueError: nothing to search, an unknown criterion or option.
    """

    settings_by_head: Mapping[str, Mapping[str, Any]]

    def __post_init__(self) -> None:
        sections(self.settings_by_head)
        if not self._families:
            raise ValueError(
                f"none of the heads {', '.join(self.settings_by_head)} has a criterion to search; "
                "give at least one without parameters, such as {type: parameterized_ap}."
            )

    @cached_property
    def _families(self) -> dict[str, Parameterization]:
        return {
            head: _family_of_one(section)
            for head, section in self.settings_by_head.items()
            if is_searched(section)
        }

    @cached_property
    def _order(self) -> list[tuple[str, int, str]]:
        """(head, index in the head's own theta, name) of each coordinate."""
        own = [
            (head, index, name)
            for head, family in self._families.items()
            for index, name in enumerate(family.names)
        ]
        return sorted(own, key=lambda coordinate: coordinate[2] == "gradient_scale")

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(f"{head}.{name}" for head, _, name in self._order)

    @cached_property
    def start(self) -> tuple[float, ...]:
        return tuple(self._families[head].start[index] for head, index, _ in self._order)

    @property
    def start_label(self) -> str:
        """Of the starts of all searched heads, each once."""
        return " and ".join(dict.fromkeys(map(start_label_of, self._families.values())))

    def part(
        self, head: str, theta: Sequence[float]
    ) -> tuple[Parameterization, tuple[float, ...]] | None:
        """`head`'s own family and theta; None for a head whose criterion is fixed."""
        if head not in self._families:
            return None
        if len(theta) != len(self.names):
            raise ValueError(f"theta has {len(theta)} coordinates; expected {len(self.names)}.")
        own = {
            index: value
            for (of, index, _), value in zip(self._order, theta, strict=True)
            if of == head
        }
        return self._families[head], tuple(own[index] for index in sorted(own))

    def features(self, thetas: Tensor) -> list[Tensor]:
        """`features_of` each searched head, of its own part of `thetas` [N, D]."""
        own: dict[str, list[tuple[int, int]]] = {}
        for column, (head, index, _) in enumerate(self._order):
            own.setdefault(head, []).append((index, column))
        return [
            features_of(family, thetas[:, [column for _, column in sorted(own[head])]])
            for head, family in self._families.items()
        ]

    def settings(self, theta: Sequence[float]) -> dict[str, Any]:
        """Settings by head, those of the fixed heads as they were given."""
        found = {}
        for head, section in self.settings_by_head.items():
            own = self.part(head, theta)
            found[head] = dict(section) if own is None else own[0].settings(own[1])
        return found

    def theta(self, settings: Mapping[str, Any]) -> tuple[float, ...]:
        """The theta that stands for criteria with parameters; see `Family.theta`.

        Heads with a fixed criterion may be left out.
        """
        fixed = self.settings_by_head.keys() - self._families.keys()
        if is_by_head(settings):
            settings = {head: each for head, each in settings.items() if head not in fixed}
        given = by_head(settings, self._families)
        own = {head: family.theta(given[head]) for head, family in self._families.items()}
        return tuple(own[head][index] for head, index, _ in self._order)


def features_of(family: Family, thetas: Tensor) -> Tensor:
    """What a model of rewards should see of `thetas` [N, D] in place of their coordinates: [N, F].

    A family that knows better than theta itself has a method `features`; of several heads, each
    searched one gives its own.
    """
    if isinstance(family, FamilyByHead):
        return torch.cat(family.features(thetas), dim=1)
    own: Callable[[Tensor], Tensor] | None = getattr(family, "features", None)
    return thetas if own is None else own(thetas)


def start_label_of(family: Family) -> str:
    """What the start of a family is called: its own `start_label`, or else the identity."""
    if isinstance(family, FamilyByHead):
        return family.start_label
    return str(getattr(family, "start_label", "identity"))


def is_searched(settings: Mapping[str, Any]) -> bool:
    """Whether a flat criterion has something to search."""
    return criterion_type(settings.get("type")).searchable(settings)


def family_of(settings: Mapping[str, Any]) -> Family:
    """The family of losses that the `criterion` section of a search describes.

    Raises:
        ValueError: an unknown criterion or option, or nothing to search.
    """
    return FamilyByHead(settings) if is_by_head(settings) else _family_of_one(settings)


def part_of(
    family: Family, head: str, theta: Sequence[float]
) -> tuple[Parameterization, tuple[float, ...]] | None:
    """What `family` and `theta` are for one head: see `FamilyByHead.part`."""
    if isinstance(family, FamilyByHead):
        return family.part(head, theta)
    return cast(Parameterization, family), tuple(theta)


def _family_of_one(settings: Mapping[str, Any]) -> Parameterization:
    options = dict(settings)
    kind = criterion_type(options.pop("type"))
    try:
        return kind.parameterization(**options)
    except TypeError as error:
        raise ValueError(f"criterion {settings['type']}: {error}") from error
