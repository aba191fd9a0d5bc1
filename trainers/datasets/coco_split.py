"""The search's own train and val split of a COCO training set.

The published numbers of COCO come from val2017, so a search must not take its rewards there:
search_train and search_val are both drawn from train2017, and val2017 is left for `test`.
"""

import hashlib
from pathlib import Path
from typing import Any

from paploss.errors import BadData
from paploss.files import write_json
from trainers.datasets.coco import (
    DATASET_FILE,
    DataConfig,
    SplitConfig,
    already_made,
    read_coco,
    split_off,
    write_coco,
    write_dataset_yaml,
    writing_to,
)


def split_coco(
    annotations: Path,
    out: Path,
    *,
    val_images: int = 5000,
    seed: int = 0,
    images: Path | None = None,
    test_annotations: Path | None = None,
    test_images: Path | None = None,
) -> dict[str, Any]:
    """Divide a COCO instances file by image: `out`/search_train.json and `out`/search_val.json.

    Which images go where depends on (the file's image ids, val_images, seed) alone. Every image
    and every annotation is in exactly one of the two files, with its id; all else in the file
    (info, licenses, categories) is in both. manifest.json holds counts and SHA-256 hashes.

    Args:
        annotations: instances_train2017.json, say.
        val_images: images in search_val, at least 1 and fewer than the file has.
        images: the folder of the images. With it, `out`/dataset.yaml is written too.
        test_annotations: instances_val2017.json, say: the third split of dataset.yaml.
        test_images: its folder; by default the neighbour of `images` that it is named after
            (val2017 for instances_val2017.json).

    Returns:
        dataset (path of dataset.yaml, or None), classes, splits ({name: {images, boxes}}),
        manifest (path), notes (lines for the user).

    Raises:
        BadData: the file is not COCO instances or has too few images, the test split is
            missing although `images` is given, or `out` holds another data set.
    """
    annotations, out = Path(annotations), Path(out)
    test = _test_split(images, test_annotations, test_images)
    source: dict[str, str | int] = {
        "made_by": "coco-split",
        "annotations": str(annotations.resolve()),
        "val_images": val_images,
        "seed": seed,
    }
    already_made(out, source)
    coco = read_coco(annotations)
    parts = dict(zip(("search_train", "search_val"), _divide(coco, val_images, seed), strict=True))
    classes = [category["name"] for category in coco["categories"]]
    with writing_to(out):
        for name, part in parts.items():
            write_coco(out / f"{name}.json", part)
        counts = {
            name: {"images": len(part["images"]), "boxes": len(part["annotations"])}
            for name, part in parts.items()
        }
        _write_manifest(out, annotations, counts, val_images, seed)
        if images is not None and test is not None:
            train, val = (
                SplitConfig(annotations=out / f"{name}.json", images=images) for name in parts
            )
            data = DataConfig(
                name="coco", classes=classes, train=train, val=val, test=test, source=source
            )
            write_dataset_yaml(out / DATASET_FILE, data)
    notes = [] if test else ["no dataset.yaml was written: that needs the folder of the images."]
    return {
        "dataset": str(out / DATASET_FILE) if test else None,
        "classes": classes,
        "splits": counts,
        "manifest": str(out / "manifest.json"),
        "notes": notes,
    }


def _divide(coco: dict[str, Any], val_images: int, seed: int) -> tuple[dict[str, Any], ...]:
    """(train, val), the order of the file kept in both."""
    # Sorted, so that the same images in another order are divided in the same way.
    ids = sorted(image["id"] for image in coco["images"])
    if not 1 <= val_images < len(ids):
        raise BadData(
            f"val_images: got {val_images}, but the file has {len(ids)} images; expected at least "
            "1 for search_val and at least 1 left for search_train. Ask for fewer images."
        )
    val_ids = set(split_off(ids, val_images, seed)[0])

    def part(of_val: bool) -> dict[str, Any]:
        return {
            **coco,
            "images": [i for i in coco["images"] if (i["id"] in val_ids) == of_val],
            "annotations": [a for a in coco["annotations"] if (a["image_id"] in val_ids) == of_val],
        }

    return part(False), part(True)


def _test_split(
    images: Path | None, test_annotations: Path | None, test_images: Path | None
) -> SplitConfig | None:
    """The third split, or None where no dataset.yaml is asked for."""
    if images is None:
        if test_annotations is not None or test_images is not None:
            raise BadData(
                "a test split was given without the folder of the training images, so there is "
                "no dataset.yaml to name it in. Give both, or neither."
            )
        return None
    if test_annotations is None:
        raise BadData(
            "dataset.yaml needs a third split that no reward comes from. Give its annotations "
            "too (instances_val2017.json for COCO), or leave out the folder of the images."
        )
    test_annotations = Path(test_annotations)
    if test_images is None:
        test_images = Path(images).parent / test_annotations.stem.removeprefix("instances_")
    for path, what in ((test_annotations, "annotations"), (Path(test_images), "images")):
        if not path.exists():
            raise BadData(f"the {what} of the test split are not at {path}. Give their path.")
    return SplitConfig(annotations=test_annotations, images=test_images)


def _write_manifest(
    out: Path, annotations: Path, counts: dict[str, dict[str, int]], val_images: int, seed: int
) -> None:
    files = {
        f"{name}.json": {**count, "sha256": _sha256(out / f"{name}.json")}
        for name, count in counts.items()
    }
    source = {"file": annotations.name, "sha256": _sha256(annotations)}
    manifest = {"source": source, "val_images": val_images, "seed": seed, "files": files}
    write_json(out / "manifest.json", manifest)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
