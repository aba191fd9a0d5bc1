"""The five curves as pictures, and the colours of all that is drawn.

Every colour is named by the part it plays (`COLOURS`), so that a page can give each part another
colour in the dark (see `search.dashboard`). Figures are built from `matplotlib.figure.Figure`
alone: no pyplot, no state outside the figure.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

Points = Sequence[Sequence[float]]  # the control points of one curve: [[x, y], ...]

# part: (on light ground, on dark ground)
COLOURS = {
    "ink": ("#1c2531", "#e8edf4"),
    "muted": ("#657184", "#9ba8ba"),
    "grid": ("#dfe4ec", "#313c4b"),
    "trial": ("#2f63d1", "#82adff"),
    "best": ("#0b7a57", "#4fd6a5"),
    "baseline": ("#b4570a", "#f5a95c"),
    "start": ("#8057c2", "#bfa3f7"),
    "bad": ("#c4362b", "#ff8177"),
}
INK, MUTED, GRID = (COLOURS[part][0] for part in ("ink", "muted", "grid"))

# rcParams under which every figure here is drawn. Names come from files: "$" is no mathematics.
STYLE: Any = {
    "text.parse_math": False,
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "figure.constrained_layout.use": True,
}

# What each curve does in the loss, for those who read the picture without the paper.
ROLES = {
    "H1": "counts all that ranks above an object",
    "H2": "counts the faults among them",
    "I1": "what a good box gains by itself",
    "I2": "how far a good box is excused as a fault",
    "I3": "how much an object's rank weighs by its box",
}


def evaluate(points: Points, x: ArrayLike) -> NDArray[np.float64]:
    """The piecewise linear curve through `points` at `x` (clipped to [0, 1]), in float64.

    Segment k covers (x_k, x_{k+1}], as in the loss: coincident points make a jump that keeps the
    value on its left, and x = 0 belongs to the first segment of positive width.

    Args:
        points: [K + 1, 2], from x = 0 to x = 1 in ascending order of x.
        x: any shape.
    """
    xs, ys = np.asarray(points, dtype=np.float64).T
    at = np.clip(np.asarray(x, dtype=np.float64), 0.0, 1.0)
    first = np.searchsorted(xs, xs[0], side="right") - 1
    left = np.clip(np.searchsorted(xs, at, side="left") - 1, first, len(xs) - 2)
    width = xs[left + 1] - xs[left]
    slope = (ys[left + 1] - ys[left]) / np.where(width > 0, width, 1.0)
    value: NDArray[np.float64] = ys[left] + slope * (at - xs[left])
    return value


def curves_by_head(curves: Mapping[str, Points]) -> dict[str, dict[str, Points]]:
    """{"rpn.H2": points, ...} as {"rpn": {"H2": points, ...}, ...}.

    The head of curves without one, "H2", is "": they are every head's.
    """
    heads: dict[str, dict[str, Points]] = {}
    for full_name, points in curves.items():
        head, _, name = full_name.rpartition(".")
        heads.setdefault(head, {})[name] = points
    return heads


def draw_curve(axes: Axes, name: str, points: Points, start: Points | None = None) -> None:
    """One curve with its control points; the start's, or the identity, dashed behind it."""
    for line, part, style in (
        (start if start is not None else [[0, 0], [1, 1]], "start", "--"),
        (points, "best", "o-"),
    ):
        xs, ys = np.asarray(line, dtype=float).T
        colour = COLOURS[part][0]
        axes.plot(xs, ys, style, color=colour, markersize=3.5, linewidth=1.6, clip_on=False)
    axes.set_title(name, loc="left", fontweight="bold")
    axes.set_xlabel("score difference x" if name.startswith("H") else "localisation score u")
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
    axes.set_yticks((0, 0.5, 1), ("0", "0.5", "1"))
    axes.tick_params(length=0, pad=5)


def draw_curves(
    figure: Any,
    curves: Mapping[str, Points],
    start: Mapping[str, Points] | None = None,
    columns: int = 3,
) -> None:
    """All curves of one theta on a grid of panels; where they are by head, one row a head.

    Args:
        figure: a `Figure` or `SubFigure`.
        curves: control points by the curve's name, perhaps with its head in front: "rpn.H2".
        start: those that the search started from; the identity where it has none.
        columns: of the grid.
    """
    heads, starts = curves_by_head(curves), curves_by_head(start or {})
    rows = figure.subfigures(len(heads), 1, squeeze=False)[:, 0] if any(heads) else [figure]
    for row, (head, own) in zip(rows, heads.items(), strict=True):
        across = len(own) if head else columns
        if head:
            row.suptitle(head, x=0.01, ha="left", fontweight="bold")
        for index, (name, points) in enumerate(sorted(own.items()), start=1):
            axes = row.add_subplot(-(-len(own) // across), across, index)
            draw_curve(axes, name, points, starts.get(head, {}).get(name))
