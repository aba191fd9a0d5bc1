"""`paploss`: the command line."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import paploss
from paploss.errors import SearchStopped, TrainingStopped, UserError
from search.cli_cluster import submit
from search.cli_data import data_app
from search.cli_jobs import jobs_app
from search.cli_mirror import restore
from search.cli_show import show
from search.cli_watch import dashboard
from search.exit_codes import Exit, Interrupted

app = typer.Typer(
    help="Search detection losses: find the Parameterized AP Loss that trains your detector best.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Experiment = Annotated[Path, typer.Argument(help="An experiment's folder, experiments/<name>.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: algorithm.rounds=4."),
]
TrustCode = Annotated[
    bool,
    typer.Option("--trust-code", help="Run a detector's Python config that is more than data."),
]


def search(
    config: Annotated[str, typer.Argument(help="A search YAML, or the name of a shipped one.")],
    overrides: Overrides = None,
    or_resume: Annotated[
        bool, typer.Option("--or-resume", help="Go on with the experiment if it exists.")
    ] = False,
    trust_code: TrustCode = False,
) -> None:
    """Search the loss that CONFIG describes, and write best.yaml and a report."""
    from search.run.cluster import early_demand
    from search.run.load import experiment_of, load_search, parse_overrides
    from search.run.preflight import check_before_trials
    from search.run.session import start_experiment
    from search.run.warm_start import start_line

    values = parse_overrides(overrides or [])
    if or_resume:
        # What it started from need not be there any more.
        existing = experiment_of(config, values, trust_code=trust_code)
        if (existing / "config.yaml").exists():
            resume(existing)
            return
    settings, task = load_search(config, values, trust_code=trust_code)
    experiment = settings.storage / settings.name
    console = Console(stderr=True)
    with early_demand(settings):
        for line in (*check_before_trials(settings, task), start_line(settings, task)):
            console.print(line, style="dim", soft_wrap=True, markup=False, highlight=False)
        _finish(experiment, lambda: start_experiment(settings, task))


def resume(experiment: Experiment) -> None:
    """Go on with a search that was interrupted, stopped or killed."""
    from search.run.session import run_experiment

    _finish(experiment, lambda: run_experiment(experiment))


def export(
    experiment: Experiment,
    out: Annotated[Path, typer.Option("--out", help="File to write.")] = Path("best.yaml"),
    trial: Annotated[
        str | None,
        typer.Option(help="A trial instead of the winner, such as search-003-05-0."),
    ] = None,
) -> None:
    """Write the training YAML of the winner, or of any trial."""
    from search.run.results import export_training

    export_training(experiment, out, trial)
    typer.echo(f"wrote {out}\nTrain with it: paploss train {out}")


def train(
    training_yaml: Annotated[
        Path, typer.Argument(help="best.yaml, another training YAML, or the name of a shipped one.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for checkpoints and results.")
    ] = None,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="From the last checkpoint.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; chosen if not given.")] = None,
    trust_code: TrustCode = False,
) -> None:
    """Train a detector in full with the loss of TRAINING_YAML, and score it.

    On several GPUs: torchrun --nproc-per-node GPUS -m search.cli train TRAINING_YAML
    """
    from search.run.load import parse_overrides
    from trainers.datasets.findings import check_for_training
    from trainers.distributed import this_worker
    from trainers.export import read_training_yaml
    from trainers.retrain import retrain

    values = parse_overrides(overrides or [])
    config = read_training_yaml(training_yaml, values, trust_code=trust_code)
    if this_worker().first:
        for line in check_for_training(config.data).lines():
            typer.echo(line, err=True)
    folder = out or _training_folder(training_yaml)
    results = retrain(config, folder, resume=resume, device=device)
    if results is None:  # the first worker speaks for all
        return
    _print_scores(results)
    _print_beside_search(results, config.reward, config.found_by)
    typer.echo(f"\nCheckpoints and results.json: {folder}")
    typer.echo(f"Losses: tensorboard --logdir {folder}")


def ablate(
    group: Annotated[str, typer.Argument(help="shapes, another shipped group, or a YAML.")],
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs of each fixed loss.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="LABEL", help="Run this row; may be repeated.")
    ] = None,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder, experiments/ablate-GROUP if not given.")
    ] = None,
    trust_code: TrustCode = False,
) -> None:
    """Compare the losses of GROUP with each other: several seeds each, one table.

    What is finished is kept: the same command goes on after an interruption.
    """
    from search.run.ablate import ablate as run_group
    from search.run.load import parse_overrides

    values = parse_overrides(overrides or [])
    if seeds is not None:
        values["seeds"] = seeds
    run_group(group, out, only=only or (), overrides=values, trust_code=trust_code)


def detector(
    name: Annotated[str, typer.Argument(help="A detector's name, file, or mmdet::CONFIG.py.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write; printed if not given.")
    ] = None,
    trust_code: TrustCode = False,
) -> None:
    """Write a detector's settings in full as one YAML: plain data, with no base and no code."""
    from trainers.export import write_detector_yaml
    from trainers.read import load_detector

    settings = load_detector(name, trust_code=trust_code)
    written = write_detector_yaml(settings, out)
    typer.echo(f"wrote {out}\nUse it in a search with `detector: {out}`." if out else written)


