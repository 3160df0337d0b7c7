"""Ultrasound frames with instance masks: readers for the data sets, and the split.

In: folders of images and masks. Out: `Frame`s held in memory as uint8, one instance map each.

    from data import load
    frames = load("train", sets=["usgra", "carotid"], max_side=400)
    frames[0].labels, frames[0].boxes_xyxy

Data sets (none is part of this repository; see README.md for sources and licences):

- `usgra`: palette masks, 0 background, 1 nerve, 2 vessel. Each connected component is an object.
- `carotid`: masks 0/1, one artery a frame: one `vessel`.
- `phantom`: made by the phantom crate. Instance masks and `truth.jsonl`, one object a line:
  `{"image":"000000.png","mask":"000000.png","seed":0,
  "objects":[{"label":"vessel","box_xyxy":[..],"mask_value":1}]}`; frames of a seed show one anatomy.

The split is `splits.json`: held-out names, everything else is for training. Carotid is split by clip,
because the frames of a clip are near copies of each other, and usgra by groups of near duplicates.
"""

from __future__ import annotations

import json
import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.sparse import csgraph

HERE = Path(__file__).resolve().parent
SPLITS = HERE / "splits.json"
USGRA_CLASSES = {1: "nerve", 2: "vessel"}
# Components below this share of the image are brush specks, not structures.
MIN_AREA_SHARE = 5e-4


@dataclass
class Frame:
    """One image and its objects.

    `image`: uint8 [H, W]. `instances`: uint8 [H, W], 0 background, i + 1 the i-th object.
    `labels`: class name of each object. `boxes_xyxy`: float32 [n, 4] in pixels of `image`,
    the far corner exclusive, so that a one-pixel object is one pixel wide.
    `source_size`: (height, width) of the file, before `max_side` reduced it.
    """

    set_name: str
    name: str
    image: np.ndarray
    instances: np.ndarray
    labels: list[str]
    boxes_xyxy: np.ndarray
    source_size: tuple[int, int]

    def mask(self, index: int) -> np.ndarray:
        """Boolean [H, W] mask of object `index`."""
        return self.instances == index + 1


def shared_data() -> Path:
    """The folder that holds `usgra/` and `carotid/`."""
    shared = os.environ.get("ULTRAMOTION_SHARED")
    return (Path(shared) if shared else HERE.parent.parent / "shared") / "data"


def phantom_data() -> Path:
    """The folder of exported phantom frames: `ULTRAMOTION_PHANTOM`, else `runs/phantom`."""
    return Path(os.environ.get("ULTRAMOTION_PHANTOM", HERE.parent / "runs" / "phantom"))


def split_of(set_name: str, name: str, splits: dict) -> str:
    """'train' or 'held_out' for a frame's name: carotid `<clip>_<frame>`, phantom `<seed>_<frame>`."""
    key = name if set_name == "usgra" else name.rsplit("_", 1)[0]
    if set_name == "phantom":
        return "held_out" if int(key) % splits["phantom"]["every"] == 0 else "train"
    return "held_out" if key in splits[set_name]["held_out"] else "train"


def load(
    part: str,
    sets: list[str] | None = None,
    max_side: int | None = None,
    data: Path | None = None,
    phantom: Path | None = None,
) -> list[Frame]:
    """Frames of `part` ('train', 'held_out' or 'all') of `sets`, in a fixed order.

    `max_side` reduces larger frames once, on reading, keeping their aspect.
    """
    if part not in ("train", "held_out", "all"):
        raise ValueError(f"part is '{part}': use train, held_out or all")
    data = data or shared_data()
    splits = json.loads(SPLITS.read_text())
    frames = []
    for set_name in sets or ["usgra", "carotid"]:
        if set_name == "phantom":
            jobs = _phantom_jobs(phantom or phantom_data())
        elif set_name in ("usgra", "carotid"):
            jobs = _folder_jobs(data / set_name, set_name)
        else:
            raise ValueError(f"unknown data set '{set_name}': use usgra, carotid or phantom")
        wanted = [j for j in jobs if part == "all" or split_of(set_name, j[1], splits) == part]
        with ThreadPoolExecutor(2) as pool:
            frames += pool.map(lambda job: _read(*job, max_side=max_side), wanted)
    return frames


def _folder_jobs(folder: Path, set_name: str) -> list[tuple]:
    images = sorted((folder / "images").glob("*.jpg"))
    if not images:
        raise FileNotFoundError(f"no images in {folder / 'images'}: see README.md for the data sets")
    return [(set_name, p.stem, p, folder / "masks" / f"{p.stem}.png", None) for p in images]


def _phantom_jobs(folder: Path) -> list[tuple]:
    truth = folder / "truth.jsonl"
    if not truth.exists():
        raise FileNotFoundError(f"{truth} is missing: export phantom frames first, see README.md")
    jobs = []
    for line in truth.read_text().splitlines():
        row = json.loads(line)
        name = f"{row['seed']}_{Path(row['image']).stem}"
        jobs.append(("phantom", name, folder / "images" / row["image"], folder / "masks" / row["mask"], row["objects"]))
    return sorted(jobs, key=lambda job: job[1])


