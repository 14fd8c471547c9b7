"""The mean average precision of what a detector found, over all images and with some left out."""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from trainscope.errors import TaskError

Pair = tuple[Mapping[str, Tensor], Mapping[str, Tensor]]
"""Of one image: what was found (boxes, scores, labels), and what there is (boxes, labels ...)."""
Pairs = Sequence[Pair]

MOST_FOUND = 100
"""Boxes of an image that count, the surest ones, as for COCO."""
_MISSING = (
    "mAP is computed by torchmetrics and pycocotools, which are not installed: pip install "
    "'trainscope-pruning[detection]'"
)


def can_measure() -> None:
    """Check that mAP can be computed here.

    Raises:
        TaskError: torchmetrics or pycocotools is not installed.
    """
    _needed("torchmetrics.detection"), _needed("pycocotools.cocoeval")


def average_precision(pairs: Pairs) -> float:
    """Return the mAP over IoU thresholds from 0.5 to 0.95, percent; NaN where there is no box."""
    if not pairs:
        return math.nan
    measured = _measured()
    measured.update([found for found, _ in pairs], [there for _, there in pairs])
    found = float(measured.compute()["map"])
    return 100.0 * found if found >= 0 else math.nan


def with_each_left_out(groups: Sequence[Pairs]) -> list[float]:
    """Return the mAP without each of several groups of images, percent.

    What was found is matched to what there is once for all groups, which is nearly all of the
    work; the thresholds are torchmetrics', which are rounded to float32.
    """
    pairs = [pair for group in groups for pair in group]
    owner = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    cocoeval = _needed("pycocotools.cocoeval")
    with contextlib.redirect_stdout(io.StringIO()):  # it tells of its steps
        whole = cocoeval.COCOeval(*_as_coco(pairs), iouType="bbox")
        like = _measured()
        whole.params.iouThrs = np.asarray(like.iou_thresholds)
        whole.params.recThrs = np.asarray(like.rec_thresholds)
        whole.params.areaRng, whole.params.areaRngLbl = [[0, math.inf]], ["all"]
        whole.params.maxDets = [MOST_FOUND]
        whole.evaluate()
        return [_of_some(whole, np.flatnonzero(owner != i)) for i in range(len(groups))]


def _of_some(whole: Any, places: Any) -> float:
    """Return the mAP of some of the images that were matched."""
    some, images = copy.copy(whole), len(whole.params.imgIds)
    some.params, some._paramsEval = copy.copy(whole.params), copy.copy(whole._paramsEval)
    some.params.imgIds = some._paramsEval.imgIds = places.tolist()
    kinds = range(len(whole.params.catIds))
    some.evalImgs = [whole.evalImgs[kind * images + place] for kind in kinds for place in places]
    some.accumulate()
    precision = some.eval["precision"]  # -1 for a kind of which there is no box
    there = precision[precision > -1]
    return 100.0 * float(there.mean()) if there.size else math.nan


def _as_coco(pairs: Pairs) -> Iterator[Any]:
    """Yield what there is and what was found as pycocotools' objects."""
    kinds = {int(label) for pair in pairs for half in pair for label in half["labels"]}
    for side in (1, 0):
        rows: list[dict[str, Any]] = []
        for image, pair in enumerate(pairs):
            half, boxes = pair[side], pair[side]["boxes"].clone()
            boxes[:, 2:] -= boxes[:, :2]  # to width and height
            for i, box in enumerate(boxes.tolist()):
                row = {"id": len(rows) + 1, "image_id": image, "bbox": box}
                row |= {"category_id": int(half["labels"][i]), "area": box[2] * box[3]}
                row["iscrowd"] = int(half["iscrowd"][i]) if "iscrowd" in half else 0
                rows.append(row | ({"score": float(half["scores"][i])} if side == 0 else {}))
        coco = _needed("pycocotools.coco").COCO()
        coco.dataset = {
            "images": [{"id": image} for image in range(len(pairs))],
            "categories": [{"id": kind} for kind in sorted(kinds)],
            "annotations": rows,
        }
        coco.createIndex()
        yield coco


def _measured() -> Any:
    """Return torchmetrics' metric."""
    found = _needed("torchmetrics.detection").MeanAveragePrecision(iou_type="bbox")
    found.warn_on_many_detections = False  # 100 an image count, as for COCO
    return found


def _needed(name: str) -> Any:
    """Import a module of the extra.

    Raises:
        TaskError: It is not installed.
    """
    try:
        importlib.import_module("pycocotools")
        return importlib.import_module(name)
    except ImportError as error:
        raise TaskError(_MISSING) from error
