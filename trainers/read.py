"""Configuration files that name other files: a base to build on, a detector, a data set, a preset.

Everything a file names is read when the file is, so that what is trained, kept and exported says
everything itself.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loss.by_head import is_by_head
from paploss.configs import find
from paploss.errors import BadConfig
from paploss.files import read_yaml
from paploss.strict import merged, nearest, override, parse
from trainers.config import DetectorConfig
from trainers.datasets.coco import load_data
from trainers.mmdet.python_config import INSTALLED, read_mmdet_config

_CRITERIA = ("criterion", "baseline")
_WHOLE = {*_CRITERIA, "warm_start", "detector", "data"}
"""Keys that replace a base's value: half of one criterion with half of another means nothing."""
_BUDGET = ("rounds", "samples", "overlap", "attempts")
"""What a search algorithm takes over from the one that it replaces by its name alone."""


def read_complete(
    kind: str, name: str, overrides: Mapping[str, Any], *, trust_code: bool = False
) -> tuple[dict[str, Any], Path]:
    """A YAML of `kind` with everything read that it names, `overrides` on top, and where it is.

    It is laid over its `base`, another such file. What a file names is looked up from its folder;
    what an override or the file above replaces is not read.

    Args:
        overrides: {"schedule.epochs": 3}; one of a part of a file that is named changes that part.
        trust_code: see `load_detector`.

    Raises:
        BadConfig: a missing file, one that is not YAML, a file that is its own base; see
            `with_files`.
    """
    path = find(kind, name)
    parts = {key: value for key, value in overrides.items() if "." in key}
    replaced = {key: value for key, value in overrides.items() if "." not in key}
    named = {key: replaced.pop(key) for key in ("algorithm",) if isinstance(replaced.get(key), str)}
    values = _over_base(kind, path, frozenset(replaced), (), trust_code) | replaced
    values = _laid_over(values, named)
    try:
        complete = with_files(values, path.parent, trust_code=trust_code)
        changed = override(complete, parts, str(path))
        return with_files(changed, path.parent, trust_code=trust_code), path
    except BadConfig as error:
        raise error if str(path) in str(error) else BadConfig(f"{path}: {error}") from error


def with_files(
    values: Mapping[str, Any], folder: Path | None, *, trust_code: bool = False
) -> dict[str, Any]:
    """`values` with what they name read: detector, data, and criteria in configs/presets.

    Args:
        folder: where relative paths are looked up, after the names of shipped files.
        trust_code: see `load_detector`.

    An experiment to start from (`warm_start: {experiment: ...}`) is not read here.

    Raises:
        BadConfig: a missing file, an unknown key or a bad value in it.
    """
    found = dict(values)
    if isinstance(found.get("detector"), str):
        detector = load_detector(found["detector"], folder, trust_code=trust_code)
        found["detector"] = detector.model_dump(mode="json")
    if isinstance(found.get("data"), str):
        data = load_data(find("datasets", found["data"], folder))
        found["data"] = data.model_dump(mode="json")
    for key in _CRITERIA:
        if key in found:
            found[key] = _criterion(found[key], folder)
    if "warm_start" in found:
        found["warm_start"] = _warm_start(found["warm_start"], folder)
    return found


def load_detector(
    name: str, folder: Path | None = None, *, trust_code: bool = False
) -> DetectorConfig:
    """A detector by name or path: a YAML, or an mmdet config in Python.

    A YAML may have a `base`: another detector, or "mmdet::" and the path of a config that mmdet
    brings; its own `model` is laid over the base's.

    Args:
        trust_code: run a config in Python that is more than data (see
            `trainers.mmdet.python_config`).

    Raises:
        BadConfig: not a detector, Python that fails or is not trusted, a file that is its own base.
    """
    return _detector(name, folder, (), trust_code)


