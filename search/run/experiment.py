"""An experiment: a folder with a configuration, and what is still to run of it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from loss import criterion_title
from loss.by_head import family_of, features_of
from paploss.errors import BadExperiment
from paploss.files import read_yaml, write_json, write_yaml
from search.config import SearchConfig
from search.journal import Journal
from search.old_config import as_it_was
from search.plan import Plan
from search.run.hint import Say, SimulatedReward, Simulations, silent
from search.run.load import split_config
from search.run.screen import build_screen
from search.run.threads import one_blas_thread
from search.space import Array, SearchSpace
from trainers.config import TaskConfig


def create_experiment(config: SearchConfig, task: TaskConfig) -> Path:
    """The directory of a new experiment, with its configuration in it.

    Raises:
        BadExperiment: it exists, or storage cannot be written.
    """
    experiment = (config.storage / config.name).absolute()
    try:
        experiment.mkdir(parents=True, exist_ok=True)
        if any(experiment.iterdir()):
            raise BadExperiment(
                f"the experiment {experiment} exists already. Continue it with `paploss resume "
                f"{experiment}`, or give this search another name with `--set name=...`."
            )
        write_yaml(experiment / "config.yaml", _dump(config, task))
    except OSError as error:
        raise BadExperiment(
            f"cannot write to {experiment}: {error.strerror}. Choose another place with "
            "`--set storage=...`, or make room there."
        ) from error
    space = {"names": family_of(task.criterion).names, "start": task.start}
    spread = {} if task.spread is None else {"spread": task.spread}
    write_json(experiment / "space.json", space | spread)
    return experiment


def open_experiment(experiment: Path) -> tuple[SearchConfig, TaskConfig]:
    """The configuration of an experiment that `create_experiment` made.

    Raises:
        BadExperiment: there is none.
    """
    path = experiment / "config.yaml"
    if not path.exists():
        raise BadExperiment(
            f"{experiment} is no experiment: it has no config.yaml. Experiments are the folders "
            "that `paploss search` makes, experiments/<name> unless told otherwise."
        )
    return split_config(as_it_was(read_yaml(path)), str(path))


def plan_of(
    experiment: Path,
    config: SearchConfig,
    task: TaskConfig,
    simulations: Simulations | None = None,
    say: Say = silent,
    *,
    draw: bool = True,
) -> Plan:
    """What is still to run of an experiment, from its journal.

    Args:
        simulations: those of the experiment, for who asks for more of them; None: read from it.
        say: told in a line of what takes long.
        draw: whether a round without samples on storage is drawn; see `Plan`.
    """
    simulations = simulations or simulations_of(experiment, say)
    space = space_of(task, simulations)
    screen = build_screen(config, task, simulations, say)
    title = criterion_title(task.baseline)
    with one_blas_thread():  # it tells its algorithm all rounds so far
        return Plan(space, config, Journal(experiment), title, screen, draw=draw)


def simulations_of(experiment: Path, say: Say = silent) -> Simulations:
    """Simulated trainings, kept in the experiment."""
    return Simulations(experiment / "samples", say)


def space_of(task: TaskConfig, simulations: Simulations) -> SearchSpace:
    """What a search chooses from, with what its algorithm may know of it beside theta."""
    family = family_of(task.criterion)

    def features(thetas: Array) -> Array:
        found: Array = features_of(family, torch.from_numpy(np.ascontiguousarray(thetas))).numpy()
        return found

    hint = SimulatedReward(family, task.criterion, simulations)
    start = (family.names, task.start, task.start_label, task.spread)
    return SearchSpace(*start, features=features, hint=hint)


def _dump(config: SearchConfig, task: TaskConfig) -> dict[str, Any]:
    return {**config.model_dump(mode="json"), **task.model_dump(mode="json")}
