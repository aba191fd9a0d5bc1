"""Runs on the cluster, for `paploss jobs fetch`: prints an experiment's results as text.

A jobs server has no downloads, but logs: the small files of the experiment go into a tar, and its
base64 between two marks into the log. It needs nothing but Python, so that it runs on any cluster.
"""

import base64
import hashlib
import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

BEGIN, END, PROBLEM = "-----BEGIN PAPLOSS RESULTS", "-----END PAPLOSS RESULTS", "paploss-problem:"
FILES = (
    "config.yaml", "space.json", "best.yaml", "report.html", "history.csv", "summary.json",
    "status.json", "events.jsonl",
)  # fmt: skip
FOLDERS = ("journal", "policy", "samples")
_LINE = 1900  # characters; ten lines are one message of Ray's log server


class TooMuch(Exception):
    """The results are larger than asked for."""


def pack(experiment: Path, most: int) -> bytes:
    """The experiment's results as a compressed tar, without what its trials leave.

    Args:
        most: bytes, before the compression.

    Raises:
        FileNotFoundError: there is no experiment.
        TooMuch: it has more than that.
    """
    if not (experiment / "config.yaml").is_file():
        raise FileNotFoundError(experiment)
    packed, total = io.BytesIO(), 0
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for path in _results(experiment):
            content = path.read_bytes()  # whole: the search may write beside us
            total += len(content)
            if total > most:
                raise TooMuch(
                    f"{experiment} has more than {most / 2**20:.0f} MiB of results: copy its "
                    "folder from the storage instead"
                )
            entry = tarfile.TarInfo(path.relative_to(experiment).as_posix())
            entry.size, entry.mtime = len(content), path.stat().st_mtime
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def lines_of(packed: bytes) -> Iterator[str]:
    """The text that stands for `packed`: base64 between the marks, and its SHA-256."""
    text = base64.b64encode(packed).decode()
    yield BEGIN
    yield from (text[at : at + _LINE] for at in range(0, len(text), _LINE))
    yield f"{END} {hashlib.sha256(packed).hexdigest()}"


def main(experiment: str, most: str) -> int:
    try:
        packed = pack(Path(experiment), int(most))
    except FileNotFoundError:
        print(PROBLEM, f"there is no experiment at {experiment}, as the cluster's head sees it")
        return 2
    except (OSError, TooMuch) as error:
        print(PROBLEM, error)
        return 2
    print("\n".join(lines_of(packed)))
    return 0


def _results(experiment: Path) -> Iterator[Path]:
    yield from (path for name in FILES if (path := experiment / name).is_file())
    for folder in FOLDERS:
        yield from sorted((experiment / folder).glob("*.json"))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
