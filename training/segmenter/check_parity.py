"""Compares `model.py` in float32 with the official MobileSAM, by a fixture computed with filled weights.

    python training/segmenter/check_parity.py ../shared/reference/mobile_sam.safetensors

The weights are filled from the parameters' names by a fixed rule (FNV-1a of the salt and name seeds a SplitMix64
stream), so no checkpoint is needed. `mobile_sam.keys.json` beside the fixture lists the official names and shapes;
they must be the model's own, classification head excepted.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

from model import UNUSED_PREFIXES, MobileSam, normalise

TOLERANCE = 1e-4


def filled(name, shape, salt, gain):
    seed = 0xCBF29CE484222325
    for byte in f"{salt}/{name}".encode():
        seed = ((seed ^ byte) * 0x100000001B3) % 2**64
    count = int(np.prod(shape))
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    v = (z >> np.uint64(40)).astype(np.float64) / 2**24 * 2 - 1
    if name.endswith("running_var"):
        v = 1 + 0.5 * v
    elif name.endswith("running_mean"):
        v = 0.1 * v
    elif len(shape) >= 2:
        v = v * gain * np.sqrt(3 * shape[0] / count)
    elif name.endswith(("weight", "scale")) or count == 1:
        v = 1 + 0.2 * v
    else:
        v = 0.1 * v
    return torch.from_numpy(v.reshape(shape)).float()


def fill(model, salt, gain):
    state = model.state_dict()
    floats = {k: v for k, v in state.items() if v.is_floating_point()}
    model.load_state_dict({k: filled(k, tuple(v.shape), salt, gain) for k, v in floats.items()}, strict=False)


def check_names(model, keys):
    official = {k: tuple(v) for k, v in keys.items() if not k.startswith(UNUSED_PREFIXES)}
    own = {k: tuple(v.shape) for k, v in model.state_dict().items()}
    wrong = sorted(k for k in official.keys() | own.keys() if official.get(k) != own.get(k))
    for name in wrong:
        print(f"{name}: official {official.get(name)}, own {own.get(name)}")
    print(f"{len(own)} names and shapes, {len(wrong)} differ")
    return not wrong


def sample(tensor, count):
    """Every (numel / count)-th element, as the fixtures were sampled."""
    flat = tensor.flatten()
    return flat[:: flat.numel() // count][:count]


@torch.no_grad()
def outputs(model, image):
    embedding = model.image_encoder(normalise(image.float().unsqueeze(0)))
    boxes = torch.tensor([[100, 150, 400, 500], [600, 300, 900, 620], [20, 20, 1000, 1000]], dtype=torch.float32)
    sparse, _ = model.prompt_encoder(embedding.shape[-2:], boxes_xyxy=boxes)
    masks, iou = model.predict(embedding, boxes_xyxy=boxes)
    masks_3, iou_3 = model.predict(
        embedding,
        multimask=True,
        points_xy=torch.tensor([[[512.0, 300.0], [200.0, 800.0]]]),
        point_labels=torch.tensor([[1, 0]]),
        mask_logits=masks[:1],
    )
    return {
        "image_embedding.sample": embedding,
        "box.sparse_embedding": sparse,
        "box.iou": iou,
        "box.low_res_masks.sample": masks[0],
        "box.low_res_mask_1": masks[1],
        "points_mask.iou": iou_3,
        "points_mask.low_res_masks.sample": masks_3,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fixture", type=Path)
    arguments = parser.parse_args()

    model = MobileSam().eval()
    keys = json.loads(arguments.fixture.with_suffix(".keys.json").read_text())
    passed = check_names(model, keys)
    with safe_open(arguments.fixture, "pt") as fixture:
        metadata = fixture.metadata()
        fill(model, metadata["salt"], float(metadata["gain"]))
        own = outputs(model, fixture.get_tensor("image"))
        for name, tensor in own.items():
            expected = fixture.get_tensor(name).double().flatten()
            error = ((sample(tensor, expected.numel()).double() - expected).norm() / expected.norm()).item()
            passed &= error <= TOLERANCE
            print(f"{name:34} relative error {error:.2e}  {'ok' if error <= TOLERANCE else 'WRONG'}")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
