"""Export a training run to the file that the program embeds: float16, official parameter names.

In: `last.pt` of a run (its EMA weights are taken). Out: a `.safetensors` with its architecture,
classes, input size and licence in the metadata. A tensor that float16 would change by more than
1e-3 (relative; tiny or huge statistics) stays float32.

    python training/detector/export.py runs/detector/last.pt weights/ultrasound-n.safetensors
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file

from evaluate import CLASSES

LICENSE = "Apache-2.0 (weights; trained on CC BY 4.0 data)"
MAX_RELATIVE_LOSS = 1e-3


def halved(name: str, value: torch.Tensor) -> torch.Tensor:
    """`value` in float16 where that keeps it, else as it is."""
    if not value.is_floating_point():
        return value
    half = value.half()
    finite = value.isfinite()
    if not torch.equal(half.isfinite(), finite):
        return value
    kept, lost = value[finite].double(), (value - half.float())[finite].double()
    if name.endswith("running_var"):  # divided by, so each value counts
        relative = (lost.abs() / kept.abs().clamp(min=1e-30)).max()
    else:  # summed, so the tensor counts as a whole
        relative = lost.norm() / kept.norm().clamp(min=1e-30)
    return value if relative > MAX_RELATIVE_LOSS else half


def export(run: Path, out: Path) -> None:
    saved = torch.load(run, map_location="cpu", weights_only=True)
    settings = saved["settings"]
    tensors = {name: halved(name, value).contiguous() for name, value in saved["ema"].items()}
    metadata = {
        "format": "ultramotion",
        "architecture": f"dfine_{settings['size']}",
        "classes": ",".join(CLASSES),
        "input": settings["input"],
        "license": LICENSE,
        "training_steps": str(saved["step"]),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out, metadata)
    wide = sorted(n for n, t in tensors.items() if t.dtype == torch.float32)
    print(f"{out}: {out.stat().st_size} bytes, {len(tensors)} tensors, {len(wide)} kept in float32: {wide[:8]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="last.pt of a training run")
    parser.add_argument("out", type=Path, help="file to write, .safetensors")
    args = parser.parse_args()
    export(args.run, args.out)
