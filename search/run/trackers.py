"""Experiment trackers that a search also reports to, through Ray's own callbacks."""

from typing import Any

from search.config import SearchConfig


def tracker_callbacks(config: SearchConfig) -> list[Any]:
    """Tune callbacks for `config.trackers`."""
    return []
