"""What an HTML page that needs nothing else is made of: style, tables, figures, numbers.

Figures are inline SVG whose colours are CSS variables, so that light and dark, wide and narrow
screens each get a readable one. Everything here that takes text escapes it, and returns HTML.
"""

import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from search.curves import COLOURS, svg

MINUS = "–"  # noqa: RUF001 - what a cell without a value shows


def document(title: str, sections: Iterable[str]) -> str:
    """A whole page of `sections`, which are HTML already; the empty ones are left out."""
    body = "\n".join(f"<section>{part}</section>" for part in sections if part)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{css()}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def css() -> str:
    """The style sheet: one variable for each part that a colour plays, light and dark."""
    light = "".join(f"--{part}:{pair[0]};" for part, pair in COLOURS.items())
    dark = "".join(f"--{part}:{pair[1]};" for part, pair in COLOURS.items())
    return (
        f":root{{color-scheme:light dark;--page:#f5f6f9;--card:#fff;{light}}}"
        f"@media(prefers-color-scheme:dark){{:root{{--page:#10151c;--card:#181f29;{dark}}}}}\n"
        + resources.files("search").joinpath("report.css").read_text(encoding="utf-8")
    )


def figure(
    draw: Callable[[Figure], None],
    wide: tuple[float, float],
    narrow: tuple[float, float],
    alt: str,
) -> str:
    """What `draw` draws in two shapes (inches); CSS shows the one that fits the screen.

    Args:
        draw: draws on the empty figure that it is given.
        wide, narrow: width and height of the two.
        alt: the text for those who cannot see it; its beginning tells a page's figures apart.
    """
    name = re.sub(r"\W+", "-", alt[:24]).lower()
    drawn = (
        f"<div class={shape}>{svg(draw, size, alt, f'{name}-{shape}')}</div>"
        for shape, size in (("wide", wide), ("narrow", narrow))
    )
    return f"<figure>{''.join(drawn)}</figure>"


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[Any]],
    right: frozenset[int] | set[int] = frozenset(),
    strong: frozenset[int] | set[int] = frozenset(),
) -> str:
    """An HTML table of escaped cells; columns in `right` hold numbers, `strong` rows stand out."""

    def line(tag: str, cells: Sequence[Any]) -> str:
        texts = [str(cell) for cell in cells]
        kinds = [
            " class=num" if index in right else " class=long" if len(text) > 40 else ""
            for index, text in enumerate(texts)
        ]
        pairs = zip(kinds, texts, strict=True)
        return "".join(f"<{tag}{kind}>{escape(text)}</{tag}>" for kind, text in pairs)

    body = "".join(
        f"<tr{' class=strong' if index in strong else ''}>{line('td', row)}</tr>"
        for index, row in enumerate(rows)
    )
    return (
        f"<div class=scroll tabindex=0><table><thead><tr>{line('th', head)}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def escape(value: Any) -> str:
    """A value as text that stands in HTML, between tags as well as in a quoted attribute."""
    return html.escape(str(value), quote=True)


def number(value: float | None) -> str:
    """Three decimals, or `MINUS` where there is no value."""
    return MINUS if value is None or pd.isna(value) else f"{value:.3f}"


def spread(mean: float | None, std: float | None) -> str:
    """Mean ± standard deviation, as far as they are known."""
    return number(mean) + (f" ± {std:.3f}" if std is not None else "")


def counts(statuses: Mapping[str, int]) -> str:
    """How many trials ended in each way: "7 ok, 1 failed"."""
    order = [status for status in ("ok", "diverged", "failed") if statuses.get(status)]
    return ", ".join(f"{statuses[status]} {status}" for status in order) or "none"


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds where it took less than an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
