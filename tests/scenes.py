"""Made-up scores, curves and mini-batches for the tests of Parameterized AP Loss.

Shape letters: N scores, P positives, A anchors, C classes, K segments of a curve.
"""

import math

import torch
from hypothesis import strategies as st
from torch import Tensor

from loss import DetectionBatch
from tests import oracles


def curves(seed: int, rows: int = 5, segments: int = 5) -> Tensor:
    """[rows, K + 1, 2]: rising curves from (0, 0) to (1, 1) in general position."""
    generator = torch.Generator().manual_seed(seed)
    steps = 0.05 + torch.rand(rows, segments, 2, generator=generator, dtype=torch.float64)
    points = torch.cat([steps.new_zeros(rows, 1, 2), steps.cumsum(1)], 1)
    return points / points[:, -1:]


def scene(seed: int, count: int = 60, positives: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, localisation scores and targets in float64, the last five elements ignored."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.zeros(count, dtype=torch.int8)
    targets[:positives], targets[-5:] = 1, -1
    logits = 1.5 * torch.randn(count, generator=generator, dtype=torch.float64)
    localization = torch.rand(count, generator=generator, dtype=torch.float64)
    return logits, torch.where(targets == 1, localization, 0), targets


def batch(
    seed: int = 0, anchors: int = 80, classes: int = 3, positives: int = 30
) -> DetectionBatch:
    """Positives of every quality, from boxes that fit to boxes that miss; five ignored anchors.

    In float64, of four images.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.full((anchors,), classes)
    pos = torch.randperm(anchors - 5, generator=generator)[:positives].sort().values
    labels[pos] = torch.randint(0, classes, (positives,), generator=generator)
    weights = torch.ones(anchors)
    weights[-5:] = 0
    low = 40 * torch.rand(positives, 2, generator=generator, dtype=torch.float64)
    target = torch.cat([low, low + 20], 1)
    shift = 40 * torch.linspace(0.02, 1, positives, dtype=torch.float64)[:, None] ** 2
    return DetectionBatch(
        logits=1.5 * torch.randn(anchors, classes, generator=generator, dtype=torch.float64),
        labels=labels,
        weights=weights,
        pos=pos,
        pred_boxes=target + shift * torch.rand(positives, 4, generator=generator),
        target_boxes=target,
        anchor_sizes=torch.full((positives, 2), 100.0, dtype=torch.float64),
        images=torch.arange(anchors) * 4 // anchors,
    )


_GRID = [n / 8 for n in range(-16, 17)] + [-50.0, 50.0]
# Off the grid with 16 bits: a difference that rounds is on either side of a breakpoint.
_OFF_GRID = st.floats(-3, 3, width=16)
_EIGHTHS = [n / 8 for n in range(9)]
_LOGITS = {
    1: st.one_of(st.sampled_from(_GRID), _OFF_GRID),
    0: st.one_of(st.sampled_from([*_GRID, *[-math.inf, math.inf] * 3]), _OFF_GRID),
    -1: st.sampled_from([*_GRID, *[-math.inf, math.inf, math.nan] * 8]),
}
_LOCALIZATION = {
    1: st.one_of(st.sampled_from(_EIGHTHS), st.floats(-1, 2, width=32)),
    0: st.one_of(st.sampled_from(_EIGHTHS + [0.0] * 20), st.floats(-1, 2, width=32)),
    -1: st.sampled_from([*_EIGHTHS, *[math.inf, math.nan] * 4]),
}
_ELEMENTS = {k: st.tuples(_LOGITS[k], _LOCALIZATION[k], st.just(k)) for k in (1, 0, -1)}


@st.composite
def corners(draw: st.DrawFn, largest: int = 10) -> tuple[Tensor, Tensor, Tensor]:
    """Logits and localisation scores [N] in float32 and targets, N from 0 to `largest`.

    Logits on a grid tie and fall on breakpoints and clip ends; any set of positives, negatives and
    ignored elements, the empty ones too; localisation scores outside of [0, 1]; negatives may be
    infinite, and what is ignored anything.
    """
    targets_drawn = draw(st.lists(st.sampled_from([1, 1, 0, 0, 0, -1]), max_size=largest))
    elements = [draw(_ELEMENTS[target]) for target in targets_drawn]
    logits, localization, targets = (
        torch.tensor([each[k] for each in elements], dtype=dtype)
        for k, dtype in enumerate([torch.float32, torch.float32, torch.int8])
    )
    return logits, localization, targets


@st.composite
def any_control_points(draw: st.DrawFn, segments: int = 5) -> list[Tensor]:
    """5 or 4 curves or one that is shared, on a grid with coincident points and flat parts, each
    with segments of its own number."""
    rows = draw(st.sampled_from([5, 5, 4, 1]))
    return [draw(oracles.control_points(1, draw(st.integers(1, segments))))[0] for _ in range(rows)]
