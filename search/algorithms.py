"""ALGORITHMS: every search algorithm, by the name that `algorithm.type` gives it."""

from importlib.util import find_spec

from paploss.errors import BadConfig
from search.algorithm import SearchAlgorithm
from search.cem import CEM
from search.cma_es import CMAES
from search.config import AlgorithmConfig
from search.evolution import Evolution
from search.guided import Guided
from search.ppo2 import PPO2
from search.random_search import RandomSearch
from search.screen import Screen
from search.space import SearchSpace
from search.tpe import TPE
from search.turbo import Turbo

ALGORITHMS: dict[str, type[SearchAlgorithm]] = {
    "ppo2": PPO2,
    "random": RandomSearch,
    "cem": CEM,
    "cma-es": CMAES,
    "turbo": Turbo,
    "tpe": TPE,
    "evolution": Evolution,
    "guided": Guided,
}


def build_algorithm(
    space: SearchSpace, config: AlgorithmConfig, seed: int, screen: Screen | None = None
) -> SearchAlgorithm:
    """The algorithm that `config.type` names, at the start of its first round.

    Raises:
        BadConfig: see `check_algorithm`.
    """
    check_algorithm(config)
    return ALGORITHMS[config.type](space, config, seed, screen)


def check_algorithm(config: AlgorithmConfig) -> None:
    """Raise BadConfig if `config.type` needs a package that is not installed."""
    missing = _missing(ALGORITHMS[config.type])
    if missing:
        ready = ", ".join(name for name, other in ALGORITHMS.items() if not _missing(other))
        raise BadConfig(
            f"the algorithm {config.type} needs {' and '.join(missing)}, not installed here. "
            f"Run `pip install 'paploss[{config.type}]'` on every machine that runs searches, or "
            f"choose one that is ready: {ready}."
        )


def _missing(algorithm: type[SearchAlgorithm]) -> list[str]:
    return [name for name in algorithm.REQUIRES if find_spec(name) is None]
