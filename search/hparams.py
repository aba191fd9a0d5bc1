"""TensorBoard's HParams page: what may be chosen, once; and what each trial chose and reached.

An HParam is what a trial trained with: the coordinates of its control points and its gradient
scale, under the names of theta's coordinates; beside them phase, round, slot and status, to filter
by. Where a search has no curves it is theta itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tensorboardX.proto.api_pb2 import (  # type: ignore[import-untyped, unused-ignore]
    DATA_TYPE_FLOAT64,
    DATA_TYPE_STRING,
    STATUS_FAILURE,
    STATUS_SUCCESS,
    Experiment,
)
from tensorboardX.proto.plugin_hparams_pb2 import (  # type: ignore[import-untyped, unused-ignore]
    HParamsPluginData,
    SessionEndInfo,
    SessionStartInfo,
)
from tensorboardX.proto.summary_pb2 import (  # type: ignore[import-untyped, unused-ignore]
    Summary,
    SummaryMetadata,
)

from search.journal import PHASES

_SAMPLED = ("rung", "search")
"""Phases whose trials have a round and a slot."""
METRICS = {
    "trial/reward": "reward",
    "trial/seconds": "seconds",
    **{f"val/{name}": f"{name} on val" for name in ("AP", "AP50", "AP75", "oLRP")},
    **{f"test/{name}": f"{name} on test" for name in ("AP", "oLRP")},
}
"""Scalars of a trial that the page has a column for, and their titles."""
_WORDS = {
    "phase": PHASES,
    "status": ("ok", "diverged", "stopped", "failed"),
}


def experiment_summary(names: Sequence[str]) -> Any:
    """The page's columns; they are looked for in one place, not in every trial.

    Args:
        names: of theta's coordinates.
    """
    experiment = Experiment()
    for name, words in _WORDS.items():
        info = experiment.hparam_infos.add(name=name, type=DATA_TYPE_STRING)
        info.domain_discrete.extend(words)
    for name in ("round", "slot", *names):
        experiment.hparam_infos.add(name=name, type=DATA_TYPE_FLOAT64)
    for tag, title in METRICS.items():
        experiment.metric_infos.add(name={"tag": tag}, display_name=title)
    return _summary("experiment", HParamsPluginData(experiment=experiment))


def trial_summaries(record: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    """Begin and end of a trial; repeats of one loss are a group, whose metrics are averaged.

    Args:
        record: of the journal.
        names: of theta's coordinates.
    """
    begin = SessionStartInfo(start_time_secs=record["started"] or 0.0)
    if record["phase"] not in _SAMPLED:
        begin.group_name = f"{record['phase']} {record['round']}: {record['label']}"
    for name, value in hparams_of(record, names).items():
        if isinstance(value, str):
            begin.hparams[name].string_value = value
        else:
            begin.hparams[name].number_value = value
    end = SessionEndInfo(
        status=STATUS_FAILURE if record["status"] == "failed" else STATUS_SUCCESS,
        end_time_secs=record["finished"] or 0.0,
    )
    return [
        _summary("session_start_info", HParamsPluginData(session_start_info=begin)),
        _summary("session_end_info", HParamsPluginData(session_end_info=end)),
    ]


def hparams_of(record: Mapping[str, Any], names: Sequence[str]) -> dict[str, str | float]:
    """What a trial trained with, as plain numbers and words."""
    found: dict[str, str | float] = {name: record[name] for name in ("phase", "status")}
    if record["phase"] in _SAMPLED:
        found |= {"round": record["round"], "slot": record["slot"]}
    curves, scale = record["control_points"] or {}, record["gradient_scale"]
    for curve, points in curves.items():
        for k, point in enumerate(points[1:-1], 1):  # the two ends never move
            found |= {f"{curve}.{axis}{k}": x for axis, x in zip("xy", point, strict=True)}
    if isinstance(scale, Mapping):
        found |= {f"{head}.gradient_scale": value for head, value in scale.items()}
    elif scale is not None:
        found["gradient_scale"] = scale
    formulas = record.get("formulas") or {}
    found |= formulas
    theta = record["theta"] or ()
    if not curves and not formulas and len(theta) == len(names):
        found |= dict(zip(names, theta, strict=True))
    return found


def _summary(kind: str, content: Any) -> Any:
    plugin = SummaryMetadata.PluginData(plugin_name="hparams", content=content.SerializeToString())
    metadata = SummaryMetadata(plugin_data=plugin)
    return Summary(value=[Summary.Value(tag=f"_hparams_/{kind}", metadata=metadata)])
