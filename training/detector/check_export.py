"""Compare the program's detections with this code's, on the same exported file and images.

    ultramotion run FOLDER --independent --detector weights/ultrasound-n.safetensors --score-threshold 0.3 --out OUT
    python training/detector/check_export.py weights/ultrasound-n.safetensors FOLDER OUT/results.jsonl

Every detection of the program must have its own here: same class, each edge within `--pixels`
of the image, score within 0.005. Give PNGs: JPEG decoders differ by a grey level. Leaves with status 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data import Frame  # noqa: E402
from evaluate import CLASSES, load_model, predict  # noqa: E402

SCORE_TOLERANCE = 0.005


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("images", type=Path, help="folder that the program read")
    parser.add_argument("results", type=Path, help="results.jsonl that it wrote")
    parser.add_argument("--pixels", type=float, default=1.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, side = load_model(args.weights)
    compared, worst, worst_score, missing = 0, 0.0, 0.0, 0
    for line in args.results.read_text().splitlines():
        row = json.loads(line)
        image = np.asarray(Image.open(args.images / Path(row["source"]).name).convert("L"))
        nothing = np.zeros((0, 4), np.float32)
        frame = Frame("", row["source"], image, np.zeros_like(image), [], nothing, image.shape)
        found = predict(model, [frame], side)[0]
        inside = np.tile(image.shape[::-1], 2)  # the program gives the part of a box that is in the image
        for wanted in row["objects"]:
            near = np.abs(found["boxes_xyxy"].clip(0, inside) - np.array(wanted["box_xyxy"])).max(1)
            score_off = np.abs(found["scores"] - wanted["score"])
            same = (found["labels"] == CLASSES.index(wanted["label"])) & (score_off < SCORE_TOLERANCE)
            compared += 1
            if not same.any() or near[same].min() > args.pixels:
                missing += 1
                print(
                    f"{row['source']}: {wanted['label']} {wanted['score']:.3f} {wanted['box_xyxy']} is not found here"
                )
                continue
            best = np.flatnonzero(same)[near[same].argmin()]
            worst, worst_score = max(worst, near[best]), max(worst_score, score_off[best])
    print(
        f"{compared} detections, {missing} without a partner; edges {worst:.2f} px, scores {worst_score:.4f} off at most"
    )
    return 1 if missing or not compared else 0


if __name__ == "__main__":
    sys.exit(main())
