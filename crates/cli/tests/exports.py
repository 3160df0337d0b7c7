"""Opens exported files as their users do, and compares them with results.jsonl.

    python exports.py RESULTS.jsonl COCO.json FOUND.seg.nrrd
"""

import json
import sys

import nrrd
import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO


def check_coco(lines, path):
    coco = COCO(path)
    assert len(coco.dataset["images"]) == len(lines)
    for image, line in zip(coco.dataset["images"], lines):
        assert (image["width"], image["height"]) == (line["width"], line["height"])
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
        assert len(annotations) == len(line["objects"])
        for annotation, found in zip(annotations, line["objects"]):
            mask = coco.annToMask(annotation)
            assert (mask == coco_mask.decode(found["mask"])).all()
            assert annotation["area"] == mask.sum()
            left, top, width, height = annotation["bbox"]
            box = [left, top, left + width, top + height]
            assert np.allclose(box, found["box_xyxy"], atol=1e-3)
            label = coco.loadCats(annotation["category_id"])[0]["name"]
            assert [annotation["track_id"], label] == [found["track_id"], found["label"]]


def check_segmentation(lines, path):
    voxels, header = nrrd.read(path)
    if voxels.ndim == 3:
        voxels = voxels[np.newaxis]
    tracks = {found["track_id"] for line in lines for found in line["objects"]}
    segments = [key.split("_")[0] for key in header if key.startswith("Segment") and key.endswith("_ID")]
    assert len(segments) == len(tracks)
    for segment in segments:
        track = int(header[segment + "_ID"].removeprefix("Segment_"))
        tracks.remove(track)
        layer, value = int(header[segment + "_Layer"]), int(header[segment + "_LabelValue"])
        for line in lines:
            expected = np.zeros((line["height"], line["width"]), bool)
            for found in line["objects"]:
                if found["track_id"] == track:
                    expected |= coco_mask.decode(found["mask"]).astype(bool)
            got = voxels[layer, :, :, line["frame_id"] - lines[0]["frame_id"]].T == value
            assert (got == expected).all(), (track, line["frame_id"])


def main():
    results, coco, segmentation = sys.argv[1:]
    with open(results, encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    check_coco(lines, coco)
    check_segmentation(lines, segmentation)


main()