def _detector(
    name: str, folder: Path | None, above: tuple[Path, ...], trust_code: bool
) -> DetectorConfig:
    if name.startswith(INSTALLED):
        return DetectorConfig(name=Path(name).stem, model=read_mmdet_config(name))
    path = find("detectors", name, folder)
    if path.suffix == ".py":
        model = read_mmdet_config(str(path), trust_code=trust_code)
        return DetectorConfig(name=path.stem, model=model)
    values, base = _read_with_base(path, above)
    if base is not None:
        model = _detector(base, path.parent, (*above, path), trust_code).model
        own = values.get("model", {})
        if not isinstance(own, Mapping):
            raise BadConfig(f"{path}: model is {own!r}; expected settings to lay over the base's.")
        values["model"] = merged(model, own)
    return parse(DetectorConfig, values, str(path))


def _over_base(
    kind: str, path: Path, replaced: frozenset[str], above: tuple[Path, ...], trust_code: bool
) -> dict[str, Any]:
    """The YAML at `path` over its base, without the keys that are `replaced` above it."""
    values, base = _read_with_base(path, above)
    values = {key: value for key, value in values.items() if key not in replaced}
    if base is None:
        return values
    below = find(kind, base, path.parent)
    replaced |= _WHOLE & values.keys()
    inherited = _over_base(kind, below, replaced, (*above, path), trust_code)
    return _laid_over(with_files(inherited, below.parent, trust_code=trust_code), values)


def _laid_over(below: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid over `below`; an algorithm that is only named keeps the budget of the other.

    The other's own settings, such as its spread, say nothing about it.
    """
    old, name = below.get("algorithm"), over.get("algorithm")
    if not isinstance(name, str) or not isinstance(old, Mapping):
        return merged(below, over)
    kept = old if old.get("type") == name else {key: old[key] for key in _BUDGET if key in old}
    return {**merged(below, over), "algorithm": {**kept, "type": name}}


def _read_with_base(path: Path, above: tuple[Path, ...]) -> tuple[dict[str, Any], str | None]:
    """What the YAML at `path` says, and its base; `above` are the files whose base it is."""
    # By another way, such as "../here/a.yaml", it is the same file.
    if path.resolve() in [file.resolve() for file in above]:
        raise BadConfig(f"{path} is its own base, by way of {', '.join(map(str, above))}.")
    values = read_yaml(path)
    base = values.pop("base", None)
    if not isinstance(base, str | None):
        raise BadConfig(f"{path}: base is {base!r}; expected the name or path of a file.")
    return values, base


def _warm_start(value: Any, folder: Path | None) -> Any:
    """A start with the presets in it read: a name, one a head, or {preset: NAME, spread: 0.1}."""
    if isinstance(value, Mapping) and "experiment" in value:
        return value
    if isinstance(value, Mapping) and "criterion" in value:
        return {**value, "criterion": _criterion(value["criterion"], folder, keep_name=True)}
    if isinstance(value, Mapping) and value.keys() <= {"spread", "trial"}:
        raise BadConfig(
            f"warm_start: got {dict(value)!r}; expected what to start from as well: `preset: NAME` "
            "or `experiment: FOLDER`."
        )
    if not isinstance(value, Mapping) or "type" in value or "preset" not in value:
        return _criterion(value, folder, keep_name=True)
    for key in value.keys() - {"preset", "spread"}:
        raise BadConfig(f"warm_start.{key}: unknown key; {nearest(str(key), ['preset', 'spread'])}")
    criterion = _criterion(value["preset"], folder, keep_name=True)
    return {"criterion": criterion, "spread": value.get("spread")}


def _criterion(value: Any, folder: Path | None, *, keep_name: bool = False) -> Any:
    """A criterion in place of its preset's name, and so for each head.

    Args:
        keep_name: as `preset` in the criterion's settings.
    """
    if isinstance(value, str):
        settings = read_yaml(find("presets", value, folder))
        return _with_name(settings, Path(value).stem) if keep_name else settings
    if isinstance(value, Mapping) and is_by_head(value):
        parts = value.items()
        return {head: _criterion(part, folder, keep_name=keep_name) for head, part in parts}
    return value


def _with_name(criterion: Any, name: str) -> Any:
    """`criterion` with its preset's name in it, or in the section of each head."""
    if isinstance(criterion, Mapping) and is_by_head(criterion):
        return {head: _with_name(section, name) for head, section in criterion.items()}
    return {**criterion, "preset": name} if isinstance(criterion, Mapping) else criterion
