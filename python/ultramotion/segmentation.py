"""Masks for boxes that someone else has found."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ultramotion._ultramotion import SamPredictor, Tensor

_T = TypeVar("_T")


def run_segmentation(
    image: Any,
    detections: Any = None,
    predictor: SamPredictor | None = None,
    as_numpy: bool = True,
    *,
    bbox_xyxy: Any = None,
) -> npt.NDArray[np.bool_] | Tensor:
    """Masks of the structures in an image.

    image
        As ``SamPredictor.set_image`` takes it.
    detections
        Boxes in pixels of the image: [N, 4] x1, y1, x2, y2, or anything that has them: a ResultPacket, what
        ``Detector.predict`` returns, an ``sv.Detections``, a dictionary with "boxes" or "boxes_xyxy", or a list of
        dictionaries with "box_xyxy", "bbox" or "box". None, or none in it: the whole image as one box.
    predictor
        A SamPredictor, whose image this sets; None: one of 'ultrasound-sam', made once and kept.
    as_numpy
        False: a Tensor.
    bbox_xyxy
        The boxes by this name, instead of ``detections``: [4] or [N, 4].

    Returns [N, H, W] bool, in the order of the boxes; N is 1 for the whole image. Raises ValueError or TypeError
    for the image and for boxes, of which 256 are taken at once.

    """
    if detections is not None and bbox_xyxy is not None:
        raise ValueError("give the boxes as detections or as bbox_xyxy, not as both")
    boxes = _boxes(detections if bbox_xyxy is None else bbox_xyxy)
    predictor = predictor or _kept_predictor()
    predictor.set_image(image)
    if len(boxes) == 0:
        height, width = predictor.original_size or (0, 0)
        boxes = np.array([[0, 0, width, height]], np.float32)
    masks, _, _ = predictor.predict_torch(boxes=boxes, multimask_output=False)
    masks = masks.reshape(len(boxes), *masks.shape[2:])
    return masks.numpy() if as_numpy else masks


@functools.cache
def _kept_predictor() -> SamPredictor:
    return SamPredictor("ultrasound-sam")


def _boxes(detections: Any) -> npt.NDArray[np.float32]:
    """[N, 4] of whatever has boxes."""
    if detections is None:
        return np.empty((0, 4), np.float32)
    for name in ("boxes_xyxy", "xyxy"):
        if hasattr(detections, name):
            return _boxes(getattr(detections, name))
    if isinstance(detections, Mapping):
        for name in ("boxes_xyxy", "boxes"):
            if name in detections:
                return _boxes(detections[name])
        raise ValueError(f'detections is a dictionary without "boxes_xyxy" or "boxes": {sorted(map(str, detections))}')
    if isinstance(detections, Sequence) and len(detections) > 0 and isinstance(detections[0], Mapping):
        return _boxes([_box(detection) for detection in detections])
    try:
        boxes = np.asarray(detections, np.float32)
    except (TypeError, ValueError) as error:
        raise TypeError(f"detections cannot be read as boxes [N, 4]: {error}") from None
    if boxes.size == 0:
        return np.empty((0, 4), np.float32)
    if boxes.ndim == 1:
        boxes = boxes[None]
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes have the shape {list(boxes.shape)}, but it must be [N, 4]: x1, y1, x2, y2 each")
    return boxes


def _box(detection: Mapping[str, Any]) -> Any:
    for name in ("box_xyxy", "bbox_xyxy", "bbox", "box"):
        if name in detection:
            return detection[name]
    raise ValueError(f'a detection has no "box_xyxy", "bbox" or "box": {sorted(map(str, detection))}')


class Untransformed:
    """Stands in for the official predictor's ``transform``: prompts stay in pixels of the image."""

    def apply_coords(self, coords: _T, original_size: tuple[int, ...]) -> _T:
        """Points as they are."""
        return coords

    def apply_boxes(self, boxes: _T, original_size: tuple[int, ...]) -> _T:
        """Boxes as they are."""
        return boxes

    def apply_coords_torch(self, coords: _T, original_size: tuple[int, ...]) -> _T:
        """Points as they are."""
        return coords

    def apply_boxes_torch(self, boxes: _T, original_size: tuple[int, ...]) -> _T:
        """Boxes as they are."""
        return boxes
