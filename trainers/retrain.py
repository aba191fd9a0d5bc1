"""`paploss train`: from a training YAML to a trained detector."""

from pathlib import Path
from typing import Any

from paploss.files import write_json
from trainers.export import TrainingConfig
from trainers.trial import TrialSpec


def retrain(
    config: TrainingConfig, out: Path, *, resume: bool = False, device: str | None = None
) -> dict[str, Any]:
    """Train in full, score on both held-out splits, and keep it all in `out`.

    `out` gets mmengine's log and checkpoints, and results.json: {"val": ..., "test": ...,
    "fingerprint": ...} with COCO's metrics in [0, 1].

    Args:
        resume: go on from the last checkpoint in `out`, if there is one.
        device: "cpu" or "cuda"; None takes a GPU if torch sees one.

    Raises:
        BadConfig: mmengine cannot build the detector.
        Diverged: the loss has collapsed.
    """
    import torch

    from trainers.mmdet.training import train_in_full

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
    results = train_in_full(spec, out, resume=resume)
    write_json(out / "results.json", results)
    return results
