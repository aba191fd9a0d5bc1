"""An experiment as one HTML page that needs nothing else, and its headline as a PNG.

The page holds its figures as inline SVG whose colours are CSS variables, so that light and dark,
wide and narrow screens each get a readable one. Everything that was read from files is escaped.
"""

import html
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from paploss.files import read_json, write_atomic
from search.curves import COLOURS, ROLES, STYLE, Points, draw_curve, draw_curves, draw_policy, svg
from search.history import TIMINGS, History, load_history, shared_fingerprints
from search.standings import Standing, standings, verdict, winner

Record = Mapping[str, Any]
MINUS = "–"  # noqa: RUF001 - what a cell without a value shows


def write_report(experiment: Path) -> Path:
    """Write report.html into the experiment, whatever has finished so far; returns its path.

    Raises:
        BadExperiment: the directory holds no experiment.
    """
    history = load_history(experiment)
    path = history.path / "report.html"
    write_atomic(path, render_html(history))
    return path


def render_html(history: History) -> str:
    """The page of `write_report`."""
    table = standings(history)
    name = _text(history.config.get("name", history.path.resolve().name))
    sections = [
        f"<header><p class=kind>Search for a detection loss</p><h1>{name}</h1>"
        f"<p class=facts>{_facts(history)}</p><p class=verdict>{_text(verdict(table))}</p>"
        "</header>",
        _standings_section(table),
        _rewards_section(history),
        _curves_section(history, table),
        _policy_section(history),
        _time_section(history),
        _faults_section(history),
        _retrain_section(history),
        _trials_section(history),
    ]
    body = "\n".join(f"<section>{part}</section>" for part in sections if part)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{name}: paploss report</title><style>{_css()}</style></head>"
        f"<body><main>{body}</main></body></html>\n"
    )


def figure_png(experiment: Path, path: Path) -> Path:
    """The headline as a picture: the rewards by round, and the curves of the winner beside them.

    Raises:
        BadExperiment: the directory holds no experiment.
    """
    history = load_history(experiment)
    curves, title = _best_curves(history, standings(history))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(11, 4.2), facecolor="white")
        grid = figure.add_gridspec(1, 2, width_ratios=(6, 5))
        left, right = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
        draw_rewards(left, history)
        if curves:
            right.suptitle(f"Curves of {title}, start dashed", fontsize=10)
            draw_curves(right, curves, _start_curves(history))
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, facecolor="white", format="png")
    return path


