"""Dice with boxes from the ground truth, on what training never saw, by data set and class.

    python training/segmenter/evaluate.py weights/ultrasound-sam.safetensors

Takes exported weights or a training checkpoint (its EMA weights). A mask is scored at the resolution of the source
image. Boxes are exact, or jittered as in training (sigma 5 % of a side, at most 12 %, one in five exact) under a fixed
seed, one draw an object. Beside each score stands that of the ellipse inscribed in the same box: what the box alone
gives away.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from model import MobileSam
from samples import RUN_TIME_SIDE, jittered, preprocess

from data import load  # training/ is on the path through samples.py

ROW = (
    "{boxes:9} {set:8} {class:7} {objects:4} objects  Dice {dice:.3f}  worst tenth below {dice_p10:.3f}  "
    "the box's ellipse {ellipse_dice:.3f}"
)


class Predictor:
    """An image set once, outlined for many boxes: `masks(boxes_xyxy)` gives boolean masks [N, H, W] and predicted IoU
    [N] for boxes in pixels of the image (uint8 [H, W])."""

    @torch.no_grad()
    def __init__(self, model, image, side=RUN_TIME_SIDE):
        square, self.inner_size = preprocess(image, side)
        self.model, self.side, self.size = model, side, image.shape
        self.embedding = model.image_encoder(square.unsqueeze(0))

    @torch.no_grad()
    def masks(self, boxes_xyxy):
        (height, width), (full_height, full_width) = self.inner_size, self.size
        scale = np.array([width / full_width, height / full_height] * 2, np.float32)
        boxes = torch.from_numpy(np.asarray(boxes_xyxy, np.float32) * scale)
        logits, iou = self.model.predict(self.embedding, boxes_xyxy=boxes)
        logits = F.interpolate(logits, (self.side, self.side), mode="bilinear", align_corners=False)
        logits = F.interpolate(logits[..., :height, :width], self.size, mode="bilinear", align_corners=False)
        return (logits[:, 0] > 0).numpy(), iou[:, 0].numpy()


def dice_score(own, true):
    return 2 * np.logical_and(own, true).sum() / max(1, own.sum() + true.sum())


def ellipse_in(box_xyxy, shape):
    """Boolean mask [H, W] of the ellipse inscribed in a box."""
    x1, y1, x2, y2 = box_xyxy
    y, x = np.ogrid[: shape[0], : shape[1]]
    dx = (x + 0.5 - (x1 + x2) / 2) / ((x2 - x1) / 2)
    dy = (y + 0.5 - (y1 + y2) / 2) / ((y2 - y1) / 2)
    return dx**2 + dy**2 <= 1


def scores(model, frames, seed=0):
    """For "exact" and "jittered" boxes: {(set, class): [(Dice, Dice of the box's ellipse), …]}, and the mean error of
    the predicted IoU."""
    rng = np.random.default_rng(seed)
    found = {"exact": defaultdict(list), "jittered": defaultdict(list)}
    iou_errors = {kind: [] for kind in found}
    for frame in frames:
        if len(frame.labels) == 0:
            continue
        predictor = Predictor(model, frame.image)
        for kind, boxes in (("exact", frame.boxes_xyxy), ("jittered", jittered(frame.boxes_xyxy, rng))):
            own, iou = predictor.masks(boxes)
            for i, label in enumerate(frame.labels):
                score = dice_score(own[i], frame.mask(i))
                plain = dice_score(ellipse_in(boxes[i], frame.image.shape), frame.mask(i))
                found[kind][frame.set_name, label].append((score, plain))
                iou_errors[kind].append(abs(score / (2 - score) - iou[i]))
    return found, {kind: float(np.mean(errors)) for kind, errors in iou_errors.items()}


def load_model(path):
    path = Path(path)
    if path.suffix == ".safetensors":
        state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
    else:
        state = torch.load(path, map_location="cpu", weights_only=True)["ema"]
    model = MobileSam()
    model.load_state_dict(state)
    return model.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--part", default="held_out", choices=["held_out", "train"])
    parser.add_argument("--phantom", type=Path, help="folder of exported phantom frames, to score on them as well")
    parser.add_argument("--json", action="store_true", help="one object a line and nothing else")
    arguments = parser.parse_args()

    torch.set_num_threads(2)
    model = load_model(arguments.weights)
    frames = load(arguments.part, ["usgra", "carotid"])
    if arguments.phantom:
        frames += load(arguments.part, ["phantom"], phantom=arguments.phantom)
    found, iou_errors = scores(model, frames)
    for name, by_class in found.items():
        for (set_name, label), pairs in sorted(by_class.items()):
            own, ellipse = np.array(pairs).T
            row = {"boxes": name, "set": set_name, "class": label, "objects": len(pairs), "dice": own.mean()}
            row |= {"dice_p10": np.quantile(own, 0.1), "ellipse_dice": ellipse.mean()}
            if arguments.json:
                print(json.dumps({k: round(float(v), 4) if isinstance(v, np.floating) else v for k, v in row.items()}))
            else:
                print(ROW.format(**row))
        if not arguments.json:
            print(f"{name:9} mean error of the predicted IoU {iou_errors[name]:.3f}")


if __name__ == "__main__":
    main()
