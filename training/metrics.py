"""Scores of detectors: COCO's average precision on a list of frames.

In: frames and their predictions, boxes in pixels of each frame. Out: AP per class. Computed by
pycocotools, so the numbers compare with others'.
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
