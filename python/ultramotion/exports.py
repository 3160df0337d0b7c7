"""Packets for the tools that label, plot and evaluate."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ultramotion._ultramotion import ResultPacket

if TYPE_CHECKING:
    import supervision


def to_coco(packets: Iterable[ResultPacket], path: str | os.PathLike[str]) -> dict[str, Any]:
    """Write packets as COCO instances: one JSON file that CVAT, Label Studio, FiftyOne and pycocotools open.

    packets
        Any number of them, such as ``ultramotion.run(...)`` gives; each becomes an image.
    path
        The file, which is written anew.

    A packet's image is called as its source's file where each frame has a file of its own, else NAME_FRAME.png, as
    ``ultramotion run --overlay`` numbers pictures. Masks are run lengths; "score", "track_id" and "confirmed"
    stand beside the usual keys. Categories are the detector's classes, numbered from 1.

    Returns what was written. Raises OSError and its kin for the file.

    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    names: list[str] = []
    for packet in packets:
        image_id = len(images) + 1
        names = names or packet.class_names
        images.append(
            {
                "id": image_id,
                "file_name": _file_name(packet),
                "width": packet.width,
                "height": packet.height,
                "timestamp": packet.timestamp,
            }
        )
        line = packet.to_dict()
        for found, class_id, area in zip(line["objects"], packet.class_ids, packet.mask_areas_px, strict=True):
            x1, y1, x2, y2 = found["box_xyxy"]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(class_id) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": int(area),
                    "segmentation": found["mask"],
                    "iscrowd": 0,
                    "score": found["score"],
                    "track_id": found["track_id"],
                    "confirmed": found["confirmed"],
                }
            )
    coco = {
        "info": {"description": "found by ultramotion; research software, not a medical device"},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
    }
    Path(path).write_text(json.dumps(coco), encoding="utf-8")
    return coco


def _file_name(packet: ResultPacket) -> str:
    source = Path(packet.source)
    if source.suffix.lower() in (".png", ".jpg", ".jpeg"):
        return source.name
    stem = source.name.replace(":", "-").split(".")[0] or "frame"
    return f"{stem}_{packet.frame_id:06d}.png"


def to_supervision(packet: ResultPacket) -> supervision.Detections:
    """Do what ``ResultPacket.to_supervision`` says."""
    try:
        import supervision
    except ImportError:
        raise ImportError("to_supervision() needs the package supervision: pip install supervision") from None
    return supervision.Detections(
        xyxy=packet.boxes_xyxy.reshape(-1, 4),
        mask=np.array(packet.masks, dtype=bool),
        confidence=packet.scores,
        class_id=packet.class_ids,
        tracker_id=packet.track_ids,
        data={"class_name": np.array(packet.labels, dtype=str)},
    )
