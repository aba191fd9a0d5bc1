"""SearchAlgorithm: proposes thetas and learns from their rewards, round by round."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from search.config import AlgorithmConfig
from search.seeds import sample_uniforms
from search.space import Array, SearchSpace


class SearchAlgorithm(ABC):
    """An ask/tell search over the unit cube.

        while not algorithm.finished:
            thetas = algorithm.ask()                # [M, D]
            algorithm.tell([train(theta) for theta in thetas])
        best = algorithm.best_guess()               # [D]

    Its state is a pure function of (space, config, seed, rewards by round and slot): nothing
    depends on when or in which order the rewards arrived. A subclass says how uniforms become
    thetas (`_propose`), what it learns (`_learn`), and what of that has to be kept (`_learned`,
    `_restore`).

    Args:
        space: theta's coordinates, D of them, and the start.
        config: T rounds of M samples, and the algorithm's own settings.
        seed: decides every sample; >= 0.

    Raises:
        ValueError: a negative seed.
    """

    def __init__(self, space: SearchSpace, config: AlgorithmConfig, seed: int) -> None:
        if seed < 0:
            raise ValueError(f"the seed of a search is {seed}; expected 0 or more.")
        self.space = space
        self.config = config
        self.seed = seed
        self._round = 0
        self._ahead: Array = np.empty((0, space.dimension))

    @property
    def round(self) -> int:
        """The round that `ask` proposes and `tell` ends, from 0; T when finished."""
        return self._round

    @property
    def finished(self) -> bool:
        """Whether all T rounds have been told."""
        return self._round == self.config.rounds

    def ask(self) -> Array:
        """The thetas of the current round, [M, D] in [0, 1]; the same at every call.

        Row i depends on (seed, round, i, policy) only, not on M. In every round but the first, the
        first `config.overlap` rows are what `ask_ahead` gave in the round before.

        Raises:
            ValueError: the search is finished.
        """
        self._check_running()
        early = len(self._ahead)
        fresh = self._propose(self._uniforms(self.round, range(early, self.config.samples)))
        return np.concatenate([self._ahead, fresh])

    def ask_ahead(self) -> Array:
        """The first `config.overlap` thetas of the next round, [k, D], from the policy as it is.

        They can be trained while the current round lacks its last rewards. How many there are, and
        what they are, does not depend on when that is: the search stays a pure function of its
        rewards. None in the last round.

        Raises:
            ValueError: the search is finished.
        """
        self._check_running()
        last = self.round + 1 == self.config.rounds
        slots = range(0 if last else self.config.overlap)
        return self._propose(self._uniforms(self.round + 1, slots))

    def tell(self, rewards: ArrayLike) -> None:
        """Learn from the current round and go to the next.

        Args:
            rewards: [M] in the order of `ask`'s rows, each in [0, 1], or NaN for a sample that
                failed: that is no evidence about its theta.

        Raises:
            ValueError: the search is finished, the wrong number of rewards, or one out of range.
        """
        self._check_running()
        values = np.array(rewards, dtype=np.float64)
        if values.shape != (self.config.samples,):
            raise ValueError(
                f"got rewards of shape {values.shape} for round {self.round}; "
                f"expected ({self.config.samples},), one for each slot, NaN where it failed."
            )
        outside = (values < 0) | (values > 1)
        if outside.any():
            slot = int(np.argmax(outside))
            raise ValueError(
                f"the reward of round {self.round}, slot {slot} is {values[slot]}; "
                "expected 0 to 1, or NaN for a sample that failed."
            )
        ahead = self.ask_ahead()
        self._learn(self.ask(), values)
        self._ahead = ahead
        self._round += 1

    @abstractmethod
    def policy(self) -> tuple[Array, Array]:
        """(mean, std), [D] each, of what the current round is drawn from."""

    @abstractmethod
    def best_guess(self) -> Array:
        """The theta, [D], to use if the search ended now."""

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs, made of JSON's types; floats survive exactly."""
        ahead = self._ahead.tolist()
        return {**self._identity(), "round": self.round, "ahead": ahead, "learned": self._learned()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state`, from `state_dict` of an equal search, was taken.

        Raises:
            ValueError: the state is of a search with other settings, seed or coordinates.
        """
        for key, own in self._identity().items():
            if state.get(key) != own:
                raise ValueError(
                    f"this state is of another search: its {key} is {state.get(key)!r}, expected "
                    f"{own!r}. Build the algorithm from the settings that the state came from."
                )
        if not 0 <= state["round"] <= self.config.rounds:
            raise ValueError(
                f"the state's round is {state['round']}; expected 0 to {self.config.rounds}."
            )
        self._restore(state["learned"])
        self._ahead = np.array(state["ahead"], dtype=np.float64).reshape(-1, self.space.dimension)
        self._round = state["round"]

    def _identity(self) -> dict[str, Any]:
        """What two searches must share to be the same search."""
        return {
            "config": self.config.model_dump(mode="json"),
            "seed": self.seed,
            "names": list(self.space.names),
            "start": list(self.space.start),
        }

    @abstractmethod
    def _propose(self, uniforms: Array) -> Array:
        """Thetas [M, D] of the current round, row by row from `uniforms` [M, D] in [0, 1)."""

    @abstractmethod
    def _learn(self, thetas: Array, rewards: Array) -> None:
        """Take in the current round: `thetas` [M, D], checked `rewards` [M] with NaN for failed.

        The first rows, as many as `self._ahead` has, were drawn from the policy before.
        """

    @abstractmethod
    def _learned(self) -> dict[str, Any]:
        """What `_learn` changed, made of JSON's types."""

    @abstractmethod
    def _restore(self, learned: dict[str, Any]) -> None:
        """Take over what `_learned` returned."""

    def _uniforms(self, round: int, slots: range) -> Array:
        """[slots, D] in [0, 1): what the thetas of `slots` are made from."""
        rows = [sample_uniforms(self.seed, round, slot, self.space.dimension) for slot in slots]
        return np.array(rows, dtype=np.float64).reshape(-1, self.space.dimension)

    def _check_running(self) -> None:
        if self.finished:
            raise ValueError(
                f"the search is finished: all {self.config.rounds} rounds have been told. "
                "A longer search is a new one that starts from this one's best guess."
            )
