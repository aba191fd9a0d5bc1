"""ALGORITHMS: every search algorithm, by the name that `algorithm.type` gives it."""

from search.algorithm import SearchAlgorithm
from search.config import AlgorithmConfig
from search.ppo2 import PPO2
from search.random_search import RandomSearch
from search.space import SearchSpace

ALGORITHMS: dict[str, type[SearchAlgorithm]] = {
    "ppo2": PPO2,
    "random": RandomSearch,
}


def build_algorithm(space: SearchSpace, config: AlgorithmConfig, seed: int) -> SearchAlgorithm:
    """The algorithm that `config.type` names, at the start of its first round."""
    return ALGORITHMS[config.type](space, config, seed)
