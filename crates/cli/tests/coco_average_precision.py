"""AP of pycocotools for boxes drawn by the test that started this: JSON in, JSON out.

In: a list of sets, each a list of frames `{"truth": [xyxy, …], "found": [[score, xyxy], …]}`.
Out: for each set AP50:95, AP50, and the precision at IoU 0.50 and recall 0, 0.01, …, 1.
"""

import contextlib
import io
import json
import sys

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def figures(frames):
    boxes = [(image, box) for image, frame in enumerate(frames) for box in frame["truth"]]
    found = [(image, *answer) for image, frame in enumerate(frames) for answer in frame["found"]]
    xywh = lambda b: [b[0], b[1], b[2] - b[0], b[3] - b[1]]
    annotations = [
        {"id": i + 1, "image_id": image, "category_id": 1, "bbox": xywh(b), "iscrowd": 0}
        | {"area": (b[2] - b[0]) * (b[3] - b[1])}
        for i, (image, b) in enumerate(boxes)
    ]
    results = [{"image_id": i, "category_id": 1, "score": score, "bbox": xywh(b)} for i, score, b in found]
    truth = COCO()
    images = [{"id": i} for i in range(len(frames))]
    truth.dataset = {"info": {}, "images": images, "categories": [{"id": 1}], "annotations": annotations}
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    curve = evaluation.eval["precision"][0, :, 0, 0, -1]
    return float(evaluation.stats[0]), float(evaluation.stats[1]), curve.tolist()


with contextlib.redirect_stdout(io.StringIO()):
    answer = [figures(frames) for frames in json.load(sys.stdin)]
print(json.dumps(answer))
