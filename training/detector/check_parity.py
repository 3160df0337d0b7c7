"""Compare `model.py` with outputs of the official D-FINE code.

In: fixtures (`dfine_*.safetensors`): an image, samples of intermediate tensors and the outputs, in
float64. Their weights come from a fixed rule (metadata `salt`) or from an official-format checkpoint
beside the fixture (metadata `checkpoint`). Out: one line a tensor, exit code 1 if one is off.

    python check_parity.py ../../../shared/reference/dfine_*.safetensors
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file

from model import DFine

KEPT = ("anchors", "valid_mask", "decoder.up", "decoder.reg_scale", "project")
TOLERANCE = {"features": 1e-4, "scores": 1e-4, "boxes": 1e-3}
MASK64 = 2**64 - 1


def metadata(path: Path) -> dict:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return json.loads(file.read(length))["__metadata__"]


def filled(name: str, shape: tuple[int, ...], salt: str, gain: float) -> torch.Tensor:
    """The reference fixtures' weights: FNV-1a of the name seeds SplitMix64."""
    seed = 0xCBF29CE484222325
    for byte in f"{salt}/{name}".encode():
        seed = ((seed ^ byte) * 0x100000001B3) & MASK64
    n = int(np.prod(shape)) if shape else 1
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    v = (z >> np.uint64(40)).astype(np.float64) / 2**24 * 2 - 1
    if name.endswith("running_var"):
        v = 1 + 0.5 * v
    elif name.endswith("running_mean"):
        v = 0.1 * v
    elif len(shape) >= 2:
        v = v * gain * np.sqrt(3 / (n / shape[0]))
    elif name.endswith(("weight", "scale")) or n == 1:
        v = 1 + 0.2 * v
    else:
        v = 0.1 * v
    return torch.from_numpy(v.reshape(shape))


def fill(model: torch.nn.Module, salt: str, gain: float) -> None:
    state = model.state_dict()
    for name, value in state.items():
        if value.is_floating_point() and not any(k in name for k in KEPT):
            state[name] = filled(name, tuple(value.shape), salt, gain).to(value.dtype)
    model.load_state_dict(state)


def build(path: Path, meta: dict, image_shape) -> DFine:
    size = meta["model"].removeprefix("dfine_")
    model = DFine(size, int(meta["num_classes"]), input_size=image_shape).eval()
    if "checkpoint" in meta:
        checkpoint = torch.load(path.parent / meta["checkpoint"], map_location="cpu", weights_only=True)
        state = checkpoint["ema"]["module"] if "ema" in checkpoint else checkpoint["model"]
        model.load_state_dict(state, strict=True)
    else:
        fill(model, meta["salt"], float(meta["gain"]))
    keys = path.parent / f"{meta['model']}.keys.json"
    if keys.exists():
        official = {name: list(shape) for name, shape in json.loads(keys.read_text()).items()}
        ours = {name: list(value.shape) for name, value in model.state_dict().items()}
        if official != ours:
            differing = [n for n in official.keys() | ours.keys() if official.get(n) != ours.get(n)]
            raise SystemExit(f"{keys.name}: names or shapes differ: {sorted(differing)[:10]}")
    return model


def sampled(x: torch.Tensor, count: int) -> np.ndarray:
    flat = x.detach().flatten().double().numpy()
    return flat[:: len(flat) // count][:count]


def check(path: Path) -> bool:
    meta, fixture = metadata(path), load_file(path)
    model = build(path, meta, fixture["image"].shape)
    images = torch.from_numpy(fixture["image"]).float().div(255)[None, None].repeat(1, 3, 1, 1)
    with torch.no_grad():
        backbone = model.backbone(images)
        encoder = model.encoder(backbone)
        out = model.decoder(encoder)
    errors = []
    for part, maps in (("backbone", backbone), ("encoder", encoder)):
        for i, x in enumerate(maps):
            expected = fixture[f"{part}.{i}.sample"].astype(np.float64)
            got = sampled(x, len(expected))
            errors.append((f"{part}.{i}", "features", np.linalg.norm(got - expected) / np.linalg.norm(expected)))

    def scores(logits):
        return np.sort((1 / (1 + np.exp(-logits.astype(np.float64)))).ravel())

    boxes, expected = out["pred_boxes"][0].numpy(), fixture["pred_boxes"]
    nearest = np.abs(boxes[:, None] - expected[None]).sum(-1).min(1).max()
    errors.append(("scores", "scores", np.abs(scores(out["pred_logits"][0].numpy()) - scores(fixture["pred_logits"])).max()))
    errors.append(("boxes", "boxes", nearest))
    for name, kind, error in errors:
        print(f"{path.name:32} {name:12} {error:.2e} {'ok' if error <= TOLERANCE[kind] else 'FAIL'}")
    return all(error <= TOLERANCE[kind] for _, kind, error in errors)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("fixtures", nargs="+", type=Path)
    results = [check(path) for path in parser.parse_args().fixtures]
    sys.exit(0 if all(results) else 1)
