"""Which images of PASCAL VOC folders belong to which split: the lists in ImageSets/Main.

One folder keeps its own lists. Several are merged as the field's protocol "07+12" does it: the
trainval lists of all of them are for training, and what is published comes from the test list
(that of VOC2007; the one of VOC2012 has no public annotations). A search needs a val split of its
own, so some images of the merged trainval, drawn by a seed, become val, and the rest train.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from paploss.errors import BadData
from paploss.paths import stays_inside
from trainers.datasets.coco import SPLITS, split_off

LISTS = (*SPLITS, "trainval")
_MAIN = Path("ImageSets") / "Main"


class Place(NamedTuple):
    """An image: its folder, and its name there without suffix."""

    folder: Path
    stem: str


Lists = dict[str, list[Place]]


def lists_of_one(folder: Path) -> tuple[Lists, list[str]]:
    """(the folder's lists with train, val and test among them, what had to be done for that)."""
    lists, where = _read_lists(folder), folder / _MAIN
    if "train" not in lists:
        raise BadData(f"{where} has no train.txt. Write one: a name without suffix on each line.")
    missing = [split for split in ("val", "test") if split not in lists]
    if not missing:
        return lists, []
    if len(missing) == 2:
        raise BadData(
            f"{where} has neither val.txt nor test.txt, but a search takes its rewards from val "
            "and publishes numbers from test. Move some names of train.txt into them."
        )
    present = "test" if missing == ["val"] else "val"
    places = lists[present]
    if len(places) < 2:
        raise BadData(
            f"{where} has no {missing[0]}.txt, and {present}.txt has only one image, too few to "
            f"divide. Write {missing[0]}.txt, or list more images in {present}.txt."
        )
    half, rest = split_off(places, len(places) // 2, seed=0)
    note = (
        f"there is no {missing[0]}.txt: the {len(places)} images of {present}.txt were divided, "
        f"{len(rest)} for {present} and {len(half)} for {missing[0]}."
    )
    return {**lists, present: rest, missing[0]: half}, [note]


def lists_of_several(
    folders: Sequence[Path], val_images: int, seed: int
) -> tuple[Lists, list[str]]:
    """(train, val, test and trainval of all folders together, how they were made)."""
    trainval: list[Place] = []
    test: list[Place] = []
    notes = []
    for folder in folders:
        lists = _read_lists(folder)
        both = lists.get("trainval") or [*lists.get("train", []), *lists.get("val", [])]
        if not both:
            raise BadData(f"{folder / _MAIN} has neither trainval.txt nor train.txt. Add one.")
        trainval += both
        listed = lists.get("test", [])
        if listed and not any(_annotation(place).exists() for place in listed):
            notes.append(f"{folder.name}: its test list has no annotations and was left out.")
        else:
            test += listed
    if not test:
        raise BadData(
            f"none of {', '.join(map(str, folders))} has a test.txt in {_MAIN} with annotations, "
            "which the third split is made of. Unpack VOC2007's test set into its folder."
        )
    if not 1 <= val_images < len(trainval):
        raise BadData(
            f"val_images: got {val_images}, but the trainval lists have {len(trainval)} images; "
            "expected at least 1 for val and at least 1 left for train. Say --val-images."
        )
    val, train = split_off(trainval, val_images, seed)
    notes += [
        f"train and val: the trainval lists of {', '.join(f.name for f in folders)} together, "
        f"{len(trainval)} images, of which {val_images} were drawn for val (seed {seed}); a "
        "reward comes from these.",
        "test: the test list of " + ", ".join(dict.fromkeys(p.folder.name for p in test)) + ".",
        "trainval.json has train and val together, for a training that is no search.",
    ]
    return {"train": train, "val": val, "test": test, "trainval": trainval}, notes


def _annotation(place: Place) -> Path:
    return place.folder / "Annotations" / f"{place.stem}.xml"


def _read_lists(folder: Path) -> Lists:
    lists = {}
    for split in LISTS:
        path = folder / _MAIN / f"{split}.txt"
        if not path.is_file():
            continue
        try:
            lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise BadData(
                f"cannot read {path}: {error}. Expected a name of an image on each line, in UTF-8."
            ) from error
        lists[split] = [Place(folder, line) for line in dict.fromkeys(lines) if line]
        outside = next((p.stem for p in lists[split] if not stays_inside(p.stem)), None)
        if outside is not None:
            raise BadData(
                f"{path} lists {outside!r}, which leads out of the folder. Expected names of "
                "images, without a path and suffix: mend or remove the line."
            )
        if not lists[split]:
            raise BadData(f"{path} lists no image. Fill it, or delete it to do without it.")
    return lists
