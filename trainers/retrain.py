"""`paploss train`: from a training YAML to a trained detector."""

import contextlib
import sys
from pathlib import Path
from typing import Any

from paploss.files import write_json
from trainers.export import TrainingConfig
from trainers.trial import TrialSpec


def retrain(
    config: TrainingConfig, out: Path, *, resume: bool = False, device: str | None = None
) -> dict[str, Any]:
    """Train in full, score on both held-out splits, and keep it all in `out`.

    `out` gets mmengine's log (train.log), its checkpoints, and results.json: {"val": ...,
    "test": ..., "fingerprint": ...} with COCO's and oLRP's metrics in [0, 1].

    Args:
        resume: go on from the last checkpoint in `out`, if there is one.
        device: "cpu" or "cuda"; None takes a GPU if torch sees one.

    Raises:
        BadConfig: mmengine cannot build the detector.
        Diverged: the loss has collapsed.
    """
    import torch

    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    spec = TrialSpec(
        detector=config.detector,
        data=config.data,
        criterion=config.criterion,
        schedule=config.schedule,
        seed=config.seed,
        evaluate=("val", "test"),
        device="cuda" if chosen == "cuda" else "cpu",
        threads=torch.get_num_threads(),
    )
    out.mkdir(parents=True, exist_ok=True)
    terminal = sys.stdout

    def say(line: str) -> None:
        print(line, file=terminal, flush=True)

    # mmengine says a great deal; it is kept in a file, and the terminal gets a line an epoch.
    with (
        (out / "train.log").open("a", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        from trainers.mmdet.training import train_in_full

        results = train_in_full(spec, out, resume=resume, say=say)
    write_json(out / "results.json", results)
    return results
