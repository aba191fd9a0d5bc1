"""SearchAlgorithm: proposes thetas and learns from their rewards, round by round."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from search.config import AlgorithmConfig
from search.drawing import draw_screened
from search.samples import Samples
from search.screen import Rejection, Screen
from search.seeds import Draw
from search.space import Array, SearchSpace


class SearchAlgorithm(ABC):
    """An ask/tell search over the unit cube.

        algorithm.tell_start([train(start, seed) for seed in seeds])
        while not algorithm.finished:
            thetas = algorithm.ask()                # [M, D]
            algorithm.tell([train(theta) for theta in thetas])
        best = algorithm.best_guess()               # [D]

    Its state is a pure function of (space, config, seed, screen, rewards by round and slot):
    nothing depends on when or in which order the rewards arrived. A subclass says how chance
    becomes thetas (`_propose`), what it learns (`_learn`, `_learn_start`), and what of that has to
    be kept (`_learned`, `_restore`).

    Args:
        space: theta's coordinates, D of them, and the start.
        config: T rounds of M samples, and the algorithm's own settings.
        seed: decides every sample; >= 0.
        screen: what a sample has to pass; one that does not is drawn again, `config.attempts`
            times in all. None: every sample is tried.

    Attributes:
        SIGMA: the spread of the first round where neither `config.sigma` nor `space.spread` says.
        REQUIRES: packages that it imports when it is built, beyond those that we depend on.

    Raises:
        ValueError: a negative seed.
    """

    SIGMA: ClassVar[float] = 0.2
    REQUIRES: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, space: SearchSpace, config: AlgorithmConfig, seed: int, screen: Screen | None = None
    ) -> None:
        if seed < 0:
            raise ValueError(f"the seed of a search is {seed}; expected 0 or more.")
        self.space = space
        self.config = config
        self.seed = seed
        self._screen = screen
        self._round = 0
        self._evidence = ""
        self._start_rewards: Array = np.empty(0)
        self._ahead = Samples.none(space.dimension)
        self._asked: Samples | None = None
        self._asked_ahead: Samples | None = None
        self._accept(np.array([space.start]))

    @property
    def round(self) -> int:
        """The round that `ask` proposes and `tell` ends, from 0; T when finished."""
        return self._round

    @property
    def finished(self) -> bool:
        """Whether all T rounds have been told."""
        return self._round == self.config.rounds

    @property
    def evidence(self) -> str:
        """A hash of all that was told: two searches of one seed that share it ask the same."""
        return self._evidence

    @property
    def learns_from_start(self) -> bool:
        """Whether `tell_start` is of use: then a search waits for the start in its first round."""
        return type(self)._learn_start is not SearchAlgorithm._learn_start

    @property
    def spread(self) -> Array:
        """Standard deviation by coordinate to begin with, [D]: the space's, or else sigma."""
        if self.space.spread is not None:
            return np.array(self.space.spread)
        return np.full(self.space.dimension, self.config.sigma or self.SIGMA)

    def ask(self) -> Array:
        """The thetas of the current round, [M, D] in [0, 1]; the same at every call.

        Row i depends on (seed, round, i, policy) only, not on M. In every round but the first, the
        first `config.overlap` rows are what `ask_ahead` gave in the round before.

        Raises:
            ValueError: the search is finished.
        """
        return self._current().thetas.copy()

    def ask_ahead(self) -> Array:
        """The first `config.overlap` thetas of the next round, [k, D], from the policy as it is.

        They can be trained while the current round lacks its last rewards. How many there are, and
        what they are, does not depend on when that is: the search stays a pure function of its
        rewards. None in the last round.

        Raises:
            ValueError: the search is finished.
        """
        return self._next().thetas.copy()

    @property
    def rejections(self) -> tuple[Rejection, ...]:
        """What the screen has rejected on the way to `ask`'s thetas, by slot and attempt."""
        return self._current().rejections

    def samples(self) -> dict[str, Any]:
        """For `recall`: what `ask` and `ask_ahead` give, and what was rejected; of JSON's types."""
        ahead = self._next().as_dict()
        now = self._current().as_dict()
        return {"round": self.round, "evidence": self.evidence, **now, "ahead": ahead}

    def recall(self, samples: dict[str, Any]) -> bool:
        """Take what `samples` of an equal search gave for this round's; whether it is this round's.

        Spares drawing them again, which may take long, and on another machine may end in other
        digits. To be called before `ask`.

        Raises:
            ValueError, KeyError, TypeError: `samples` are none.
        """
        known = {"round": self.round, "evidence": self.evidence}
        if self.finished or {key: samples.get(key) for key in known} != known:
            return False
        current = Samples.read(samples, self.space)
        ahead = Samples.read(samples["ahead"], self.space)
        if len(current.thetas) != self.config.samples or len(ahead.thetas) != self._count_ahead():
            return False
        self._asked, self._asked_ahead = current, ahead
        self._accept(current.thetas[len(self._ahead.thetas) :])
        self._accept(ahead.thetas)
        return True

    def tell_start(self, rewards: ArrayLike) -> None:
        """Learn what the start earned with one seed after another, at any time in the first round.

        It is evidence at `space.start`, and the first measure of how far rewards of one theta
        spread. The first round does not depend on it.

        Args:
            rewards: [R], each in [0, 1], or NaN for a repeat that failed.

        Raises:
            ValueError: the first round is over, or a reward is out of range.
        """
        if self.round:
            raise ValueError(f"the start's rewards belong to round 0; this is round {self.round}.")
        values = self._checked(rewards, "the start")
        self._start_rewards = values[~np.isnan(values)]

    def tell(self, rewards: ArrayLike) -> None:
        """Learn from the current round and go to the next.

        Args:
            rewards: [M] in the order of `ask`'s rows, each in [0, 1], or NaN for a sample that
                failed: that is no evidence about its theta.

        Raises:
            ValueError: the search is finished, the wrong number of rewards, or one out of range.
        """
        self._check_running()
        values = self._checked(rewards, f"round {self.round}")
        if values.shape != (self.config.samples,):
            raise ValueError(
                f"got rewards of shape {values.shape} for round {self.round}; "
                f"expected ({self.config.samples},), one for each slot, NaN where it failed."
            )
        thetas, ahead = self.ask(), self._next()
        if self.round == 0:
            self._remember(self._start_rewards)
            self._learn_start(self._start_rewards)
        self._remember(values)
        self._learn(thetas, values)
        self._ahead = ahead
        self._asked = self._asked_ahead = None
        self._round += 1

    @abstractmethod
    def policy(self) -> tuple[Array, Array]:
        """(mean, std), [D] each, of what the current round is drawn from."""

    @abstractmethod
    def best_guess(self) -> Array:
        """The theta, [D], to use if the search ended now."""

    def predict(self, thetas: Array) -> Array | None:
        """Expected rewards, [N], of `thetas` [N, D] by the algorithm's model; None without one."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs, made of JSON's types; floats survive exactly."""
        return {
            **self._identity(),
            "round": self.round,
            "evidence": self.evidence,
            "start_rewards": self._start_rewards.tolist(),
            "ahead": self._ahead.as_dict(),
            "learned": self._learned(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state`, from `state_dict` of an equal search, was taken.

        A screen that remembers samples has to be given as it was then.

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
        self._ahead = Samples.read(state["ahead"], self.space)
        self._asked = self._asked_ahead = None
        self._round = state["round"]
        self._evidence = state["evidence"]
        self._start_rewards = np.array(state["start_rewards"], dtype=np.float64)

    def _identity(self) -> dict[str, Any]:
        """What two searches must share to be the same search."""
        return {
            "config": self.config.model_dump(mode="json"),
            "seed": self.seed,
            "names": list(self.space.names),
            "start": list(self.space.start),
            "spread": None if self.space.spread is None else list(self.space.spread),
        }

    @abstractmethod
    def _propose(self, draws: Sequence[Draw]) -> Array:
        """Thetas [len(draws), D] of the current round.

        Row i depends on `draws[i]` and on what was learned, not on the other draws.
        """

    @abstractmethod
    def _learn(self, thetas: Array, rewards: Array) -> None:
        """Take in the current round: `thetas` [M, D], checked `rewards` [M] with NaN for failed.

        The first rows, as many as `self._ahead` has, were drawn from the policy before. All have
        passed the screen, so they are of the policy given that; see `PPO2` for what that means.
        """

    def _learn_start(self, rewards: Array) -> None:  # noqa: B027 (not every algorithm has a use)
        """Take in `rewards` [R] of the start, R >= 0, none of them failed."""

    @abstractmethod
    def _learned(self) -> dict[str, Any]:
        """What `_learn` and `_learn_start` changed, made of JSON's types."""

    @abstractmethod
    def _restore(self, learned: dict[str, Any]) -> None:
        """Take over what `_learned` returned."""

    def _current(self) -> Samples:
        self._check_running()
        if self._asked is None:
            slots = range(len(self._ahead.thetas), self.config.samples)
            self._asked = self._ahead + self._draw(self.round, slots)
        return self._asked

    def _next(self) -> Samples:
        self._current()  # a screen hears of the rounds in their order
        if self._asked_ahead is None:
            self._asked_ahead = self._draw(self.round + 1, range(self._count_ahead()))
        return self._asked_ahead

    def _count_ahead(self) -> int:
        return 0 if self.round + 1 == self.config.rounds else self.config.overlap

    def _draw(self, round: int, slots: range) -> Samples:
        if not slots:
            return Samples.none(self.space.dimension)
        draws = [Draw(self.seed, round, slot) for slot in slots]
        return draw_screened(draws, self._propose, self._screen, self.config.attempts)

    def _accept(self, thetas: Array) -> None:
        if self._screen:
            for theta in thetas:
                self._screen.accepted(theta)

    def _checked(self, rewards: ArrayLike, whose: str) -> Array:
        values = np.array(rewards, dtype=np.float64)
        outside = (values < 0) | (values > 1)
        if outside.any():
            slot = int(np.argmax(outside))
            raise ValueError(
                f"the reward of {whose}, slot {slot} is {values.flat[slot]}; "
                "expected 0 to 1, or NaN for a sample that failed."
            )
        return values

    def _remember(self, rewards: Array) -> None:
        told = json.dumps([self._evidence, self.round, rewards.tolist()])
        self._evidence = hashlib.sha256(told.encode()).hexdigest()[:16]

    def _check_running(self) -> None:
        if self.finished:
            raise ValueError(
                f"the search is finished: all {self.config.rounds} rounds have been told. "
                "A longer search is a new one that starts from this one's best guess."
            )
