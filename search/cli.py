"""`paploss`: the command line.

Exit codes: 0 done; 1 a check found a fault; 2 something given is wrong; 3 the search or training
stopped by itself; 130 interrupted. After 3 and 130, `paploss resume` goes on.
"""

import sys
from collections.abc import Callable, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import paploss
from paploss.errors import SearchStopped, UserError

app = typer.Typer(
    help="Search detection losses: find the Parameterized AP Loss that trains your detector best.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Make a data set that a search can use.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Experiment = Annotated[Path, typer.Argument(help="An experiment's folder, experiments/<name>.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: algorithm.rounds=4."),
]
Out = Annotated[Path, typer.Option("--out", help="Folder to write to.")]


class Exit(IntEnum):
    OK = 0
    FAULT = 1
    BAD_INPUT = 2
    STOPPED = 3
    INTERRUPTED = 130


@app.command()
def search(
    config: Annotated[str, typer.Argument(help="A search YAML, or the name of a shipped one.")],
    overrides: Overrides = None,
    or_resume: Annotated[
        bool, typer.Option("--or-resume", help="Go on with the experiment if it exists.")
    ] = False,
) -> None:
    """Search the loss that CONFIG describes, and write best.yaml and a report."""
    from search.run import experiment as experiments
    from search.run.load import load_search, parse_overrides
    from search.run.preflight import check_before_trials

    settings, task = load_search(config, parse_overrides(overrides or []))
    experiment = settings.storage / settings.name
    if or_resume and (experiment / "config.yaml").exists():
        resume(experiment)
        return
    console = Console(stderr=True)
    for line in check_before_trials(settings, task):
        console.print(line, style="dim", soft_wrap=True, markup=False, highlight=False)
    _finish(experiment, lambda: experiments.start_experiment(settings, task))


@app.command()
def resume(experiment: Experiment) -> None:
    """Go on with a search that was interrupted, stopped or killed."""
    from search.run.experiment import run_experiment

    _finish(experiment, lambda: run_experiment(experiment))


@app.command()
def show(experiment: Experiment) -> None:
    """Show what an experiment has found so far."""
    from search.history import load_history, shared_fingerprints
    from search.result import print_result

    history = load_history(experiment)
    console = Console()
    done = len(history.records)
    console.print(f"{history.config.get('name', experiment)}: {done} finished trials")
    for fingerprint, labels in shared_fingerprints(history).items():
        console.print(
            f"WARNING: {', '.join(labels)} have different thetas and trained alike "
            f"(fingerprint {fingerprint}): part of theta did not reach the loss.",
            style="bold red",
        )
    print_result(history, console)


@app.command()
def export(
    experiment: Experiment,
    out: Annotated[Path, typer.Option("--out", help="File to write.")] = Path("best.yaml"),
    trial: Annotated[
        str | None,
        typer.Option(help="A trial instead of the winner, such as search-003-05-0."),
    ] = None,
) -> None:
    """Write the training YAML of the winner, or of any trial."""
    from search.run.experiment import export_training

    export_training(experiment, out, trial)
    typer.echo(f"wrote {out}\nTrain with it: paploss train {out}")


@app.command()
def train(
    training_yaml: Annotated[Path, typer.Argument(help="best.yaml, or another training YAML.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for checkpoints and results.")
    ] = None,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="From the last checkpoint.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; chosen if not given.")] = None,
) -> None:
    """Train a detector in full with the loss of TRAINING_YAML, and score it."""
    from search.run.load import parse_overrides
    from trainers.datasets.check import check_dataset
    from trainers.export import read_training_yaml
    from trainers.retrain import retrain

    config = read_training_yaml(training_yaml, parse_overrides(overrides or []))
    for line in check_dataset(config.data).lines():
        typer.echo(line, err=True)
    folder = out or training_yaml.with_suffix("").absolute().parent / "training"
    results = retrain(config, folder, resume=resume, device=device)
    _print_scores(results)
    found = config.found_by.get("test_AP_mean")
    if found is not None:
        typer.echo(f"The search's own short trainings had test AP {found:.4f}.")
    typer.echo(f"Checkpoints and results.json: {folder}")


