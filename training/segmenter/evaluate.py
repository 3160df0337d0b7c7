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


@torch.no_grad()
def masks_of(model, image, boxes_xyxy, side=RUN_TIME_SIDE):
    """Boolean masks [N, H, W] and predicted IoU [N] of a uint8 image [H, W] and boxes in its pixels."""
    square, (height, width) = preprocess(image, side)
    scale = np.array([width / image.shape[1], height / image.shape[0]] * 2, np.float32)
    boxes = torch.from_numpy(np.asarray(boxes_xyxy, np.float32) * scale)
    logits, iou = model.predict(model.image_encoder(square.unsqueeze(0)), boxes_xyxy=boxes)
    logits = F.interpolate(logits, (side, side), mode="bilinear", align_corners=False)
    logits = F.interpolate(logits[..., :height, :width], image.shape, mode="bilinear", align_corners=False)
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


def scores(model, frames, jitter, seed=0, side=RUN_TIME_SIDE):
    """{(set, class): [(Dice, Dice of the box's ellipse), …]} and the mean error of the predicted IoU."""
    rng = np.random.default_rng(seed)
    found, iou_errors = defaultdict(list), []
    for frame in frames:
        if len(frame.labels) == 0:
            continue
        boxes = jittered(frame.boxes_xyxy, rng) if jitter else frame.boxes_xyxy
        own, iou = masks_of(model, frame.image, boxes, side)
        for i, label in enumerate(frame.labels):
            score = dice_score(own[i], frame.mask(i))
            plain = dice_score(ellipse_in(boxes[i], frame.image.shape), frame.mask(i))
            found[frame.set_name, label].append((score, plain))
            iou_errors.append(abs(score / (2 - score) - iou[i]))
    return found, float(np.mean(iou_errors))


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
    for name, jitter in (("exact", False), ("jittered", True)):
        found, iou_error = scores(model, frames, jitter)
        for (set_name, label), pairs in sorted(found.items()):
            own, ellipse = np.array(pairs).T
            row = {"boxes": name, "set": set_name, "class": label, "objects": len(pairs), "dice": own.mean()}
            row |= {"dice_p10": np.quantile(own, 0.1), "ellipse_dice": ellipse.mean()}
            if arguments.json:
                print(json.dumps({k: round(float(v), 4) if isinstance(v, np.floating) else v for k, v in row.items()}))
            else:
                print(ROW.format(**row))
        if not arguments.json:
            print(f"{name:9} mean error of the predicted IoU {iou_error:.3f}")


if __name__ == "__main__":
    main()
