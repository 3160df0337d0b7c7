"""Writes the fixtures beside it: outputs of the PyTorch MobileSAM in float64 on filled weights and a drawn image.

    python crates/models/tests/mobile_sam/make_fixtures.py

The PyTorch network is the one in training/segmenter, which its own check_parity.py compares with the official one. Sizes
and salts differ from the official fixture: 128 pads every window of the image encoder, 448 pads none.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
SEGMENTER = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parents[3] / "training" / "segmenter"
sys.path.insert(0, str(SEGMENTER))
from check_parity import fill, sample  # noqa: E402
from model import MobileSam, normalise  # noqa: E402

# Pixels of a 1024 input, scaled to the fixture's.
BOXES = [[100, 150, 400, 500], [600, 300, 900, 620], [20, 20, 1000, 1000]]
POINTS = [[[512, 300], [200, 800]]]


def drawn(side):
    """Bands, and a bright disc in them."""
    y, x = np.mgrid[:side, :side]
    image = 40 * ((4 * x // side + 16 * y // side) % 5)
    image[(x - 0.6 * side) ** 2 + (y - 0.4 * side) ** 2 < (0.2 * side) ** 2] += 60
    return torch.from_numpy(image.astype(np.uint8))


@torch.no_grad()
def make(side, salt, count):
    model = MobileSam().eval()
    fill(model, salt, 1.0)
    model = model.double()
    image = drawn(side)
    embedding = model.image_encoder(normalise(image.double().unsqueeze(0)))
    scale = side / 1024
    boxes = torch.tensor(BOXES, dtype=torch.float64) * scale
    sparse, _ = model.prompt_encoder(embedding.shape[-2:], boxes_xyxy=boxes)
    masks, iou = model.predict(embedding, boxes_xyxy=boxes)
    points = torch.tensor(POINTS, dtype=torch.float64) * scale
    labels = torch.tensor([[1, 0]])
    masks_3, iou_3 = model.predict(
        embedding, multimask=True, points_xy=points, point_labels=labels, mask_logits=masks[:1]
    )
    tensors = {
        "image_embedding.sample": sample(embedding, count),
        "box.sparse_embedding": sparse,
        "box.iou": iou,
        "box.low_res_masks.sample": sample(masks[0], count),
        "box.low_res_mask_1": masks[1, 0],
        "points_mask.iou": iou_3,
        "points_mask.low_res_masks.sample": sample(masks_3, count),
    }
    tensors = {name: tensor.float().contiguous() for name, tensor in tensors.items()} | {"image": image}
    metadata = {"model": "mobile_sam", "salt": salt, "gain": "1.0"}
    save_file(tensors, HERE / f"mobile_sam_{side}.safetensors", metadata)


make(128, "a salt", 512)
make(448, "another salt", 512)