@app.command()
def doctor(
    storage: Annotated[
        Path | None, typer.Option(help="Also check this folder for experiments.")
    ] = None,
) -> None:
    """Check what an installation can get wrong, and say how to mend it."""
    from paploss.doctor import print_doctor, run_doctor

    raise typer.Exit(print_doctor(run_doctor(storage)))


@data_app.command()
def shapes(
    out: Out = Path("data/shapes"),
    train: Annotated[int, typer.Option(min=1, help="Images to train on.")] = 640,
    val: Annotated[int, typer.Option(min=1, help="Images that rewards come from.")] = 160,
    test: Annotated[int, typer.Option(min=1, help="Images that results come from.")] = 200,
    size: Annotated[int, typer.Option(min=32, help="Width and height in pixels.")] = 128,
    seed: int = 0,
) -> None:
    """Draw squares, circles and triangles: a data set to try paploss with."""
    from trainers.datasets.shapes import draw_shapes

    _print_data(draw_shapes(out, train=train, val=val, test=test, size=size, seed=seed))


@data_app.command()
def voc(
    folder: Annotated[Path, typer.Argument(help="With JPEGImages, Annotations, ImageSets/Main.")],
    out: Out,
) -> None:
    """Convert a PASCAL VOC folder; its images stay where they are."""
    from trainers.datasets.voc import convert_voc

    _print_data(convert_voc(folder, out))


@data_app.command("coco-split")
def coco_split(
    annotations: Annotated[Path, typer.Argument(help="instances_train2017.json")],
    out: Out,
    val_images: Annotated[int, typer.Option(min=1, help="Images to hold out.")] = 5000,
    seed: int = 0,
    images: Annotated[Path | None, typer.Option(help="Folder of the images.")] = None,
    test_annotations: Annotated[
        Path | None, typer.Option(help="The third split: instances_val2017.json")
    ] = None,
    test_images: Annotated[Path | None, typer.Option(help="Folder of the third split.")] = None,
) -> None:
    """Split COCO's training images into the search's training and validation sets."""
    from trainers.datasets.coco_split import split_coco

    summary = split_coco(
        annotations,
        out,
        val_images=val_images,
        seed=seed,
        images=images,
        test_annotations=test_annotations,
        test_images=test_images,
    )
    _print_data(summary)


def _finish(experiment: Path, run: Callable[[], object]) -> None:
    """`run` an experiment to its end and show the result."""
    from search.history import load_history
    from search.result import print_result

    run()
    print_result(load_history(experiment))


def _print_data(summary: dict[str, Any]) -> None:
    for name, counts in summary["splits"].items():
        typer.echo(f"{name:<13} {counts['images']:>7} images {counts['boxes']:>8} boxes")
    for note in summary["notes"]:
        typer.echo(note)
    if summary["dataset"]:
        typer.echo(f"Use it in a search with `data: {summary['dataset']}`.")


def _print_scores(results: Mapping[str, Any]) -> None:
    """Every metric of both held-out splits; a split may lack some."""
    val, test = results["val"], results["test"]
    typer.echo(f"{'':<9}{'val':>7}{'test':>8}")
    for name in dict.fromkeys([*val, *test]):
        left, right = (f"{split[name]:.4f}" if name in split else "-" for split in (val, test))
        typer.echo(f"{name:<9}{left:>7}{right:>8}")


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"paploss {paploss.__version__}")
        raise typer.Exit


def run_safely(command: Callable[[], None]) -> int:
    """Run `command`; what the user can mend becomes one message, without a traceback."""
    from search.run.experiment import Interrupted

    try:
        command()
    except SearchStopped as error:
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
