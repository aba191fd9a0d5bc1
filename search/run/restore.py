"""An experiment brought back from its mirror, so that it can be resumed."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from paploss.errors import BadExperiment
from search.mirror_uri import check_mirror_uri
from search.run.remote import Connect, get, one_line, open_remote, remote_names


def restore_from_mirror(uri: str, folder: Path, connect: Connect | None = None) -> int:
    """Copy the experiment at `uri` into the new `folder`, whole or not at all.

    Only files that a mirror writes are taken, under the names it gives them.

    Returns:
        How many finished trials came back.

    Raises:
        BadConfig: `uri` is no address of a mirror.
        BadExperiment: the folder is taken or cannot be written, the mirror cannot be read, or there
            is no experiment in it.
    """
    uri = check_mirror_uri(uri)
    folder = folder.absolute()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise BadExperiment(
            f"{folder} exists already and is left as it is. Give another folder with `--out`; or, "
            f"if nothing is missing there, go on with `paploss resume {folder}`."
        )
    try:
        filesystem, root = (connect or open_remote)(uri)
        names = remote_names(filesystem, root)
    except Exception as error:  # whatever a storage raises
        raise _unreadable(uri, error) from error
    if "config.yaml" not in names:
        raise BadExperiment(
            f"{uri} holds no experiment: it has no config.yaml. Give the folder that is named like "
            "the experiment: what `mirror:` says, and the experiment's name."
        )
    with _folder_beside(folder) as beside:
        for name in names:
            try:
                data = get(filesystem, f"{root}/{name}")
            except Exception as error:
                raise _unreadable(uri, error) from error
            (beside / name).parent.mkdir(exist_ok=True)
            (beside / name).write_bytes(data)
    return sum(name.startswith("journal/") for name in names)


@contextlib.contextmanager
def _folder_beside(folder: Path) -> Iterator[Path]:
    """A new folder that becomes `folder` when the block ends without an exception."""
    beside = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        yield beside
        os.chmod(beside, 0o755)
        os.replace(beside, folder)
    except OSError as error:
        raise BadExperiment(
            f"cannot write {folder}: {error.strerror}. Give another folder with `--out`, or make "
            "room there."
        ) from error
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)


def _unreadable(uri: str, error: Exception) -> BadExperiment:
    return BadExperiment(
        f"cannot read {uri}: {one_line(error)}. Check the address, the network, and the "
        "credentials in the environment."
    )