def draw_rewards(figure: Any, history: History) -> None:
    """Every search trial as a dot, the mean of each round, baseline and start as bands."""
    axes = figure.add_subplot()
    trials = history.trials
    search = trials[(trials["phase"] == "search") & trials["reward"].notna()]
    # The slots of a round stand side by side, so that equal rewards do not hide each other.
    x = search["round"] + 0.4 * ((search["slot"] + 0.5) / (search["slot"].max() + 1) - 0.5)
    diverged = search["status"] == "diverged"
    axes.plot(x[~diverged], search["reward"][~diverged], "o", color=COLOURS["trial"][0],
              alpha=0.5, markersize=4.5, markeredgewidth=0, label="a trial")  # fmt: skip
    if diverged.any():
        axes.plot(x[diverged], search["reward"][diverged], "x", color=COLOURS["bad"][0],
                  markersize=6, clip_on=False, label="diverged")  # fmt: skip
    rounds = search.groupby("round")["reward"]
    mean, best = rounds.mean(), rounds.max().cummax()
    axes.plot(mean.index, mean, "-", color=COLOURS["trial"][0], linewidth=2, label="mean of round")
    axes.step(best.index, best, where="mid", color=COLOURS["best"][0], label="best so far")
    for phase in ("baseline", "start"):
        rewards = trials.loc[trials["phase"] == phase, "reward"].dropna()
        if len(rewards):
            level, spread = rewards.mean(), rewards.std(ddof=1) if len(rewards) > 1 else 0.0
            colour = COLOURS[phase][0]
            label = str(trials.loc[trials["phase"] == phase, "label"].iloc[0])
            axes.axhline(level, color=colour, linestyle="--", linewidth=1.5, label=label)
            axes.axhspan(level - spread, level + spread, color=colour, alpha=0.13, linewidth=0)
    axes.set(xlabel="round", ylabel="reward (AP on val)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.tick_params(length=0)
    axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
    figure.legend(loc="outside upper left", ncols=3, fontsize=9, columnspacing=1.4)


# --- sections -----------------------------------------------------------------------------------


def _facts(history: History) -> str:
    config = history.config
    algorithm, final = (_mapping(config.get(key)) for key in ("algorithm", "final"))
    statuses = Counter(record["status"] for record in history.records)
    parts = [
        f"{algorithm.get('type', 'unknown algorithm')}: {algorithm.get('rounds', '?')} rounds "
        f"of {algorithm.get('samples', '?')} samples",
        f"final race of {final.get('candidates', '?')}, {final.get('repeats', '?')} repeats each",
        f"seed {config.get('seed', '?')}",
        f"{len(history.records)} trials: {_counts(statuses)}",
    ]
    return " · ".join(map(_text, parts))


def _standings_section(table: Sequence[Standing]) -> str:
    best = winner(table)
    rows = [
        (
            ("★ " if one is best else "") + one.label,
            _spread(one.mean_test, one.std_test),
            _number(one.mean_val),
            one.n,
            "candidate" if one.phase == "final" else one.phase,
            _counts(one.statuses),
        )
        for one in table
    ]
    head = ("loss", "AP on test", "AP on val", "n", "role", "repeats")
    note = (
        "AP is COCO AP (0 to 1), mean ± standard deviation over n repeats with fresh seeds, all "
        "under the same budget. No reward ever came from test. A diverged repeat counts as 0, a "
        "failed one is left out. The winner ★ is the candidate with the best mean on test; being "
        "the best of several flatters it a little."
    )
    body = _table(head, rows, right={1, 2, 3}, strong={i for i, s in enumerate(table) if s is best})
    return f"<h2>Standings</h2>{body}<p class=note>{note}</p>" if rows else ""


def _rewards_section(history: History) -> str:
    if not any(record["phase"] == "search" for record in history.records):
        return ""
    means = history.trials[history.trials["phase"] == "search"].groupby("round")["reward"].mean()
    alt = "Reward of every trial by round. Mean of the rounds: " + ", ".join(
        f"{number}: {_number(mean)}" for number, mean in means.items()
    )
    figure = _figure(lambda fig: draw_rewards(fig, history), (7.6, 3.9), (4.3, 4.0), alt)
    return f"<h2>Reward by round</h2>{figure}"


def _curves_section(history: History, table: Sequence[Standing]) -> str:
    curves, title = _best_curves(history, table)
    if not curves:
        return ""
    start = _start_curves(history)
    panels = []
    for name, points in sorted(curves.items()):
        alt = f"Curve {name} through " + ", ".join(f"({x:.2f}, {y:.2f})" for x, y in points)

        def draw(figure: Figure, name: str = name, points: Points = points) -> None:
            draw_curve(figure.add_subplot(), name, points, start.get(name))

        panels.append(
            f"<figure>{svg(draw, (2.7, 2.8), alt, f'curve-{name}')}"
            f"<figcaption>{_text(ROLES.get(name, name))}</figcaption></figure>"
        )
    note = (
        "Solid: what was found. Dashed: where the search started. x is how far an element's score "
        "lies above a positive's (0.5: equal), u how well a box fits. loss = mean over positives "
        "of 1 − I1(u) + I3(u) · Σ H2(x) (1 − I2(u of the other)) / Σ H1(x)."  # noqa: RUF001
    )
    return (
        f"<h2>Curves of {_text(title)}</h2><div class=panels>{''.join(panels)}</div>"
        f"<p class=note>{note}</p>"
    )


def _policy_section(history: History) -> str:
    policy = history.policy
    if policy.empty:
        return ""
    height = 0.9 + 0.165 * policy["coordinate"].nunique()
    alt = (
        "For each coordinate of theta: how far the policy's mean moved by round, and its latest "
        "mean and standard deviation. The numbers are in the folder policy."
    )
    figure = _figure(lambda fig: draw_policy(fig, policy), (7.6, height), (4.6, height), alt)
    first, last = policy["round"].min(), policy["round"].max()
    note = (
        f"Left: the policy's mean against that of round {first}, orange up, blue down, the "
        f"strongest change in full colour. Right: mean ± std before round {last}; the "
        "purple tick is where it started."
    )
    return f"<h2>The policy</h2>{figure}<p class=note>{note}</p>"


def _time_section(history: History) -> str:
    records = history.records
    total = sum(record["seconds"] for record in records)
    if not total:
        return ""
    parts = {part: sum(r["timing"].get(part, 0.0) for r in records) for part in TIMINGS}
    parts["other"] = max(0.0, total - sum(parts.values()))
    bar = "".join(
        f'<span class="{part}" style="width:{100 * seconds / total:.2f}%"></span>'
        for part, seconds in parts.items()
    )
    rows = [
        (part, _duration(seconds), f"{seconds / total:.0%}", f"{seconds / len(records):.1f} s")
        for part, seconds in parts.items()
    ]
    rows.append(("all trials", _duration(total), "100%", f"{total / len(records):.1f} s"))
    table = _table(("part", "sum", "share", "a trial"), rows, right={1, 2, 3})
    overhead = _overhead(history.path / "summary.json", total)
    return (
        f"<h2>Where the time went</h2><div class=bar aria-hidden=true>{bar}</div>{table}{overhead}"
    )


def _overhead(path: Path, total: float) -> str:
    """Wall time over ideal time, where summary.json has `wall_seconds` and `slots`."""
    try:
        summary = read_json(path)
        wall, slots = float(summary["wall_seconds"]), int(summary["slots"])
    except (OSError, ValueError, TypeError, KeyError):
        return ""
    return (
        f"<p>Wall time {_duration(wall)} with {slots} trials side by side: "
        f"<strong>{wall * slots / total:.2f}</strong> times the ideal (sum of the trials' time "
        "divided by the slots), which is what the search itself costs.</p>"
    )


def _faults_section(history: History) -> str:
    failed = [r for r in history.records if r["status"] != "ok"]
    rows = [(_place(r), r["status"], r["error"] or MINUS, r["attempt"] + 1) for r in failed]
    parts = [_table(("trial", "status", "reason", "attempts"), rows, right={3})] if rows else []
    images: dict[str, str] = {}
    times: Counter[str] = Counter()
    for record in history.records:
        images |= record["skipped_images"]
        times.update(record["skipped_images"].keys())
    if images:
        parts.append(f"<h3>Skipped images: {len(images)}</h3>")
        skipped = [(file, reason, times[file]) for file, reason in sorted(images.items())]
        parts.append(_table(("image", "reason", "trials"), skipped, right={2}))
    shared = shared_fingerprints(history)
    if shared:
        parts.append(
            "<h3>Same fingerprint, different theta</h3><p>These trials were given different "
            "thetas and yet trained with what looks like the same loss:</p>"
        )
        listed = [(print_, ", ".join(labels)) for print_, labels in shared.items()]
        parts.append(_table(("fingerprint", "trials"), listed))
    if history.damaged:
        items = "".join(f"<li>{_text(reason)}</li>" for reason in history.damaged)
        parts.append(f"<h3>Files left out</h3><ul>{items}</ul>")
    calm = "<p>Every trial ended well, no image was skipped, and no two thetas looked alike.</p>"
    return "<h2>Failures and skipped images</h2>" + ("".join(parts) or calm)


def _retrain_section(history: History) -> str:
    if (history.path / "best.yaml").exists():
        told = "In the experiment's directory, best.yaml holds all that a full training needs:"
    else:
        told = "best.yaml is written when the search has ended. It will then train with"
    return f"<h2>Train with what was found</h2><p>{told}</p><pre>paploss train best.yaml</pre>"


def _trials_section(history: History) -> str:
    rows = [
        (
            r["phase"], r["round"], r["slot"], r["repeat"], r["status"], _number(r["reward"]),
            f"{r['seconds']:.1f}", r["fingerprint"] or MINUS, r["error"] or "",
        )
        for r in history.records
    ]  # fmt: skip
    head = ("phase", "round", "slot", "repeat", "status", "reward", "seconds", "fingerprint",
            "error")  # fmt: skip
    body = _table(head, rows, right={1, 2, 3, 5, 6})
    return f"<h2>Trials</h2><details><summary>All {len(rows)} trials</summary>{body}</details>"


# --- what the sections share --------------------------------------------------------------------


def _best_curves(history: History, table: Sequence[Standing]) -> tuple[dict[str, Points], str]:
    """The winner's curves by name, or those of the best trial so far, and whose they are."""
    best = winner(table)
    if best is not None:
        return dict(best.control_points or {}), f"the winner, {best.label}"
    done = [r for r in history.records if r["phase"] == "search" and r["reward"] is not None]
    top = max(done, key=lambda r: r["reward"], default=None)
    return (dict(top["control_points"] or {}), f"the best so far, {top['label']}") if top else (
        {}, "")  # fmt: skip


def _start_curves(history: History) -> dict[str, Points]:
    starts = (r["control_points"] for r in history.records if r["phase"] == "start")
    return next((dict(curves) for curves in starts if curves), {})


def _figure(
    draw: Callable[[Figure], None],
    wide: tuple[float, float],
    narrow: tuple[float, float],
    alt: str,
) -> str:
    """A figure in two shapes (inches); CSS shows the one that fits the screen."""
    name = re.sub(r"\W+", "-", alt[:24]).lower()
    drawn = (
        f"<div class={shape}>{svg(draw, size, alt, f'{name}-{shape}')}</div>"
        for shape, size in (("wide", wide), ("narrow", narrow))
    )
    return f"<figure>{''.join(drawn)}</figure>"


def _table(
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
        return "".join(f"<{tag}{kind}>{_text(text)}</{tag}>" for kind, text in pairs)

    body = "".join(
        f"<tr{' class=strong' if index in strong else ''}>{line('td', row)}</tr>"
        for index, row in enumerate(rows)
    )
    return (
        f"<div class=scroll tabindex=0><table><thead><tr>{line('th', head)}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _number(value: float | None) -> str:
    return MINUS if value is None or pd.isna(value) else f"{value:.3f}"


def _spread(mean: float | None, std: float | None) -> str:
    return _number(mean) + (f" ± {std:.3f}" if std is not None else "")


def _counts(statuses: Mapping[str, int]) -> str:
    order = [status for status in ("ok", "diverged", "failed") if statuses.get(status)]
    return ", ".join(f"{statuses[status]} {status}" for status in order) or "none"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def _place(record: Record) -> str:
    repeat = f", repeat {record['repeat']}" if record["phase"] != "search" else ""
    return f"{record['label']}{repeat}"


def _css() -> str:
    """The style sheet: one variable for each part that a colour plays, light and dark."""
    light = "".join(f"--{part}:{pair[0]};" for part, pair in COLOURS.items())
    dark = "".join(f"--{part}:{pair[1]};" for part, pair in COLOURS.items())
    return (
        f":root{{color-scheme:light dark;--page:#f5f6f9;--card:#fff;{light}}}"
        f"@media(prefers-color-scheme:dark){{:root{{--page:#10151c;--card:#181f29;{dark}}}}}"
        + _RULES
    )


_RULES = """
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);
  font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
main{max-width:940px;margin:0 auto;padding:2rem 1rem 4rem}
section{background:var(--card);border:1px solid var(--grid);border-radius:14px;
  padding:1.4rem 1.6rem;margin:0 0 1.1rem}
.kind{margin:0;color:var(--muted);font-size:.85rem;letter-spacing:.04em}
h1{margin:.1rem 0 .3rem;font-size:1.9rem;line-height:1.2;overflow-wrap:anywhere}
h2{margin:0 0 .8rem;font-size:1.2rem}
h3{margin:1.2rem 0 .5rem;font-size:1rem}
.facts,.note{color:var(--muted);font-size:.88rem;margin:.5rem 0 0}
.verdict{margin:1.1rem 0 0;padding-left:1rem;border-left:4px solid var(--trial);font-size:1.08rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;padding:.42rem .9rem .42rem 0;border-bottom:1px solid var(--grid);
  white-space:nowrap}
td.long{white-space:normal;min-width:17rem;overflow-wrap:anywhere}
th{color:var(--muted);font-weight:600;font-size:.82rem}
tbody tr:last-child td{border-bottom:0}
.num{text-align:right;font-variant-numeric:tabular-nums}
.strong td{font-weight:650;color:var(--best)}
figure{margin:0}
figcaption{color:var(--muted);font-size:.85rem;line-height:1.35;text-align:center}
figure svg{display:block;width:100%;height:auto}
svg text{font-family:inherit!important}
.narrow{display:none}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(240px,1fr));gap:1rem}
.panels svg{max-width:290px;margin:0 auto}
.bar{display:flex;height:14px;border-radius:7px;overflow:hidden;margin-bottom:.9rem}
.bar .setup{background:var(--start)}.bar .train{background:var(--trial)}
.bar .evaluate{background:var(--best)}.bar .other{background:var(--grid)}
pre{background:var(--page);border:1px solid var(--grid);border-radius:8px;padding:.7rem .9rem;
  overflow-x:auto;margin:.6rem 0 0}
summary{cursor:pointer;color:var(--trial)}
details .scroll{margin-top:.7rem}
@media(max-width:640px){main{padding:.7rem .6rem 2rem}section{padding:1.05rem 1rem}
  table{font-size:.85rem}th,td{padding-right:.6rem}.wide{display:none}.narrow{display:block}h1{font-size:1.5rem}
  .panels{grid-template-columns:1fr 1fr;gap:.4rem}}
"""
