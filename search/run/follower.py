"""What follows a search: the display, and the files that grow with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paploss.files import read_json
from search.display import Display
from search.history import load_history, write_history_csv
from search.space import SearchSpace
from search.tensorboard import RoundWriter, write_trial_curves


class Follower:
    """Passes the searcher's events to the display and to the files that grow with a search."""

    def __init__(self, display: Display, experiment: Path, space: SearchSpace) -> None:
        self._display = display
        self._experiment = experiment
        self._rounds = RoundWriter(experiment / "tensorboard", space.names)
        self.started = display.started
        self.note = display.note

    def finished(self, record: Mapping[str, Any]) -> None:
        self._display.finished(record)
        folder = self._experiment / str(record["trial_dir"])
        if record["control_points"] and folder.is_dir():
            write_trial_curves(folder, record["control_points"])

    def round_done(self, round: int) -> None:
        self._display.round_done(round)
        history = load_history(self._experiment)
        write_history_csv(history, self._experiment / "history.csv")

        def rewards(phase: str, of: int) -> list[float]:
            known = (r for r in history.records if (r["phase"], r["round"]) == (phase, of))
            return [r["reward"] for r in known if r["reward"] is not None]

        def mean(values: list[float]) -> float | None:
            return sum(values) / len(values) if values else None

        policy = read_json(self._experiment / "policy" / f"round-{round:03d}.json")
        self._rounds.write_round(
            round,
            rewards("search", round),
            mean=policy["mean"],
            std=policy["std"],
            baseline=mean(rewards("baseline", 0)),
            start=mean(rewards("start", 0)),
        )
