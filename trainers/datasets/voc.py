"""A PASCAL VOC folder as COCO instances; the images stay where they are.

Three conventions where the formats differ:

- Boxes: x = xmin, y = ymin, width = xmax - xmin, height = ymax - ymin, in the coordinates as
  they are written. The original devkit counts pixels from 1 and includes the last one, which
  this moves by up to one pixel; most sets made since (BCCD among them) do not count so, and a
  file does not say which it is.
- `difficult` objects are neither found nor missed in VOC's evaluation and are left out of its
  training. Here they get `ignore: 1`, which mmdet's training skips, and `iscrowd: 1`, because
  the COCO evaluators overwrite `ignore` by `iscrowd` and would count them as missed without it.
- XML is not trusted: a document type, the door to entities, is refused.
"""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from paploss.errors import BadData
from trainers.datasets.coco import (
    DATASET_FILE,
    SPLITS,
    DataConfig,
    SplitConfig,
    already_made,
    split_off,
    write_coco,
    write_dataset_yaml,
    writing_to,
)

_LISTS = (*SPLITS, "trainval")
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")


class _Object(NamedTuple):
    name: str
    box: NDArray[np.float64]  # [4] x1, y1, x2, y2
    difficult: bool


class _Image(NamedTuple):
    file_name: str
    width: int
    height: int
    objects: list[_Object]
    counts: Counter[str]  # what was dropped and clipped


def convert_voc(folder: Path, out: Path) -> dict[str, Any]:
    """Write `out`/{train,val,test}.json and `out`/dataset.yaml for the VOC folder `folder`.

    The lists ImageSets/Main/{train,val,test,trainval}.txt become one file each. A search needs
    three splits: where either val or test is missing, the other is divided into two halves
    (drawn by a fixed seed), and the notes say so. Boxes are clipped to their image; those
    without width or height are dropped. Classes are those of the annotations, sorted.

    Returns:
        dataset (path of dataset.yaml), classes, splits ({name: {images, boxes}}), boxes over all
        images: degenerate (dropped), clipped, difficult, and notes (lines for the user).

    Raises:
        BadData: the folder is not VOC, has no train list or neither val nor test, an image or
            an XML file is missing or cannot be read, or `out` holds another data set.
    """
    folder, out = Path(folder), Path(out)
    photos = _photos(folder)
    lists, notes = _three_splits(_read_lists(folder), folder)
    source: dict[str, str | int] = {"made_by": "voc", "folder": str(folder.resolve())}
    already_made(out, source)
    # A stem may be in several lists (trainval), so every image is read once.
    images = {stem: _read_image(folder, stem, photos) for stems in lists.values() for stem in stems}
    classes = sorted({item.name for image in images.values() for item in image.objects})
    if not classes:
        raise BadData(f"no image of {folder} has a usable box. Check the XML files' <bndbox>.")
    splits = {}
    for split, stems in lists.items():
        coco = _to_coco([images[stem] for stem in stems], classes)
        with writing_to(out):
            write_coco(out / f"{split}.json", coco)
        splits[split] = {"images": len(coco["images"]), "boxes": len(coco["annotations"])}
    config = {
        split: SplitConfig(annotations=out / f"{split}.json", images=folder / "JPEGImages")
        for split in SPLITS
    }
    data = DataConfig(name=folder.resolve().name, classes=classes, source=source, **config)
    with writing_to(out):
        write_dataset_yaml(out / DATASET_FILE, data)
    counts = sum((image.counts for image in images.values()), Counter())
    return {
        "dataset": str(out / DATASET_FILE),
        "classes": classes,
        "splits": splits,
        **{what: counts[what] for what in ("degenerate", "clipped", "difficult")},
        "notes": notes,
    }


def _photos(folder: Path) -> dict[str, str]:
    """{stem: file name} of JPEGImages."""
    for needed in ("JPEGImages", "Annotations", "ImageSets/Main"):
        if not (folder / needed).is_dir():
            raise BadData(
                f"{folder} is not a PASCAL VOC folder: it has no {needed}. Give the folder that "
                "holds JPEGImages, Annotations and ImageSets/Main (VOCdevkit/VOC2012, say)."
            )
    names = sorted(entry.name for entry in (folder / "JPEGImages").iterdir())
    return {Path(n).stem: n for n in names if Path(n).suffix.lower() in _IMAGE_SUFFIXES}


def _read_lists(folder: Path) -> dict[str, list[str]]:
    lists = {}
    for split in _LISTS:
        path = folder / "ImageSets" / "Main" / f"{split}.txt"
        if not path.is_file():
            continue
        lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
        lists[split] = list(dict.fromkeys(line for line in lines if line))
        if not lists[split]:
            raise BadData(f"{path} lists no image. Fill it, or delete it to do without it.")
    return lists


