"""Compares the program's masks with PyTorch's, of the same weights and the same boxes.

    ultramotion run FRAMES --independent --score-threshold 0.1 --segmenter weights/ultrasound-sam.safetensors --out out
    python training/segmenter/check_export.py weights/ultrasound-sam.safetensors out/results.jsonl

In: exported weights and the results of a run over a folder of images with them. Out: the lowest and mean IoU of the
masks; fails where one is below 0.995. Small masks are left out: a pixel is too much of them.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as run_length

from evaluate import Predictor, load_model

MIN_IOU, MIN_PIXELS = 0.995, 400


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("results", type=Path, help="results.jsonl")
    parser.add_argument("--every", type=int, default=1, help="look at each so-manieth frame")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    model = load_model(arguments.weights)
    ious = []
    for line in arguments.results.read_text().splitlines()[:: arguments.every]:
        row = json.loads(line)
        if not row["objects"]:
            continue
        predictor = Predictor(model, np.asarray(Image.open(row["source"]).convert("L")))
        masks, _ = predictor.masks([o["box_xyxy"] for o in row["objects"]])
        for found, mask in zip(row["objects"], masks):
            counts = {"size": found["mask"]["size"], "counts": found["mask"]["counts"].encode()}
            own = run_length.decode(counts).astype(bool)
            if (union := np.logical_or(own, mask).sum()) >= MIN_PIXELS:
                ious.append(np.logical_and(own, mask).sum() / union)
    if not ious:
        sys.exit(f"{arguments.results} holds no mask of {MIN_PIXELS} pixels or more: run with a lower threshold")
    low = sum(iou < MIN_IOU for iou in ious)
    print(f"{len(ious)} masks, IoU mean {np.mean(ious):.4f}, lowest {min(ious):.4f}, {low} below {MIN_IOU}")
    sys.exit(1 if low else 0)


if __name__ == "__main__":
    main()
