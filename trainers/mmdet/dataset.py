"""A COCO data set that survives corrupt images, and can keep decoded ones in memory."""

import copy
import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import Compose
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS

from paploss.errors import BadData
from paploss.paths import stays_inside
from trainers.fidelity import some_of

_UNREADABLE = (AssertionError, OSError, ValueError, cv2.error)


@DATASETS.register_module()
class TrialDataset(CocoDataset):
    """mmdet's COCO data set, with a pipeline in two parts.

    Args:
        prepare: transforms without chance (load, resize); what they give may be kept.
        pipeline: the rest (augment, pack), run each time.
        cache: keep what `prepare` gave for every image.
        with_mask: every box has to come with the mask of its object.
        part, most: use some of the images only, see `trainers.fidelity.some_of`.
        skipped: a file that gets one line of JSON for each image that cannot be read. Such an
            image is replaced by another one in training, and left out of the score in testing.
    """

    def __init__(
        self,
        *args: Any,
        prepare: list[dict[str, Any]],
        cache: bool = False,
        with_mask: bool = False,
        part: float = 1.0,
        most: int | None = None,
        skipped: str | None = None,
        **kwargs: Any,
    ) -> None:
        self._prepare = Compose(prepare)
        self._cache: dict[int, dict[str, Any]] | None = {} if cache else None
        self._with_mask = with_mask
        self._part, self._most = part, most
        self._skipped = skipped
        self._unreadable: set[int] = set()
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """As mmdet's.

        Raises:
            BadData: a box without a mask where masks are to be trained on; an image outside of the
                folder of images.
        """
        images: list[dict[str, Any]] = super().load_data_list()
        folder = os.path.join(self.data_prefix["img"], "")
        for image in images:
            path = image["img_path"]
            if not path.startswith(folder) or not stays_inside(path.removeprefix(folder)):
                raise BadData(
                    f"{self.ann_file}: the image {path} is not in {folder}. `paploss "
                    "data check` says more."
                )
        for image in images if self._with_mask else ():
            if any("mask" not in instance for instance in image["instances"]):
                raise BadData(
                    f"{self.ann_file}: image {image['img_id']} has an annotation without a "
                    "`segmentation`, but the detector has a mask head. Take a data set with masks, "
                    "or a detector without a mask head."
                )
        return images

    def filter_data(self) -> list[dict[str, Any]]:
        """Of the images that mmdet's filter leaves, those of this fidelity."""
        images: list[dict[str, Any]] = super().filter_data()
        return [images[k] for k in some_of(len(images), self._part, self._most)] if images else []

    def prepare_data(self, idx: int) -> Any:
        """The packed image, or None: mmengine then takes another one at random."""
        prepared = None if idx in self._unreadable else self._prepared(idx)
        if prepared is None:
            if not self.test_mode:
                return None
            prepared = self._blank(idx)
        return self.pipeline(prepared)

    def _prepared(self, idx: int) -> dict[str, Any] | None:
        if self._cache is not None and idx in self._cache:
            return copy.deepcopy(self._cache[idx])
        info = self.get_data_info(idx)
        try:
            prepared: dict[str, Any] = self._prepare(info)
        except _UNREADABLE as error:
            self._unreadable.add(idx)
            self._report(info["img_path"], error)
            return None
        prepared["unreadable"] = False
        if self._cache is not None:
            self._cache[idx] = copy.deepcopy(prepared)
        return prepared

    def _blank(self, idx: int) -> dict[str, Any]:
        """A grey stand-in, so that a batch keeps its size; marked, and never scored."""
        info = self.get_data_info(idx)
        shape = (info["height"], info["width"])
        blank = np.full((*shape, 3), 114, np.uint8)
        info |= {"img": blank, "img_shape": shape, "ori_shape": shape}
        prepared: dict[str, Any] = Compose(self._prepare.transforms[-1:])(info)
        prepared["unreadable"] = True
        return prepared

    def _report(self, path: str, error: Exception) -> None:
        # A line in a file also arrives from the processes that load images.
        if self._skipped:
            line = json.dumps({"image": path, "error": " ".join(str(error).split())[:200]})
            with Path(self._skipped).open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def read_skipped(path: Path) -> dict[str, str]:
    """Unreadable images, by path, with the reason."""
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {line["image"]: line["error"] for line in lines}
