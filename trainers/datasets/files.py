"""The image files of a split: where they are, and whether they can be opened."""

import os
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from paploss.paths import is_there
from trainers.datasets.coco import SplitConfig


def real_paths(split: str, config: SplitConfig, names: list[str]) -> tuple[list[str], list[str]]:
    """(where each image really is, links followed; what is wrong: a folder or images missing)."""
    if not is_there(config.images, folder=True):
        fault = (
            f"{split}: the image folder {config.images} does not exist. Correct `{split}.images`."
        )
        return [os.path.join(config.images, name) for name in names], [fault]
    # Listing a folder tells names and links at once: far cheaper than asking for 118,000 files.
    folders: dict[str, tuple[str, dict[str, bool]]] = {}
    paths, missing = [], []
    for name in names:
        folder, leaf = os.path.split(os.path.join(config.images, name))
        if folder not in folders:
            folders[folder] = _listing(folder)
        real, is_link = folders[folder]
        path = os.path.join(real, leaf)
        if is_link.get(leaf):
            path = os.path.realpath(path)
        if leaf not in is_link or (is_link[leaf] and not os.path.exists(path)):
            missing.append(name)
        paths.append(path)
    if not missing:
        return paths, []
    return paths, [
        f"{split}: images of {config.annotations} missing from {config.images}: "
        f"{len(missing):,} of {len(names):,}, the first is {missing[0]!r}. Correct "
        f"`{split}.images`, or add the files."
    ]


def _listing(folder: str) -> tuple[str, dict[str, bool]]:
    """(real path of a folder, {file name: whether it is a link}); nothing for no folder."""
    try:
        with os.scandir(folder) as entries:
            return os.path.realpath(folder), {entry.name: entry.is_symlink() for entry in entries}
    except OSError:
        return folder, {}


@dataclass(frozen=True)
class Opened:
    """What opening images has shown.

    Attributes:
        count: images that were opened, or tried.
        unreadable: {path: reason}; training leaves these out.
        other_size: {path: "W x H, but the annotations say W x H"}: their boxes are in the wrong
            place.
    """

    count: int
    unreadable: Mapping[str, str]
    other_size: Mapping[str, str]


def open_images(
    files: Mapping[str, tuple[float, float]], count: int | None, seed: int = 0
) -> Opened:
    """Decode images as training does, several at a time.

    Args:
        files: {path: (width, height) as the annotations say}; those that do not exist are passed
            over, as they are another fault.
        count: how many, drawn by `seed`; None: all.
    """
    paths = sorted(path for path in files if os.path.exists(path))
    if count is not None and count < len(paths):
        paths = random.Random(seed).sample(paths, count)
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        sizes = list(pool.map(_size, paths))
    unreadable, other_size = {}, {}
    for path, size in zip(paths, sizes, strict=True):
        if isinstance(size, str):
            unreadable[path] = size
        elif size != tuple(map(int, files[path])):
            told = " x ".join(f"{side:g}" for side in files[path])
            other_size[path] = f"{size[0]} x {size[1]}, but the annotations say {told}"
    return Opened(len(paths), unreadable, other_size)


def misplaced(split: str, opened: Opened) -> list[str]:
    """The images of another size than annotated, in one line, if there are any."""
    first = next(iter(opened.other_size), None)
    if first is None:
        return []
    return [
        f"{split}: images of another size than annotated: {len(opened.other_size):,} of "
        f"{opened.count:,} opened, the first is {Path(first).name} ({opened.other_size[first]}). "
        "Boxes are measured in the pixels that the annotations speak of, so these are in the "
        "wrong place. Correct width and height, or the boxes."
    ]


def unreadable(split: str, opened: Opened) -> list[str]:
    """The images that cannot be decoded, in one line, if there are any."""
    first = next(iter(opened.unreadable), None)
    if first is None:
        return []
    return [
        f"{split}: images that cannot be read: {len(opened.unreadable):,} of {opened.count:,} "
        f"opened (left out of training and scores), the first is {Path(first).name}: "
        f"{opened.unreadable[first]}."
    ]


def _size(path: str) -> tuple[int, int] | str:
    """(width, height) of an image, or why it has none."""
    import cv2
    import numpy as np

    try:
        content = np.fromfile(path, np.uint8)
    except OSError as error:
        return str(error.strerror)
    if not content.size:
        return "the file is empty"
    # As mmcv decodes: three channels, turned the way that EXIF says.
    image = cv2.imdecode(content, cv2.IMREAD_COLOR)
    return "it is no image, or cut short" if image is None else image.shape[1::-1]
