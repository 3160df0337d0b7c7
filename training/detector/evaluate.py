"""Score a detector on the held-out frames: average precision per data set and class, and
precision and recall at a threshold.

In: a training run's `last.pt`, or an exported `.safetensors`. Out: one line a set and class.

    python training/detector/evaluate.py weights/ultrasound-n.safetensors
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import augment  # noqa: E402
import data  # noqa: E402
import metrics  # noqa: E402
from model import DFine  # noqa: E402

CLASSES = ["nerve", "vessel"]


@torch.no_grad()
def predict(model: DFine, frames: list, side: int, top: int = 100) -> list[dict]:
    """Detections of each frame in its own pixels, the best `top` of all queries and classes."""
    predictions = []
    for frame in frames:
        image = torch.from_numpy(augment.plain(frame.image, side))[None, None].expand(1, 3, -1, -1)
        out = model(image.contiguous(memory_format=torch.channels_last))
        scores, index = out["pred_logits"][0].float().sigmoid().flatten().topk(top)
        query, labels = index // model.num_classes, index % model.num_classes
        cx, cy, w, h = out["pred_boxes"][0, query].float().unbind(-1)
        height, width = frame.image.shape
        boxes = torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], -1)
        boxes = boxes * torch.tensor([width, height, width, height])
        predictions.append({"labels": labels.numpy(), "scores": scores.numpy(), "boxes_xyxy": boxes.numpy()})
    return predictions


def kept(found: dict, max_overlap_iou: float) -> dict:
    """What the program shows of `found`: no box that overlaps a better one of any class by more."""
    boxes, chosen = found["boxes_xyxy"], []
    for i in np.argsort(-found["scores"], kind="stable"):
        if not chosen or metrics.overlaps(boxes[i], boxes[chosen]).max() <= max_overlap_iou:
            chosen.append(i)
    return {name: values[chosen] for name, values in found.items()}


def evaluate(
    model: DFine, frames: list, side: int, threshold: float = 0.5, max_overlap_iou: float = 1.0
) -> dict[str, dict[str, dict[str, float]]]:
    """Scores by data set and class: `AP50`, `AP`, and `precision`, `recall` at `threshold`. At a
    `max_overlap_iou` below 1, of what the program keeps."""
    predictions = predict(model, frames, side)
    if max_overlap_iou < 1:
        predictions = [kept(found, max_overlap_iou) for found in predictions]
    scores = {}
    for name in sorted({f.set_name for f in frames}):
        chosen = [i for i, f in enumerate(frames) if f.set_name == name]
        part = [frames[i] for i in chosen], [predictions[i] for i in chosen]
        scores[name] = metrics.average_precision(*part, CLASSES)
        for label, score in scores[name].items():
            pair = metrics.precision_recall(*part, label, CLASSES.index(label), threshold)
            score["precision"], score["recall"] = pair
    return scores


def load_model(path: Path) -> tuple[DFine, int]:
    """The detector of a training run (its EMA weights) or of an exported file, and its input side."""
    if path.suffix == ".pt":
        saved = torch.load(path, map_location="cpu", weights_only=True)
        size, side = saved["settings"]["size"], int(saved["settings"]["input"])
        state = saved["ema"]
    else:
        with safe_open(path, "pt") as file:
            meta = file.metadata()
            state = {name: file.get_tensor(name).float() for name in file.keys()}
        size, side = meta["architecture"].removeprefix("dfine_"), int(meta["input"])
    model = DFine(size, len(CLASSES), input_size=(side, side)).eval()
    own = model.state_dict()
    model.load_state_dict({name: state[name].to(own[name].dtype) if name in state else own[name] for name in own})
    return model.to(memory_format=torch.channels_last), side


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("--phantom", type=Path, help="also score this folder of phantom frames")
    parser.add_argument("--part", default="held_out", choices=["held_out", "train"])
    parser.add_argument("--threshold", type=float, default=0.5, help="score for precision and recall")
    parser.add_argument("--max-overlap", type=float, default=1.0, help="as the program's max_overlap_iou, there 0.7")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    detector, input_side = load_model(args.weights)
    chosen_frames = data.load(args.part, ["usgra", "carotid"])
    if args.phantom:
        chosen_frames += data.load(args.part, ["phantom"], phantom=args.phantom)
    result = evaluate(detector, chosen_frames, input_side, args.threshold, args.max_overlap)
    if args.json:
        print(json.dumps(result))
    for set_name, by_class in {} if args.json else result.items():
        count = sum(f.set_name == set_name for f in chosen_frames)
        for label, ap in by_class.items():
            at = f"at {args.threshold}: precision {ap['precision']:.2f}, recall {ap['recall']:.2f}"
            print(f"{set_name:8} {label:7} {count:4} frames  AP50 {ap['AP50']:.3f}  AP {ap['AP']:.3f}  {at}")
