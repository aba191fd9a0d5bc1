"""A trial of a search in plain data: from what Tune asks for to a `TrialSpec`, and to a record."""

from collections.abc import Mapping
from typing import Any

from loss.by_head import is_by_head, part_of
from loss.formula_text import formulas_of
from trainers.trial import TrialSpec


def trial_spec(search: dict[str, Any], config: dict[str, Any], workers: int = 1) -> TrialSpec:
    """The trial that Tune's `config` asks for, of the `search` in an experiment's config.yaml.

    Args:
        workers: that train it together.
    """
    theta = tuple(config["theta"].values()) or None
    return TrialSpec(
        detector=search["detector"],
        data=search["data"],
        schedule=search["schedule"],
        criterion=search["baseline"] if theta is None else search["criterion"],
        theta=theta,
        seed=config["seed"],
        # Rewards must never come from the test split, so no search trial sees it.
        evaluate=("val",) if config["phase"] in ("search", "rung") else ("val", "test"),
        reward=search.get("reward", "AP"),
        # Of each candidate once: the winner's are scored again by the reference implementation.
        keep_detections=config["phase"] == "final" and config["repeat"] == 0,
        # The key `early_stop` is in the config of a trial that is to be looked at part of the way.
        fidelity=search["fidelity"] if config["phase"] == "rung" else None,
        early_stop=config.get("early_stop"),
        device="cuda" if search["resources"]["gpus_per_trial"] else "cpu",
        threads=max(1, int(search["resources"]["cpus_per_trial"] / workers)),
    )


def parameters(spec: TrialSpec) -> dict[str, Any]:
    """`control_points` and `gradient_scale` of what a trial trains with, for its record.

    Curves are by name, {"H2": points, ...}, and the scale is a number. Of several heads, only
    those that are searched are told: {"rpn.H2": points, ...} and {"rpn": scale, ...}. None where
    the criterion has no such thing.

    Formulas are in `formulas`, as people write them, {"classification": "softplus(x) - x * y",
    ...} or {"rcnn.classification": ...}; there is no such key where there is no formula.
    """
    settings = spec.criterion_settings
    if not is_by_head(settings):
        scale = settings.get("gradient_scale")
        found = {"control_points": _curves(settings) or None, "gradient_scale": scale}
        return found | _told({"": settings})
    if spec.family is not None and spec.theta is not None:
        family, theta = spec.family, spec.theta
        settings = {h: s for h, s in settings.items() if part_of(family, h, theta) is not None}
    curves = {
        f"{head}.{name}": points
        for head, section in settings.items()
        for name, points in _curves(section).items()
    }
    scales = {h: s["gradient_scale"] for h, s in settings.items() if "gradient_scale" in s}
    return {"control_points": curves or None, "gradient_scale": scales or None} | _told(settings)


def _told(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """`formulas` of `settings` by head, "" being every head's."""
    found = {
        f"{head}.{name}".lstrip("."): formula
        for head, section in settings.items()
        for name, formula in formulas_of(section).items()
    }
    return {"formulas": found} if found else {}


def _curves(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Control points by curve; none where they are a form's name, such as "linear"."""
    points = settings.get("control_points")
    return points if isinstance(points, Mapping) else {}
