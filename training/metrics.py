"""Scores of detectors on a list of frames.

In: frames and their predictions, boxes in pixels of each frame. Out: AP per class, computed by
pycocotools so that the numbers compare with others', and precision and recall at a threshold.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def average_precision(frames, predictions: list[dict], classes: list[str]) -> dict[str, dict[str, float]]:
    """AP at IoU 0.5 and over 0.5:0.95 of each class that occurs in `frames`.

    A prediction: `labels` int [n], `scores` float [n], `boxes_xyxy` float [n, 4].
    """
    annotations, results = [], []
    for image_id, (frame, found) in enumerate(zip(frames, predictions)):
        height, width = frame.image.shape
        for label, box in zip(frame.labels, frame.boxes_xyxy.tolist()):
            if label in classes:
                w, h = box[2] - box[0], box[3] - box[1]
                row = {"id": len(annotations) + 1, "image_id": image_id, "category_id": classes.index(label)}
                annotations.append(row | {"bbox": [box[0], box[1], w, h], "area": w * h, "iscrowd": 0})
        boxes = np.asarray(found["boxes_xyxy"], np.float64).clip(0, [width, height, width, height])
        for label, score, box in zip(found["labels"], found["scores"], boxes):
            box = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            results.append({"image_id": image_id, "category_id": int(label), "score": float(score), "bbox": box})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(len(frames))],
            "categories": [{"id": i, "name": name} for i, name in enumerate(classes)],
            "annotations": annotations,
        }
        truth.createIndex()
        scores = {}
        for index, name in enumerate(classes):
            if not any(a["category_id"] == index for a in annotations):
                continue
            if not results:
                scores[name] = {"AP50": 0.0, "AP": 0.0}
                continue
            evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
            evaluation.params.catIds = [index]
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            scores[name] = {"AP50": float(evaluation.stats[1]), "AP": float(evaluation.stats[0])}
    return scores


def overlaps(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of one box with each of `others`, all xyxy."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = (high - low).clip(0).prod(1)
    return shared / ((box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(1) - shared)


def precision_recall(frames, predictions: list[dict], label: str, index: int, threshold: float) -> tuple[float, float]:
    """What a user sees at a score threshold: the best predictions first take the objects that they overlap
    by half or more; a second box on one object is wrong. A precision of nothing predicted is nan."""
    hits = predicted = present = 0
    for frame, found in zip(frames, predictions):
        truth = frame.boxes_xyxy[[i for i, name in enumerate(frame.labels) if name == label]]
        free = np.ones(len(truth), bool)
        chosen = (found["labels"] == index) & (found["scores"] >= threshold)
        order = np.argsort(-found["scores"][chosen], kind="stable")
        for box in found["boxes_xyxy"][chosen][order]:
            iou = overlaps(box, truth) * free
            if len(iou) and iou.max() >= 0.5:
                free[iou.argmax()] = False
                hits += 1
        predicted, present = predicted + int(chosen.sum()), present + len(truth)
    return hits / predicted if predicted else float("nan"), hits / max(1, present)
