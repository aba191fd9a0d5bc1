"""What travels to the cluster: the working folder, without what has no place there."""

import logging
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from paploss.errors import BadConfig

EXCLUDED = (
    # Folders of tools and caches, at any depth.
    ".git", ".venv", "venv", "__pycache__", "*.egg-info", ".*_cache", ".hypothesis", ".tox",
    ".ipynb_checkpoints", "node_modules", ".DS_Store",
    # What data sets and runs leave, at the top.
    "/data", "/experiments", "/trainings", "/mlruns", "/wandb", "/build", "/dist",
    # Weights.
    "*.pth", "*.pt", "*.ckpt", "*.safetensors",
    # Secrets.
    ".env", ".env.*", ".netrc", ".ssh", ".aws", ".kube", ".ray", "*.pem", "auth_token",
)  # fmt: skip
"""Patterns as in a .gitignore; a .gitignore and a .rayignore in the folder add to them."""
LIMIT = 500 * 2**20
"""Bytes that Ray takes, measured here before the compression, which data hardly gain from."""
_CODE = (Path("paploss/__init__.py"), Path("search/cli.py"), Path("trainers/__init__.py"))


@dataclass(frozen=True)
class Upload:
    """The files of a folder that travel.

    Attributes:
        folder: absolute.
        files: bytes of each, by its path in the folder.
        excludes: the patterns for Ray's `excludes`.
    """

    folder: Path
    files: Mapping[Path, int]
    excludes: tuple[str, ...]

    @property
    def size(self) -> int:
        return sum(self.files.values())

    @property
    def has_paploss(self) -> bool:
        """Whether paploss's own code is among them: the cluster then runs it."""
        return all(path in self.files for path in _CODE)

    def holds(self, path: Path) -> bool:
        """Whether the file, or something in the folder, at an absolute `path` travels."""
        if not path.is_relative_to(self.folder):
            return False
        inside = path.relative_to(self.folder)
        return inside in self.files or any(file.is_relative_to(inside) for file in self.files)

    def __str__(self) -> str:
        count = f"{len(self.files)} file{'' if len(self.files) == 1 else 's'}"
        return f"{self.folder} ({count}, {megabytes(self.size)})"


def plan_upload(folder: Path, secret: Path | None = None) -> Upload:
    """What of `folder` would travel: by `EXCLUDED`, its .gitignore and its .rayignore.

    Args:
        secret: a file that never travels, such as the token's.

    Raises:
        BadConfig: no folder, one that cannot be read, the whole home, too big for Ray.
    """
    # Ray's own walk, so that what is counted here is what Ray packs.
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    folder = Path(os.path.abspath(folder))
    if not folder.is_dir():
        raise BadConfig(f"--working-dir {folder}: expected a folder.")
    if folder in (Path.home(), Path(folder.anchor)):
        raise BadConfig(
            f"--working-dir {folder} would upload all that is in it. Give the folder of your "
            "project: --working-dir FOLDER."
        )
    excludes: tuple[str, ...] = EXCLUDED
    if secret is not None and secret.absolute().is_relative_to(folder):
        excludes = (*excludes, f"/{secret.absolute().relative_to(folder).as_posix()}")
    files: dict[Path, int] = {}

    def count(path: Path) -> None:
        if path.is_file():
            files[path.relative_to(folder)] = path.stat().st_size

    quiet = logging.Logger(__name__, logging.CRITICAL)  # the walk would name each ignore file
    heed_gitignore = os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "0") != "1"
    matcher = [_get_excludes(folder, list(excludes))]
    try:
        _dir_travel(folder, matcher, count, include_gitignore=heed_gitignore, logger=quiet)
    except OSError as error:
        raise BadConfig(
            f"--working-dir {folder}: cannot read {error.filename}: {error.strerror}. Exclude it "
            "in a .rayignore file there (a line as in .gitignore)."
        ) from error
    upload = Upload(folder, files, excludes)
    if upload.size > LIMIT:
        raise BadConfig(_too_big(upload))
    return upload


def megabytes(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 100_000 else f"{count / 2**10:.1f} KiB"


def _too_big(upload: Upload) -> str:
    folders: Counter[str] = Counter()
    for path, size in upload.files.items():
        folders["/".join(path.parts[:2]) if len(path.parts) > 2 else str(path)] += size
    rows = [f"  {megabytes(size):>12}  {name}" for name, size in folders.most_common(5)]
    return (
        f"--working-dir {upload.folder}: {megabytes(upload.size)} would be uploaded; Ray takes "
        f"{megabytes(LIMIT)}. The largest are:\n" + "\n".join(rows) + "\nExclude them in a "
        ".rayignore file there (lines as in .gitignore). Data sets belong on storage that the "
        "cluster's machines see."
    )
