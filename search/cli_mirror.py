"""`paploss restore`: an experiment back from its mirror."""

from pathlib import Path
from typing import Annotated

import typer


def restore(
    uri: Annotated[str, typer.Argument(help="Where it was mirrored: s3://bucket/folder/NAME.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="New folder; experiments/NAME if not given.")
    ] = None,
) -> None:
    """Bring an experiment back from its mirror, to go on with `paploss resume`."""
    from search.mirror_uri import check_mirror_uri, last_name
    from search.run.restore import restore_from_mirror

    uri = check_mirror_uri(uri)
    folder = out or Path("experiments") / (last_name(uri) or "restored")
    trials = restore_from_mirror(uri, folder)
    typer.echo(f"finished trials back in {folder}: {trials}\nNext:\n  paploss resume {folder}")
