"""Experiments for what runs and writes them."""

from pathlib import Path

import pytest

from search.run.experiment import create_experiment
from tests.search.run.by_hand import TASK, config_in, run_by_hand


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The directory of a search whose trials all have their records; nothing is written up."""
    experiment = create_experiment(config_in(tmp_path), TASK)
    run_by_hand(experiment)
    return experiment