def _three_splits(
    lists: dict[str, list[str]], folder: Path
) -> tuple[dict[str, list[str]], list[str]]:
    """The lists with train, val and test among them, and what had to be done for that."""
    where = folder / "ImageSets" / "Main"
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
    stems = lists[present]
    if len(stems) < 2:
        raise BadData(
            f"{where} has no {missing[0]}.txt, and {present}.txt has only one image, too few to "
            f"divide. Write {missing[0]}.txt, or list more images in {present}.txt."
        )
    half, rest = split_off(stems, len(stems) // 2, seed=0)
    note = (
        f"there is no {missing[0]}.txt: the {len(stems)} images of {present}.txt were divided, "
        f"{len(rest)} for {present} and {len(half)} for {missing[0]}."
    )
    return {**lists, present: rest, missing[0]: half}, [note]


def _to_coco(images: list[_Image], classes: list[str]) -> dict[str, Any]:
    coco: dict[str, Any] = {"images": [], "annotations": []}
    for number, image in enumerate(images, start=1):
        coco["images"].append(
            {"id": number, **{key: getattr(image, key) for key in ("file_name", "width", "height")}}
        )
        for item in image.objects:
            x1, y1, x2, y2 = item.box.tolist()
            annotation = {
                "id": len(coco["annotations"]) + 1,
                "image_id": number,
                "category_id": classes.index(item.name) + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": (x2 - x1) * (y2 - y1),
                "iscrowd": int(item.difficult),
                "ignore": int(item.difficult),
            }
            coco["annotations"].append(annotation)
    coco["categories"] = [{"id": i, "name": name} for i, name in enumerate(classes, start=1)]
    return coco


def _read_image(folder: Path, stem: str, photos: dict[str, str]) -> _Image:
    if stem not in photos:
        raise BadData(
            f"ImageSets/Main lists {stem!r}, but {folder / 'JPEGImages'} has no such image "
            f"({', '.join(_IMAGE_SUFFIXES)}). Add the image, or remove the line."
        )
    path, photo = folder / "Annotations" / f"{stem}.xml", folder / "JPEGImages" / photos[stem]
    root = _read_xml(path)
    objects = [_read_object(path, element) for element in root.findall("object")]
    width, height = (_read_side(root, side) for side in ("width", "height"))
    furthest = np.max([item.box[2:] for item in objects], axis=0, initial=0)
    # Reading 20,000 photographs takes minutes, so only a size that cannot be right is checked.
    if min(width, height) < 1 or (furthest > (width, height)).any():
        width, height = _measure(photo)
    kept, counts = [], Counter[str]()
    for item in objects:
        box = item.box.clip(0, (width, height, width, height))
        if (box[2:] <= box[:2]).any():
            counts["degenerate"] += 1
            continue
        counts["clipped"] += int((box != item.box).any())
        counts["difficult"] += int(item.difficult)
        kept.append(item._replace(box=box))
    return _Image(photo.name, width, height, kept, counts)


class _NoDoctype(ElementTree.TreeBuilder):
    """Refuses a document type where it begins, before any entity of it is read."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it declares a document type (<!DOCTYPE>), which is not accepted")


def _read_xml(path: Path) -> ElementTree.Element:
    try:
        parser = ElementTree.XMLParser(target=_NoDoctype())
        root = ElementTree.fromstring(path.read_bytes(), parser)
        if root.tag != "annotation":
            raise ValueError(f"its root is <{root.tag}>, not <annotation>")
        return root
    except OSError as error:
        raise BadData(
            f"cannot read {path}: {error.strerror}. Every listed image needs its XML file: add "
            "it, or remove the line from ImageSets/Main."
        ) from error
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise BadData(
            f"{path} cannot be read as a VOC annotation: {error}. Mend the file, or remove its "
            "line from ImageSets/Main."
        ) from error


def _read_object(path: Path, element: ElementTree.Element) -> _Object:
    name = (element.findtext("name") or "").strip()
    corners = [element.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
    try:
        box = np.array([float(corner or "") for corner in corners])
        difficult = bool(int(element.findtext("difficult") or 0))
    except ValueError:
        box, difficult = np.full(4, np.nan), False
    if not name or not np.isfinite(box).all():
        raise BadData(
            f"{path} has an object {name!r} with the box {corners}; expected a name, numbers for "
            "xmin, ymin, xmax, ymax, and difficult 0 or 1. Mend or remove the object."
        )
    return _Object(name, box, difficult)


def _read_side(root: ElementTree.Element, side: str) -> int:
    """The size as the XML has it; 0 where it has none."""
    try:
        return int(root.findtext(f"size/{side}") or 0)
    except ValueError:
        return 0


def _measure(photo: Path) -> tuple[int, int]:
    """(width, height) of an image file."""
    import cv2

    image = cv2.imread(str(photo), cv2.IMREAD_COLOR)
    if image is None:
        raise BadData(
            f"{photo} cannot be read as an image, and its XML does not give a size that holds "
            "its boxes. Replace the file, or remove its line from ImageSets/Main."
        )
    return image.shape[1], image.shape[0]
