"""Training checkpoint to the program's weights: float16, the official parameter names, metadata.

    python training/segmenter/export.py runs/segmenter/checkpoint.pt weights/ultrasound-sam.safetensors

The EMA weights are exported. A tensor that float16 changes by more than a thousandth stays float32: as norms of the
difference and the tensor where values are summed, for the worst value where they are divided by (variances). Integer
buffers stay as they are.
"""

import argparse
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import save_file

from samples import RUN_TIME_SIDE

METADATA = {
    "format": "ultramotion",
    "architecture": "mobile_sam",
    "input": str(RUN_TIME_SIDE),
    "license": "Apache-2.0 (weights; trained on CC BY 4.0 data)",
}
HALF_TOLERANCE = 1e-3


def compact(name, tensor):
    if not tensor.is_floating_point():
        return tensor
    half = tensor.half()
    change = half.float() - tensor
    if name.endswith("running_var"):
        kept = (change.abs() <= HALF_TOLERANCE * tensor.abs()).all()
    else:
        kept = change.norm() <= HALF_TOLERANCE * tensor.norm()
    return half if half.isfinite().all() and kept else tensor


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("weights", type=Path)
    arguments = parser.parse_args()

    state = torch.load(arguments.checkpoint, map_location="cpu", weights_only=True)["ema"]
    bad = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if bad:
        raise SystemExit(f"{arguments.checkpoint}: {', '.join(bad)} holds NaN or infinity, so nothing was written")
    tensors = {name: compact(name, tensor).contiguous() for name, tensor in state.items()}
    arguments.weights.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, arguments.weights, METADATA)
    kinds = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())
    kept = [name for name, tensor in tensors.items() if tensor.dtype == torch.float32]
    print(f"{arguments.weights}: {arguments.weights.stat().st_size / 1e6:.2f} MB, {dict(kinds)}")
    print("float32:", ", ".join(kept) or "none")


if __name__ == "__main__":
    main()
