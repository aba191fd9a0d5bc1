"""`paploss ablate`: a group of rows run to its end over any number of sessions, and its table.

OUT/rows/<row>/row.json, seed-0.json, seed-0/train.log    a fixed loss
OUT/rows/<row>/config.yaml, journal/, best.yaml, ...      a search, as `paploss search` leaves it
OUT/rows/<row>-retrained/                                 what it found, trained like the others
OUT/table.md, table.png, runs.csv, results.json
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console

from paploss.errors import SearchStopped
from paploss.files import read_yaml
from search.ablation import GroupConfig, RowConfig, Runs, load_group
from search.ablation_report import print_table, write_report
from search.ablation_table import scores_of
from search.display import plain
from search.exit_codes import Interrupted
from search.history import load_history
from search.run.ablate_pool import Job, run_jobs
from search.run.ablate_rows import (
    Fixed,
    Resolved,
    Searched,
    check_rows,
    check_unchanged,
    keep_settings,
    resolve,
    split_overrides,
)
from search.run.cluster import Cluster
from search.run.only_process import only_process
from search.run.results import versions
from search.run.session import run_experiment, start_experiment
from search.seeds import trial_seed
from search.standings import standings, winner


def ablate(
    name: str,
    out: Path | None = None,
    *,
    only: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
    trust_code: bool = False,
    console: Console | None = None,
) -> Path:
    """Run what is still to run of a group, write its table and print it.

    Args:
        name: of a group in configs/ablations, or the path of one.
        out: the folder for everything; experiments/ablate-<name> if not given.
        only: labels of rows to run; all if empty. The table has every row that has a result.
        overrides: of the group's own keys and of every training and search.
        trust_code: run a detector that is Python and more than data.

    Returns:
        The folder.

    Raises:
        Interrupted: by the user; the same call goes on.
        SearchStopped: runs have failed, or none could be started; all others were run.
        UserError: something given is wrong; nothing has been run.
    """
    console = console or Console()
    own, below = split_overrides(overrides or {})
    group, _ = load_group(name, own)
    chosen = group.chosen(only)
    folder = (out or Path("experiments") / f"ablate-{group.name}").absolute()
    rows = resolve(group, group.rows, folder / "rows", below, trust_code=trust_code)
    for row in rows:
        check_unchanged(row, folder / "rows" / row.row.folder)
    mine = [row for row in rows if row.row in chosen]
    for line in check_rows(mine):
        console.print(line, style="dim", soft_wrap=True, markup=False, highlight=False)
    with only_process(folder, "Wait for it, or choose another place with --out."):
        session = _Session(group, folder, console)
        problems: list[str] = []
        try:
            problems = session.run(mine)
        except KeyboardInterrupt:  # outside of a search, which turns it into Interrupted
            raise Interrupted(session.how_far(mine)) from None
        except Interrupted:
            raise Interrupted(session.how_far(mine)) from None
        finally:
            session.write_table(rows)
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise SearchStopped(
            f"{len(problems)} of the runs have no result:\n{listed}\nAll others are kept in "
            f"{folder}; the same command tries these again."
        )
    return folder


class _Session:
    """One session over a group's folder."""

    def __init__(self, group: GroupConfig, folder: Path, console: Console) -> None:
        self.group, self.folder, self.console = group, folder, console
        self._begun = time.monotonic()

    def run(self, rows: Sequence[Resolved]) -> list[str]:
        """Fixed losses first, then the searches one by one; what has no result, and why."""
        with Cluster.connect(self.group.resources) as cluster:
            self.group = self.group.model_copy(update={"resources": cluster.resources})
            fixed = [row for row in rows if isinstance(row, Fixed)]
            problems = self._train(fixed, cluster)
            searched = [row for row in rows if isinstance(row, Searched)]
            for number, row in enumerate(searched, 1):
                self._say(f"search {number} of {len(searched)}: {row.row.label}")
                try:
                    criterion = self._search(row)
                except SearchStopped as problem:
                    problems.append(f"{row.row.label}: {problem}")
                    continue
                if row.retrain is not None:
                    problems += self._train([row.found(criterion)], cluster)
        return problems

    def _train(self, rows: Sequence[Fixed], cluster: Cluster) -> list[str]:
        """Run the seeds that are missing; a line for each that fails."""
        jobs = [job for row in rows for job in self._missing(row)]
        # One seed of every row before the second of any: an early end leaves a whole table.
        jobs.sort(key=lambda job: job.repeat)
        problems = []
        with closing(run_jobs(jobs, cluster, self._say)) as finished:
            for count, (job, record) in enumerate(finished, 1):
                Runs(job.folder.parent).write(job.repeat, record)
                outcome = _outcome(record)
                self._say(
                    f"{job.row} seed {job.repeat}: {outcome}, {record['seconds']:.1f} s, "
                    f"{count}/{len(jobs)} runs"
                )
                if record["status"] == "failed":
                    problems.append(f"{job.row} seed {job.repeat}: {outcome}")
        return problems

    def _missing(self, row: Fixed) -> Iterator[Job]:
        resources = self.group.resources
        runs = Runs(self.trained(row.row))
        check_unchanged(row, runs.folder)
        keep_settings(row, runs.folder)
        done = set()
        for record in runs.records():
            if record["status"] == "failed":
                runs.forget(record["repeat"])
            else:
                done.add(record["repeat"])
        for repeat in range(self.group.seeds):
            if repeat in done:
                continue
            run = {
                # Those of a search's final race, so that all rows meet the same luck.
                "seed": trial_seed(self.group.seed, "final", 0, 0, repeat),
                "device": "cuda" if resources.gpus else "cpu",
                "threads": max(1, int(resources.cpus_per_trial)),
            }
            spec = row.spec.model_copy(update=run)
            yield Job(row.row.label, repeat, spec, runs.place(repeat))

    def _search(self, row: Searched) -> dict[str, Any]:
        """Run a search to its end; the criterion that it has found."""
        experiment = self.folder / "rows" / row.row.folder
        if (experiment / "config.yaml").exists():
            best = run_experiment(experiment)
        else:
            best = start_experiment(row.config, row.task)
        if not best.exists():
            raise SearchStopped("every run of its final race has failed, so nothing was found.")
        found: dict[str, Any] = read_yaml(best)["criterion"]
        return found

    def trained(self, row: RowConfig) -> Path:
        """The folder of a row's trainings."""
        again = "-retrained" if row.search is not None else ""
        return self.folder / "rows" / f"{row.folder}{again}"

    def write_table(self, rows: Sequence[Resolved]) -> None:
        """Write and show the table of all rows that have a result."""
        runs = {row.row.label: self._records(row) for row in rows}
        scores = [
            scores_of(row.row, runs[row.row.label], _remark(row))
            for row in rows
            if runs[row.row.label]
        ]
        if not scores:
            return
        flat = [(label, record) for label, records in runs.items() for record in records]
        write_report(self.folder, scores, self.group, flat, versions=versions())
        print_table(scores, self.group, self.console)
        self.console.print(f"\n{self.folder / 'table.md'}", soft_wrap=True, highlight=False)

    def how_far(self, rows: Sequence[Resolved]) -> str:
        done = sum(
            1 for row in rows for record in self._records(row) if record["status"] != "failed"
        )
        return (
            f"interrupted; finished runs, kept in {self.folder}: {done}. The same command goes on, "
            "also with a search that was begun."
        )

    def _records(self, row: Resolved) -> list[dict[str, Any]]:
        """What a row's table line is made of."""
        if isinstance(row, Fixed) or row.retrain is not None:
            return list(Runs(self.trained(row.row)).records())
        experiment = self.folder / "rows" / row.row.folder
        if not (experiment / "config.yaml").exists():
            return []
        history = load_history(experiment)
        best = winner(standings(history))
        if best is None:
            return []
        final = (r for r in history.records if r["phase"] == "final")
        return [record for record in final if record["round"] == best.candidate]

    def _say(self, text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._begun), 60)
        line = f"[{minutes:02d}:{seconds:02d}] {plain(text)}"
        self.console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)


def _outcome(record: Mapping[str, Any]) -> str:
    outcome = str(record["status"])
    test, val = ((record.get(split) or {}).get("AP") for split in ("test", "val"))
    if test is not None and val is not None:
        outcome += f", AP test {test:.4f} (val {val:.4f})"
    if record["error"]:
        outcome += f" ({plain(record['error'])})"
    return outcome


def _remark(row: Resolved) -> str:
    if isinstance(row, Fixed):
        return ""
    search = f"one search of {row.trials} trials"
    return search if row.retrain is None else f"{search}, its winner trained again"
