"""The networks that peers run: the PyTorch models of `training/`, with the weights and the input that
`ultramotion bench --model NAME` makes up."""

import importlib
import sys
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
SALT, GAIN = "untrained", 1.0  # what `ultramotion bench --model` fills its weights with
BOXES = 4


def modules(part):
    """`model` and `check_parity` of a folder of `training/`; both folders use the same two names."""
    for name in ("model", "check_parity"):
        sys.modules.pop(name, None)
    sys.path.insert(0, str(ROOT / "training" / part))
    try:
        return importlib.import_module("model"), importlib.import_module("check_parity")
    finally:
        sys.path.pop(0)


class Detector(torch.nn.Module):
    """Image [1, 3, H, W] to logits [1, 300, classes] and boxes [1, 300, 4]."""

    def __init__(self, size):
        super().__init__()
        model, parity = modules("detector")
        self.network = model.DFine(size)
        parity.fill(self.network, SALT, GAIN)

    def forward(self, image):
        out = self.network(image)
        return out["pred_logits"], out["pred_boxes"]


class MaskDecoder(torch.nn.Module):
    """Embedding [1, 256, 64, 64] and boxes [N, 4] in pixels to one mask [N, 1, 256, 256] and IoU [N, 1] each. Of the
    four mask heads only the one asked for is kept, so that the peer does no needless work."""

    def __init__(self):
        super().__init__()
        self.network = segmenter()
        self.network.mask_decoder.output_hypernetworks_mlps = self.network.mask_decoder.output_hypernetworks_mlps[:1]
        self.network.mask_decoder.MASKS = 1

    def forward(self, embedding, boxes_xyxy):
        return self.network.predict(embedding, boxes_xyxy=boxes_xyxy)


def segmenter():
    model, parity = modules("segmenter")
    network = model.MobileSam()
    parity.fill(network, SALT, GAIN)
    return network


def noise(*shape_nhwc):
    """The program's own made-up input, as [N, C, H, W]."""
    with np.errstate(over="ignore"):
        mixed = np.arange(np.prod(shape_nhwc), dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    values = (mixed >> np.uint64(40)).astype(np.float32) / np.float32(2**23) - 1
    return torch.from_numpy(values.reshape(shape_nhwc)).permute(0, 3, 1, 2).contiguous()


def corners(count, side):
    flat = [side * (0.1, 0.2, 0.5, 0.6)[i % 4] for i in range(4 * count)]
    return torch.tensor(flat).view(count, 4)


# Name in `ultramotion bench --model`: how to make the network, and its inputs by name.
NETWORKS = {
    "dfine_n": (lambda: Detector("n"), lambda: {"image": noise(1, 640, 640, 3)}),
    "dfine_s": (lambda: Detector("s"), lambda: {"image": noise(1, 640, 640, 3)}),
    "mobile_sam_encoder": (lambda: segmenter().image_encoder, lambda: {"image": noise(1, 1024, 1024, 3)}),
    "mobile_sam_decoder": (
        MaskDecoder,
        lambda: {"embedding": noise(1, 64, 64, 256), "boxes": corners(BOXES, 1024)},
    ),
}
