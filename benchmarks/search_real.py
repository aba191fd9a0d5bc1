"""What do searches find after 8, 16, 32 and 64 trials, trained again with fresh seeds?

    python -m benchmarks.search_real EXPERIMENT... --work experiments/search_real

EXPERIMENTs are searches of one task, made by `paploss search` and named ALGORITHM_sSEED; those that
have not come far enough are left out. Each is taken as it was after so many trials. Its
candidates then, the algorithm's best guess and its best samples, run twice on val to choose one;
the one that is chosen runs three times more, and the mean of these on the third split, which no
reward and no choice has seen, is what the search has found. A candidate that two budgets share runs
once. Everything meets the same seeds. Finished runs are kept in OUT.jsonl: the same command goes
on after an interruption, and with more experiments runs only what is new.
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.measure import color_of, head, row
from benchmarks.race_trials import CHOOSING, SCORING, Loss, Run, Runs, report, run_missing
from benchmarks.replay import Experiment
from benchmarks.trials_table import check_same_task
from paploss.configs import find
from paploss.files import read_yaml
from trainers.config import TaskConfig

PRESET = "parameterized_ap_retinanet_coco"
REFERENCE_REPEATS = (*SCORING, 5, 6)


@dataclass(frozen=True)
class Race:
    """One search after one budget.

    Attributes:
        group: what its row of the table is called; searches that differ in their seed share one.
        budget: full trials. rounds: that these were.
        minutes: of training in these rounds.
        candidates: of which one is chosen.
    """

    experiment: str
    group: str
    budget: int
    rounds: int
    minutes: float
    candidates: tuple[Loss, ...]

    def choose(self, runs: Runs) -> tuple[Loss, float] | None:
        """The candidate with the best mean on val, and that mean; None while one lacks a run."""
        means = []
        for loss in self.candidates:
            found = [runs.get(loss, repeat) for repeat in CHOOSING]
            if None in found:
                return None
            means.append(np.mean([_score(record, "reward") for record in found]))
        best = int(np.argmax(means))
        return self.candidates[best], float(means[best])


def races_of(experiment: Experiment, budgets: Sequence[int], count: int) -> Iterator[Race]:
    """The search after each budget that it has reached, with `count` candidates each."""
    name = experiment.config.name
    for budget in budgets:
        rounds = experiment.rounds_within(budget)
        if not rounds:
            continue
        guess = tuple(experiment.best_guess(rounds).tolist())
        entries = [(guess, "best guess")]
        for record in experiment.best_samples(rounds, count):
            label = f"round {record['round']} slot {record['slot']}"
            entries.append((tuple(record["theta"]), label))
        kept = dict(reversed(entries))  # one of each theta
        distinct = sorted(kept, key=[theta for theta, _ in entries].index)[:count]
        criterion = experiment.task.criterion
        losses = tuple(Loss(criterion, theta, f"{name} {kept[theta]}") for theta in distinct)
        group = re.sub(r"_s\d+$", "", name)
        yield Race(name, group, budget, rounds, experiment.minutes(rounds), losses)


def references(task: TaskConfig) -> list[Loss]:
    """What searches are held against: their start, losses by hand, the published curves."""
    published = read_yaml(find("presets", PRESET))
    by_hand = task.baseline
    return [
        Loss(task.criterion, task.start, "start (identity)"),
        Loss(by_hand, None, "Focal + GIoU"),
        Loss({"type": "ap", "box_loss": "giou", "box_weight": 1.0}, None, "AP Loss + GIoU"),
        Loss(published, None, "published curves"),
        Loss({**published, "gradient_scale": 1.0}, None, "published curves, gradient scale 1"),
    ]


def results(races: Sequence[Race], runs: Runs) -> pd.DataFrame:
    """One row a race that has a winner and all of its scores."""
    rows = []
    for race in races:
        chosen = race.choose(runs)
        scores = _scores(runs, chosen[0], SCORING) if chosen else None
        if chosen is None or scores is None:
            continue
        rows.append(
            {
                "experiment": race.experiment, "group": race.group, "budget": race.budget,
                "winner": chosen[0].label.removeprefix(f"{race.experiment} "),
                "val": chosen[1], "test": scores.mean(), "sd": scores.std(ddof=1),
                "minutes": race.minutes,
                "race": len(race.candidates) * len(CHOOSING) + len(SCORING),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def table_of(found: pd.DataFrame, budgets: Sequence[int]) -> str:
    """Mean and standard deviation over searches, by algorithm and budget."""
    lines = [head(["search", *(f"{budget} trials" for budget in budgets)])]
    for group, rows in found.groupby("group", sort=False):
        cells = []
        for budget in budgets:
            tests = rows.loc[rows["budget"] == budget, "test"]
            spread = f" ± {tests.std(ddof=1):.3f}" if len(tests) > 1 else ""
            cells.append(f"{tests.mean():.3f}{spread} ({len(tests)})" if len(tests) else "-")
        lines.append(row([str(group), *cells]))
    return "\n".join(lines)


def references_table(losses: Sequence[Loss], runs: Runs) -> str:
    lines = [head(["reference", "AP", "seeds"])]
    for loss in losses:
        scores = _scores(runs, loss, REFERENCE_REPEATS)
        if scores is not None:
            told = f"{scores.mean():.3f} ± {scores.std(ddof=1):.3f}"
            lines.append(row([loss.label, told, str(len(scores))]))
    return "\n".join(lines)


def single_table(found: pd.DataFrame) -> str:
    columns = ["experiment", "trials", "winner", "val", "AP", "sd of a run", "minutes", "race"]
    lines = [head(columns)]
    for r in found.sort_values(["group", "experiment", "budget"]).to_dict("records"):
        scores = [f"{r[name]:.3f}" for name in ("val", "test", "sd")]
        first, last = [r["experiment"], str(r["budget"]), r["winner"]], str(r["race"])
        lines.append(row([*first, *scores, f"{r['minutes']:.0f}", last]))
    return "\n".join(lines)


def draw(found: pd.DataFrame, losses: Sequence[Loss], runs: Runs, path: Path) -> None:
    """Every search as a point, the mean of its group as a line, references as levels."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5.5), layout="constrained")
    for n, (group, rows) in enumerate(found.groupby("group", sort=False)):
        means = rows.groupby("budget")["test"].mean()
        color = color_of(str(group), n)
        shift = 1 + 0.02 * (n - found["group"].nunique() / 2)
        axes.plot(means.index * shift, means, "-o", color=color, label=str(group))
        axes.scatter(rows["budget"] * shift, rows["test"], s=14, color=color, alpha=0.5)
    for loss, style in zip(losses, ((0, (1, 3)), ":", "-.", "--", (0, (5, 5))), strict=True):
        scores = _scores(runs, loss, REFERENCE_REPEATS)
        if scores is not None:
            label = f"{loss.label} {scores.mean():.3f}"  # two may lie on one line
            axes.axhline(scores.mean(), color="gray", lw=1, ls=style, label=label)
    axes.set_xscale("log", base=2)
    ticks = sorted(found["budget"].unique())
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set(xlabel="full trials in the search", ylabel="AP of the winner, third split")
    figure.legend(loc="outside lower center", fontsize=8, ncols=4)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _score(record: dict[str, Any] | None, name: str) -> float:
    """0 where a trial gave none: a loss that cannot be trained is worth nothing."""
    value = None if record is None else record[name]
    return 0.0 if value is None else float(value)


