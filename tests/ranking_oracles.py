"""AP, aLRP and NDCG Loss once more: dense, in float64, written from the formulas and slow.

Tests compare `loss/` with these; nothing here is imported from there. The gradients at the logits
are part of each loss's definition and are worked out with it.
Shape letters: N scores, P positives.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor


def above(scores: Tensor, pivots: Tensor, delta: float) -> Tensor:
    """[P, N] x_ij: how far s_j is above p_i, clip(d / (2 delta) + 1/2, 0, 1); a step if delta is 0.

    The score of a negative may be infinite.
    """
    d = scores.double()[None, :] - pivots.double()[:, None]
    return (d.sign() + 1) / 2 if delta == 0 else (d / (2 * delta) + 0.5).clamp(0, 1)


class Ranks(NamedTuple):
    """Indices of positives and negatives, and what is above each positive.

    x_pos [P, P] (0 on the diagonal) and x_neg [P, N - P]; pos, fp, rank [P].
    """

    positive: Tensor
    negative: Tensor
    x_pos: Tensor
    x_neg: Tensor
    pos: Tensor
    fp: Tensor
    rank: Tensor


def ranks(logits: Tensor, targets: Tensor, delta: float) -> Ranks:
    i, j = (targets == 1).nonzero()[:, 0], (targets == 0).nonzero()[:, 0]
    x_pos = above(logits[i], logits[i], delta).fill_diagonal_(0)
    x_neg = above(logits[j], logits[i], delta)
    pos, fp = 1 + x_pos.sum(1), x_neg.sum(1)
    return Ranks(i, j, x_pos, x_neg, pos, fp, pos + fp)


def ascending(scores: Tensor) -> list[int]:
    """Indices from the lowest score to the highest; Python's sort leaves ties by index."""
    return sorted(range(len(scores)), key=scores.tolist().__getitem__)


def interpolated_precision(logits: Tensor, r: Ranks) -> Tensor:
    """[P]: the running maximum of pos / rank from the lowest positive up."""
    out, highest = torch.zeros_like(r.pos), 0.0
    for i in ascending(logits[r.positive]):
        highest = max(highest, float(r.pos[i] / r.rank[i]))
        out[i] = highest
    return out


def ap_loss(logits: Tensor, targets: Tensor, delta: float) -> tuple[Tensor, Tensor]:
    """Value [] and gradient [N], as the released code of Parameterized AP Loss has them.

    Positive i: -(1 - M_i) / P. Negative j: 1/P sum_i c_i x_ij / rank_i, where c_i is 1 if the
    precision of i is at or above the running maximum before it, else (1 - M_i) / (1 - precision_i).
    """
    r = ranks(logits, targets, delta)
    gradient = torch.zeros(len(logits), dtype=torch.float64)
    if len(r.positive) == 0:
        return torch.zeros((), dtype=torch.float64), gradient
    P, before = len(r.positive), 0.0
    M = interpolated_precision(logits, r)
    for i in ascending(logits[r.positive]):
        precision = float(r.pos[i] / r.rank[i])
        c = 1.0 if precision >= before else float(1 - M[i]) / (1 - precision)
        gradient[r.positive[i]] = -(1 - M[i]) / P
        gradient[r.negative] += c * r.x_neg[i] / r.rank[i] / P
        before = float(M[i])
    return 1 - M.mean(), gradient


def alrp_loss(
    logits: Tensor, targets: Tensor, errors: Tensor, delta: float
) -> dict[str, Tensor | list[int]]:
    """Classification [] with its gradient [N], localisation [] with that at errors [P]; the rank
    [P] and the order [P] of positives."""
    r, E = ranks(logits, targets, delta), errors.double()
    gradient, at_errors = torch.zeros(len(logits), dtype=torch.float64), torch.zeros_like(E)
    order = ascending(logits[r.positive])
    classification = localization = torch.zeros((), dtype=torch.float64)
    P = len(r.positive)
    for place, i in enumerate(order):
        classification = classification + r.fp[i] / r.rank[i] / P
        for k in order[place:]:  # itself, and those that are counted as above it
            localization = localization + E[k] / r.rank[i] / P
            at_errors[k] += 1 / r.rank[i] / P
        if r.fp[i] > 1e-5:
            update = ((r.x_pos[i] * E).sum() + r.fp[i]) / r.rank[i] / P
            gradient[r.positive[i]] -= update
            gradient[r.negative] += update * r.x_neg[i] / r.fp[i]
    return {
        "classification": classification,
        "gradient": gradient,
        "localization": localization,
        "at_errors": at_errors,
        "rank": r.rank,
        "order": order,
    }