def _read(set_name: str, name: str, image_path: Path, mask_path: Path, objects, max_side) -> Frame:
    image = Image.open(image_path).convert("L")
    mask = Image.open(mask_path)
    if mask.size != image.size:
        raise ValueError(f"{mask_path}: mask is {mask.size}, its image is {image.size}")
    values = np.asarray(mask)
    if values.ndim != 2:
        raise ValueError(f"{mask_path}: the mask has {values.ndim} dimensions, expected a palette or grey image")
    source_size = (image.height, image.width)
    if set_name == "usgra":
        instances, labels = _components(values, USGRA_CLASSES)
    elif set_name == "carotid":
        instances, labels = (values > 0).astype(np.uint8), ["vessel"]
    else:
        instances, labels = np.zeros(values.shape, np.uint8), []
        for obj in objects:
            region = values == obj["mask_value"]
            if region.any():
                labels.append(obj["label"])
                instances[region] = len(labels)
    if max_side and max(source_size) > max_side:
        scale = max_side / max(source_size)
        size = (round(image.width * scale), round(image.height * scale))
        image = image.resize(size, Image.BILINEAR)
        instances = np.asarray(Image.fromarray(instances).resize(size, Image.NEAREST))
    return _finish(set_name, name, np.asarray(image), instances, labels, source_size)


def _components(values: np.ndarray, classes: dict[int, str]) -> tuple[np.ndarray, list[str]]:
    instances, labels = np.zeros(values.shape, np.uint8), []
    for value, label in classes.items():
        components, count = ndimage.label(values == value, structure=np.ones((3, 3)))
        areas = np.bincount(components.ravel(), minlength=count + 1)
        for component in range(1, count + 1):
            if areas[component] >= MIN_AREA_SHARE * values.size:
                labels.append(label)
                instances[components == component] = len(labels)
    return instances, labels


def _finish(set_name, name, image, instances, labels, source_size) -> Frame:
    """Boxes from the instance map; objects that a reduction erased are dropped."""
    boxes, kept, clean = [], [], np.zeros_like(instances)
    for index, where in enumerate(ndimage.find_objects(instances, max_label=len(labels))):
        if where is None:
            continue
        rows, columns = where
        boxes.append((columns.start, rows.start, columns.stop, rows.stop))
        kept.append(labels[index])
        clean[instances == index + 1] = len(kept)
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    return Frame(set_name, name, np.ascontiguousarray(image), clean, kept, boxes, source_size)


# Clips held back from training: two scan planes, 65 of 410 frames.
CAROTID_HELD_OUT = ["202201121834300037VAS", "202201121823140034VAS"]
USGRA_HELD_OUT_SHARE = 0.15
PHANTOM_EVERY = 10  # one seed in ten
# Fine-texture correlation above which two frames are taken to show the same place: neighbours of
# one recording reach 0.6 to 0.9, strangers stay below 0.3.
SAME_PLACE = 0.3


def near_duplicate_groups(frames: list[Frame]) -> list[list[str]]:
    """Names of `frames`, grouped so that frames of one place are in one group.

    The set numbers its images in random order, and many are neighbours from one recording: a split
    by image would test on near copies of what was trained on. Compared is the fine texture at
    128 x 128, without the horizontal layers that all frames share, at shifts up to an eighth.
    """

    def texture(frame: Frame) -> np.ndarray:
        small = np.asarray(Image.fromarray(frame.image).resize((128, 128), Image.BILINEAR), np.float32)
        fine = np.log1p(small)
        fine = fine - ndimage.gaussian_filter(fine, 3)
        fine = np.clip(fine - fine.mean(1, keepdims=True), -0.5, 0.5)
        fine = fine - fine.mean()
        return fine / np.linalg.norm(fine)

    spectra = np.fft.rfft2(np.stack([texture(f) for f in frames]))
    shifts = np.arange(-16, 17)
    same = np.zeros((len(frames), len(frames)), bool)
    for i, spectrum in enumerate(spectra):
        correlation = np.fft.irfft2(spectrum.conj() * spectra, s=(128, 128))
        same[i] = correlation[:, shifts][:, :, shifts].max((1, 2)) > SAME_PLACE
    count, group = csgraph.connected_components(same)
    return [[frames[i].name for i in np.flatnonzero(group == g)] for g in range(count)]


def make_splits(data: Path) -> dict:
    """The rule behind `splits.json`: run `python data.py --write-splits` to write it again."""
    frames = [_read(*job, max_side=None) for job in _folder_jobs(data / "usgra", "usgra")]
    groups = near_duplicate_groups(frames)
    # Chains of similar frames form one large group; it stays in training.
    groups.remove(max(groups, key=len))
    random.Random(20260101).shuffle(groups)
    held_out: list[str] = []
    for group in groups:
        if len(held_out) + len(group) <= round(USGRA_HELD_OUT_SHARE * len(frames)):
            held_out += group
    return {
        "usgra": {"by": "group of near duplicates", "held_out": sorted(held_out)},
        "carotid": {"by": "clip", "held_out": CAROTID_HELD_OUT},
        "phantom": {"by": "seed", "every": PHANTOM_EVERY},
    }


if __name__ == "__main__":
    if "--write-splits" in sys.argv:
        SPLITS.write_text(json.dumps(make_splits(shared_data()), indent=1) + "\n")
    for part in ("train", "held_out"):
        for set_name in ("usgra", "carotid"):
            found = load(part, [set_name])
            labels = [label for frame in found for label in frame.labels]
            counts = {label: labels.count(label) for label in sorted(set(labels))}
            print(f"{part:9} {set_name:8} {len(found):4} frames, objects {counts}")
