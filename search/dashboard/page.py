"""The HTML around what is shown: one file that needs nothing else, or the shell of the live page.

Both have the same style, the same scripts and the same elements; the one holds its data, the other
asks for it. Both forbid by a content security policy whatever was not shipped with paploss, so that
a text from a file that found its way into the HTML would still run nothing.
"""

import base64
import hashlib
import html
import json
import re
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

from search.curves import COLOURS
from search.status import SILENT_SECONDS

SCRIPTS = ("dom.js", "table.js", "figures.js", "rewards.js", "curves.js", "policy.js", "head.js",
           "sections.js", "spared.js", "formulas.js", "trials.js", "compare.js",
           "app.js")  # fmt: skip
SHEETS = ("page.css", "tables.css")
PLOTLY = "plotly.min.js"

GROUNDS = {"page": ("#f4f6f9", "#0f141b"), "card": ("#ffffff", "#171e28")}
# What experiments that are compared are drawn with, in this order.
PALETTE = {
    "one": ("#2f63d1", "#82adff"),
    "two": ("#b4570a", "#f5a95c"),
    "three": ("#0b7a57", "#4fd6a5"),
    "four": ("#a3308f", "#f08fe0"),
    "five": ("#7a5f00", "#e3c64b"),
    "six": ("#00718f", "#5fd0ec"),
}

_SETUP = {"silent_seconds": SILENT_SECONDS}


def static_page(title: str, data: Mapping[str, Any], summary: str) -> str:
    """A whole page that holds its data, its scripts and its figures' library: about 5 MB.

    Args:
        title: of the window.
        data: `{"history": history_data, "status": status_data}` of the one experiment.
        summary: what a reader without scripts gets to see.
    """
    setup = {**_SETUP, "live": False, "written": time.time(), "experiments": [data]}
    scripts = [plotly(), script()]
    policy = {
        "script-src": " ".join(map(_hash, scripts)),
        "style-src": f"{_hash(style())} {_hash('')}",
    }
    return _filled(
        policy=_policy(policy),
        title=html.escape(_plain(title)),
        style=f"<style>{style()}</style>",
        summary=html.escape(_plain(summary)),
        setup=json_in_html(setup),
        scripts="".join(f"<script>{text}</script>\n" for text in scripts),
    )


def live_page(title: str, names: Iterable[str]) -> str:
    """The page that asks the server which sent it for what the experiments `names` hold."""
    setup = {**_SETUP, "live": True, "experiments": [{"name": name} for name in names]}
    files = [f"/static/{version(PLOTLY)}", f"/static/{version('page.js')}"]
    return _filled(
        policy=live_policy(),
        title=html.escape(_plain(title)),
        style=f'<link rel="stylesheet" href="/static/{version("page.css")}">',
        summary="",
        setup=json_in_html(setup),
        scripts="".join(f'<script src="{file}"></script>\n' for file in files),
    )


def live_policy() -> str:
    """The content security policy of the live page: nothing but this server's own files."""
    own = {"script-src": "'self'", "style-src": f"'self' {_hash('')}", "connect-src": "'self'"}
    return _policy(own)


@lru_cache(maxsize=1)
def served() -> Mapping[str, tuple[str, bytes]]:
    """The live page's files: {"page.<hash>.js": (content type, bytes)}."""
    files = {
        PLOTLY: ("text/javascript", plotly()),
        "page.js": ("text/javascript", script()),
        "page.css": ("text/css", style()),
    }
    return {version(name): (kind, text.encode()) for name, (kind, text) in files.items()}


@lru_cache(maxsize=8)
def version(name: str) -> str:
    """The name of a served file with a hash of its contents, so that it can be kept for ever."""
    text = {PLOTLY: plotly, "page.js": script, "page.css": style}[name]()
    stem, _, end = name.rpartition(".")
    return f"{stem}.{hashlib.sha256(text.encode()).hexdigest()[:16]}.{end}"


@lru_cache(maxsize=1)
def plotly() -> str:
    """plotly.js, as plotly's Python package brings it; imported here, as only pages need it."""
    from plotly.offline import get_plotlyjs  # type: ignore[import-untyped, unused-ignore]

    return _inlined(get_plotlyjs())


@lru_cache(maxsize=1)
def plotly_sheets() -> tuple[str, ...]:
    """Ids of the style sheets that plotly.js would add to the page, which its policy forbids.

    It takes those that are there, so the page has them, empty: plotly.js puts the rules of its
    figures into the first by itself. The others are for maps, which the page has none of.
    """
    ids = re.findall(r'getElementById\("([0-9a-f]{32,})"\)', plotly())
    return ("plotly.js-style-global", *dict.fromkeys(ids))


@lru_cache(maxsize=1)
def script() -> str:
    """The page's own script: its parts, one after another, in a scope of their own."""
    body = "\n".join(map(_static, SCRIPTS))
    return _inlined(f'(() => {{\n"use strict";\n{body}\n}})();\n')


@lru_cache(maxsize=1)
def style() -> str:
    """The style sheet: one variable for each part that a colour plays, light and dark."""
    parts = {**GROUNDS, **COLOURS, **PALETTE}
    light = "".join(f"--{part}:{pair[0]};" for part, pair in parts.items())
    dark = "".join(f"--{part}:{pair[1]};" for part, pair in parts.items())
    return (
        f":root{{color-scheme:light;{light}}}\n"
        f"@media(prefers-color-scheme:dark){{:root:not([data-theme]){{color-scheme:dark;{dark}}}}}\n"
        f":root[data-theme=dark]{{color-scheme:dark;{dark}}}\n" + "\n".join(map(_static, SHEETS))
    )


def json_in_html(value: Any) -> str:
    """`value` as JSON that can stand in a script element: ASCII, and without <, > and &."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return re.sub("[<>&]", lambda match: f"\\u{ord(match[0]):04x}", text)


def _filled(**parts: str) -> str:
    """page.html with `parts` in its places; what stands in a part is never read as a place."""
    parts["sheets"] = "".join(f'<style id="{name}"></style>\n' for name in plotly_sheets())
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _static("page.html"))


def _policy(own: Mapping[str, str]) -> str:
    """A content security policy: `own` and nothing else, but for the icon, which is in the page."""
    directives = {"default-src": "'none'", "img-src": "data:", "base-uri": "'none'",
                  "form-action": "'none'", **own}  # fmt: skip
    return "; ".join(f"{name} {value}" for name, value in directives.items())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _inlined(text: str) -> str:
    """A script that can stand in HTML; the parser would take these for its end or a comment."""
    found = re.search(r"</script|<!--|\r", text, flags=re.IGNORECASE)
    if found:
        raise ValueError(f"a script of the page holds {found[0]!r} and cannot stand in HTML.")
    return text


def _plain(text: str) -> str:
    """`text` that can be written as UTF-8, whatever a file had in it."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _static(name: str) -> str:
    folder = resources.files("search") / "dashboard" / "static"
    return (folder / name).read_text(encoding="utf-8")