def gain(rank: float) -> float:
    return 1 / math.log2(1 + rank)


def ndcg_loss(logits: Tensor, targets: Tensor, delta: float) -> tuple[Tensor, Tensor]:
    """Value [] and gradient [N]."""
    r = ranks(logits, targets, delta)
    gradient = torch.zeros(len(logits), dtype=torch.float64)
    P = len(r.positive)
    best = sum(gain(place) for place in range(1, P + 1))
    reached = 0.0
    for i in range(P):
        reached += gain(float(r.rank[i]))
        if r.fp[i] > 1e-5:
            lost = (gain(float(r.pos[i])) - gain(float(r.rank[i]))) / best
            gradient[r.positive[i]] -= lost
            gradient[r.negative] += lost * r.x_neg[i] / r.fp[i]
    value = 1 - reached / best if P else 0.0
    return torch.tensor(value, dtype=torch.float64), gradient


def error_driven(
    r: Ranks, errors: list[float], target_errors: list[float], Z: float, count: int
) -> tuple[float, list[float]]:
    """Value and gradient [N] of aLRP Loss's section 3, by whole matrices over all N x N pairs.

    Definition 1: L_ij = l(i) p(j|i) for a positive i and a negative j, p(j|i) = x_ij / N_FP(i);
    Theorem 1: L = 1/Z sum_ij L_ij. Targets L*_ij = l*(i) p(j|i), updates L*_ij - L_ij, and
    dL/ds_i = 1/Z (sum_j update_ij - sum_j update_ji).
    """
    primary = [[0.0] * count for _ in range(count)]
    update = [[0.0] * count for _ in range(count)]
    for a, i in enumerate(r.positive.tolist()):
        if float(r.fp[a]) <= 1e-5:
            continue  # p(j|i) is not defined
        for b, j in enumerate(r.negative.tolist()):
            p = float(r.x_neg[a, b] / r.fp[a])
            primary[i][j] = errors[a] * p
            update[i][j] = target_errors[a] * p - primary[i][j]
    value = sum(map(sum, primary)) / Z
    columns = list(zip(*update, strict=True))
    return value, [(sum(update[m]) - sum(columns[m])) / Z for m in range(count)]


DELTAS = st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0])
_GRID = st.integers(-16, 16).map(lambda n: n / 8)
_FINITE = st.one_of(_GRID, _GRID, st.floats(-3, 3, width=32), st.sampled_from([-50.0, 50.0]))
_INFINITE = st.sampled_from([-math.inf, math.inf])


@st.composite
def scenes(draw: st.DrawFn, largest: int = 10) -> tuple[Tensor, Tensor]:
    """Logits [N] float32 and targets [N], N from 0 to `largest`, all corners among them.

    Scores on a grid tie and fall on the ends of ramps; any set of positives, negatives and ignored
    elements, the empty ones too; negatives may be infinite, ignored elements anything.
    """
    scores = {
        1: _FINITE,
        0: st.one_of(_FINITE, _FINITE, _FINITE, _INFINITE),
        -1: st.one_of(_FINITE, _INFINITE, st.just(math.nan)),
    }
    element = st.sampled_from([1, 1, 0, 0, 0, -1]).flatmap(
        lambda target: st.tuples(scores[target], st.just(target))
    )
    pairs: list[tuple[float, int]] = draw(st.lists(element, max_size=largest))
    logits, targets = ([pair[k] for pair in pairs] for k in range(2))
    return torch.tensor(logits, dtype=torch.float32), torch.tensor(targets, dtype=torch.int8)


def reference_cases(kind: str) -> list[dict[str, Any]]:
    """The cases of one kind in tests/reference: "meta" and tensors by name."""
    with np.load(Path(__file__).parent / "reference" / "losses.npz") as arrays:
        found = []
        for meta in json.loads(str(arrays["meta"])):
            if meta["kind"] == kind:
                prefix = f"c{meta['i']:02d}_"
                names = [name for name in arrays.files if name.startswith(prefix)]
                values = {n.removeprefix(prefix): torch.from_numpy(arrays[n]) for n in names}
                found.append({"meta": meta, **values})
    return found