def doctor(
    storage: Annotated[
        Path | None, typer.Option(help="Also check this folder for experiments.")
    ] = None,
) -> None:
    """Check what an installation can get wrong, and say how to mend it."""
    from paploss.doctor import print_doctor, run_doctor

    raise typer.Exit(print_doctor(run_doctor(storage)))


_PANELS: dict[str, dict[str, Any]] = {
    "Search": {"search": search, "resume": resume, "show": show, "dashboard": dashboard},
    "Use what was found": {"export": export, "train": train, "ablate": ablate},
    "Clusters": {"submit": submit, "jobs": jobs_app, "restore": restore},
    "Set-up": {"doctor": doctor, "data": data_app, "detector": detector},
}
for _panel, _commands in _PANELS.items():
    for _name, _command in _commands.items():
        if isinstance(_command, typer.Typer):
            app.add_typer(_command, name=_name, rich_help_panel=_panel)
        else:
            app.command(_name, rich_help_panel=_panel)(_command)


def _finish(experiment: Path, run: Callable[[], object]) -> None:
    """`run` an experiment to its end and show the result."""
    from search.history import load_history
    from search.result import print_result

    run()
    print_result(load_history(experiment))


def _training_folder(training: Path) -> Path:
    """Beside a training YAML; of a shipped one, which is a name, a folder of that name here."""
    if training.is_file():
        return training.absolute().parent / "training"
    return Path("trainings").absolute() / training.name


def _print_scores(results: Mapping[str, Any]) -> None:
    """Every metric of both held-out splits; a split may lack some."""
    val, test = results["val"], results["test"]
    typer.echo(f"{'':<9}{'val':>7}{'test':>8}")
    for name in dict.fromkeys([*val, *test]):
        left, right = (f"{split[name]:.4f}" if name in split else "-" for split in (val, test))
        typer.echo(f"{name:<9}{left:>7}{right:>8}")


def _print_beside_search(
    results: Mapping[str, Any], reward: Any, found_by: Mapping[str, Any]
) -> None:
    """The training's score beside those of the search that found its criterion, if one has."""
    from search.reward import reward_name
    from trainers.reward import reward_of

    short = [found_by.get(f"{split}_mean") for split in ("val", "test")]
    if short == [None, None]:
        return
    long: list[float | None] = []
    for split in ("val", "test"):
        try:
            long.append(reward_of(results[split], reward))
        except ValueError:  # not defined on this split
            long.append(None)
    name = reward_name({"reward": reward})
    typer.echo(f"\n{name:<26}{'val':>7}{'test':>8}")
    for name, values in (("search's short training", short), ("this training", long)):
        left, right = ("-" if value is None else f"{value:.4f}" for value in values)
        typer.echo(f"{name:<26}{left:>7}{right:>8}")


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"paploss {paploss.__version__}")
        raise typer.Exit


def run_safely(command: Callable[[], None]) -> int:
    """Run `command`; what the user can mend becomes one message, without a traceback."""
    try:
        command()
    except (SearchStopped, TrainingStopped) as error:
        return _say(error, Exit.STOPPED)
    except UserError as error:
        return _say(error, Exit.BAD_INPUT)
    except Interrupted as error:
        return _say(error, Exit.INTERRUPTED)
    except KeyboardInterrupt:
        return _say("interrupted.", Exit.INTERRUPTED)
    return Exit.OK


def _say(message: object, code: Exit) -> int:
    prefix = "" if code == Exit.INTERRUPTED else "error: "
    print(f"{prefix}{message}", file=sys.stderr)
    return code


def main() -> None:
    """The `paploss` script."""
    sys.exit(run_safely(app))


if __name__ == "__main__":
    main()
