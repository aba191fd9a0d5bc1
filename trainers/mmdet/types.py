"""What a detector's settings may ask mmengine to build, so that settings stay data.

mmengine imports what it does not know: `type: os.system` would call it with the section's other
keys, `type: a.B` and `_scope_: a` import a module. mmcv evaluates `type` in a section `nms` as
Python. So every `type` has to be a name that mmdet, mmcv or mmengine have registered themselves.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import mmcv.ops
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.utils import register_all_modules
from mmengine.registry import WEIGHT_INITIALIZERS
from torch import nn

from paploss.errors import BadConfig
from paploss.strict import nearest

_SCOPES = ("mmdet", "mmengine")
_OF_SECTIONS = {
    "nms": ("nms", "soft_nms"),
    "roi_layer": tuple(
        name for name, layer in vars(mmcv.ops).items()
        if isinstance(layer, type) and issubclass(layer, nn.Module)
    ),
    **dict.fromkeys(
        [f"{way}_trans" for way in (
            "same_down", "same_up", "across_lateral", "across_down", "across_up", "across_skip",
            "output",
        )],
        ("conv", "interpolation_conv", "last_conv"),
    ),
}  # fmt: skip
"""What a `type` may be in sections that no registry is asked about (the last ones are of FPG)."""
_REFUSED = {
    "mmdet.models.task_modules.tracking": "evaluates its settings as Python",
    "mmdet.models.detectors.kd_one_stage": "runs the config file that it names",
    "mmdet.models.detectors.d2_wrapper": "builds what another framework imports",
    "mmdet.models.detectors.glip": "downloads language data",
    "mmdet.models.language_models": "downloads models",
}
"""Modules whose classes are registered and do more than build layers of what they are given."""


def check_types(model: Mapping[str, Any], where: str) -> None:
    """See that a detector's settings build nothing but registered parts of detectors.

    Raises:
        BadConfig: a `type` or `_scope_` that could import, fetch or evaluate something; a name
            that nothing is registered under, with the nearest one.
    """
    register_all_modules()
    known = _registered()
    for path, key, value in _named(model, ()):
        place = f"{where}: {'.'.join(path)}"
        section = path[-2] if len(path) > 1 else ""
        if key == "_scope_":
            if value not in _SCOPES:
                raise BadConfig(f"{place} is {value!r}; expected one of {', '.join(_SCOPES)}.")
        elif section in _OF_SECTIONS:
            if value not in _OF_SECTIONS[section]:
                names = ", ".join(_OF_SECTIONS[section])
                raise BadConfig(f"{place} is {value!r}; expected one of {names}.")
        elif value is not None:
            _check(place, value, known)


def _check(place: str, value: Any, known: Mapping[str, Any]) -> None:
    if not isinstance(value, str):
        raise BadConfig(f"{place} is {value!r}; expected the name of a registered class.")
    scope, _, name = value.rpartition(".")
    if scope and scope not in _SCOPES:
        raise BadConfig(
            f"{place} is {value!r}, which mmengine would import and call: settings must not run "
            f"code. Expected the bare name of a class that mmdet has registered, such as {name!r}."
        )
    if name not in known:
        raise BadConfig(
            f"{place} is {value!r}, and neither mmdet nor mmengine has registered that; "
            f"{_nearest(name, known)}"
        )
    module = known[name].__module__
    for prefix, what in _REFUSED.items():
        if module.startswith(prefix):
            raise BadConfig(f"{place} is {value!r}, which {what}: it is not accepted in settings.")


def _nearest(name: str, known: Mapping[str, Any]) -> str:
    """The nearest name; the list of all has hundreds."""
    found = nearest(name, list(known))
    return found if found.startswith("did you mean") else "look names up in mmdet's documentation."


def _registered() -> dict[str, Any]:
    """{name: class} of all that a detector can be built from."""
    found: dict[str, Any] = {}
    for registry in (MODELS, TASK_UTILS, WEIGHT_INITIALIZERS):
        while registry is not None:
            found = {**registry.module_dict, **found}
            registry = registry.parent
    return found


def _named(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """(path, key, value) of every `type` and `_scope_` in nested settings."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            here = (*path, str(key))
            if key in ("type", "_scope_"):
                yield here, key, inner
            else:
                yield from _named(inner, here)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _named(inner, (*path, str(index)))
