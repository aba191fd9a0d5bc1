"""The part of `paploss doctor` that loads what may crash: it runs in a process of its own.

One line of JSON a probe on standard output. Everything is imported by name, because whether it
can be imported is the question.
"""

import contextlib
import io
import json
import math
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

MARK = "paploss-probe "
Facts = dict[str, Any]


def torch_facts() -> Facts:
    torch = import_module("torch")
    devices = range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    return {
        "version": str(torch.__version__),
        "cuda": torch.version.cuda,
        "gpus": [torch.cuda.get_device_name(index) for index in devices],
    }


def ops_facts() -> Facts:
    """One compiled op, on the CPU and on the GPU where there is one."""
    torch = import_module("torch")
    ops = import_module("mmcv.ops")
    # Boxes 0 and 1 overlap with IoU 81 / 119 > 0.5, so box 1 goes; box 2 is far away.
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    facts: Facts = {"version": import_module("mmcv").__version__, "gpu_error": None}
    kept = ops.nms(boxes, scores, 0.5)[1].tolist()
    if kept != [0, 2]:
        raise RuntimeError(f"nms kept the boxes {kept} instead of [0, 2]")
    if torch.cuda.is_available():
        try:
            kept = ops.nms(boxes.cuda(), scores.cuda(), 0.5)[1].tolist()
            facts["gpu_error"] = None if kept == [0, 2] else f"nms kept the boxes {kept}"
        except Exception as error:
            facts["gpu_error"] = one_line(error)
    return facts


def mmdet_facts() -> Facts:
    import_module("mmengine.runner")
    import_module("mmdet.registry")
    return {"mmengine": release("mmengine"), "mmdet": release("mmdetection")}


def ray_facts() -> Facts:
    import_module("ray.tune")
    return {"version": import_module("ray").__version__}


def evaluator_facts() -> Facts:
    """AP of one image with two evaluators: a hit, a miss and a false alarm."""
    truth = {
        "info": {},
        "images": [{"id": 1, "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": 1, "bbox": box, "area": 400.0, "iscrowd": 0}
            for i, box in enumerate([[0.0, 0.0, 20.0, 20.0], [50.0, 50.0, 20.0, 20.0]], start=1)
        ],
    }
    found = [
        {"image_id": 1, "category_id": 1, "bbox": box, "score": score}
        for box, score in [([0.0, 0.0, 20.0, 20.0], 0.9), ([30.0, 0.0, 20.0, 20.0], 0.8)]
    ]

    def ap(coco: Any, evaluator: Any) -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            annotations = coco()
            annotations.dataset = json.loads(json.dumps(truth))
            annotations.createIndex()
            evaluation = evaluator(annotations, annotations.loadRes(found), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return float(evaluation.stats[0])

    slow = ap(
        import_module("pycocotools.coco").COCO, import_module("pycocotools.cocoeval").COCOeval
    )
    faster = import_module("faster_coco_eval")
    fast = ap(faster.COCO, faster.COCOeval_faster)
    # Recall reaches 1/2 with precision 1: 51 of the 101 recall points.
    if not math.isclose(slow, 51 / 101, abs_tol=1e-9) or not math.isclose(slow, fast, abs_tol=1e-9):
        raise RuntimeError(f"AP of a known result is {slow} and {fast} instead of {51 / 101}")
    return {"pycocotools": version("pycocotools"), "faster_coco_eval": version("faster-coco-eval")}


PROBES: dict[str, Callable[[], Facts]] = {
    "torch": torch_facts,
    "ops": ops_facts,
    "mmdet": mmdet_facts,
    "ray": ray_facts,
    "evaluators": evaluator_facts,
}


def release(name: str) -> str:
    """The version of a package of OpenMMLab's family, whoever publishes it."""
    for package in (f"onedl-{name}", name, {"mmdetection": "mmdet"}.get(name, name)):
        with contextlib.suppress(PackageNotFoundError):
            return version(package)
    return "of unknown version"


def one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]


def main(names: list[str]) -> None:
    for name in names:
        answer: Facts = {"probe": name, "error": None}
        try:
            answer["facts"] = PROBES[name]()
        except BaseException as error:  # whatever a broken package raises, even SystemExit
            answer["error"] = one_line(error)
        print(f"\n{MARK}{json.dumps(answer)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
