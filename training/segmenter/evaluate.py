"""Dice with boxes from the ground truth, on what training never saw, by data set and class.

    python training/segmenter/evaluate.py weights/ultrasound-sam.safetensors

Takes exported weights or a training checkpoint (its EMA weights). A mask is scored at the resolution of the source
image. Boxes are exact, or jittered as in training (sigma 5 % of a side, at most 12 %, one in five exact) under a fixed
seed, one draw an object.
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


def scores(model, frames, jitter, seed=0, side=RUN_TIME_SIDE):
    """{(set, class): [Dice, …]} and the mean error of the predicted IoU."""
    rng = np.random.default_rng(seed)
    found, iou_errors = defaultdict(list), []
    for frame in frames:
        if len(frame.labels) == 0:
            continue
        boxes = jittered(frame.boxes_xyxy, rng) if jitter else frame.boxes_xyxy
        own, iou = masks_of(model, frame.image, boxes, side)
        for i, label in enumerate(frame.labels):
            score = dice_score(own[i], frame.mask(i))
            found[frame.set_name, label].append(score)
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
    parser.add_argument("--sets", nargs="+", default=["usgra", "carotid"])
    parser.add_argument("--json", action="store_true", help="one object a line and nothing else")
    arguments = parser.parse_args()

    torch.set_num_threads(2)
    model = load_model(arguments.weights)
    frames = load(arguments.part, arguments.sets)
    for name, jitter in (("exact", False), ("jittered", True)):
        found, iou_error = scores(model, frames, jitter)
        for (set_name, label), values in sorted(found.items()):
            row = {"boxes": name, "set": set_name, "class": label, "objects": len(values)}
            row |= {"dice_mean": round(float(np.mean(values)), 4), "dice_p10": round(float(np.quantile(values, 0.1)), 4)}
            if arguments.json:
                print(json.dumps(row))
            else:
                print("{boxes:9} {set:8} {class:7} {objects:4} objects  Dice {dice_mean:.3f}, worst tenth below {dice_p10:.3f}".format(**row))
        if not arguments.json:
            print(f"{name:9} mean error of the predicted IoU {iou_error:.3f}")


if __name__ == "__main__":
    main()