def _scores(runs: Runs, loss: Loss, repeats: Sequence[int]) -> Any:
    found = [runs.get(loss, repeat) for repeat in repeats]
    if None in found:
        return None
    return np.array([_score(record, "test_reward") for record in found])


def run(arguments: argparse.Namespace) -> str:
    """Run what is missing; the tables, as Markdown."""
    experiments = [Experiment.open(path) for path in arguments.experiments]
    task = experiments[0].task
    for one in experiments[1:]:
        check_same_task(one.task, task, f"{one.path}, beside {experiments[0].path}")
    races = [
        race for e in experiments for race in races_of(e, arguments.budgets, arguments.candidates)
    ]
    runs = Runs(arguments.work / "runs.jsonl")
    compared = references(task) if arguments.references else []
    if not arguments.only_table:
        first: list[Run] = [(loss, r) for loss in compared for r in REFERENCE_REPEATS]
        first += [(loss, r) for race in races for loss in race.candidates for r in CHOOSING]
        run_missing(first, runs, task, arguments.processes, _say)
        chosen = [race.choose(runs) for race in races]
        scoring = [(c[0], r) for c in chosen if c for r in SCORING]
        run_missing(scoring, runs, task, arguments.processes, _say)
    found = results(races, runs)
    parts = [references_table(compared, runs)] if compared else []
    if len(found):
        parts = [table_of(found, arguments.budgets), *parts, single_table(found)]
        draw(found, compared, runs, arguments.work / "figure.png")
    return "\n\n".join(parts)


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("experiments", nargs="+", type=Path)
    parser.add_argument("--work", type=Path, default=Path("experiments/search_real"))
    parser.add_argument("--budgets", nargs="+", type=int, default=[8, 16, 32, 64])
    parser.add_argument("--candidates", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2, help="trials at a time")
    parser.add_argument("--no-references", dest="references", action="store_false")
    parser.add_argument("--only-table", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    report(lambda: run(arguments), arguments.work)


if __name__ == "__main__":
    main()
