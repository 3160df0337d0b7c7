"""D-FINE (Peng et al., 2024, arXiv:2410.13842) in PyTorch: sizes N, S, M, L and X.

In: float images [B, 3, H, W] in 0..1, H and W multiples of 32. Out: a dict with `pred_logits`
[B, Q, classes] and `pred_boxes` [B, Q, 4] (cx, cy, w, h as shares of the image), and in training
everything that the losses need. Parameter names and shapes are those of the official checkpoints,
so either side's files load in the other.

    model = DFine("n", num_classes=2)
    out = model(torch.rand(1, 3, 320, 320))

`backbone.py`, `encoder.py` and `decoder.py` have the parts, with their sources. `check_parity.py` compares with outputs of the
official code.
"""

from __future__ import annotations

from torch import Tensor, nn

from backbone import HgNetV2
from decoder import Decoder
from encoder import HybridEncoder
from sizes import SIZES


class DFine(nn.Module):
    """The whole detector. `input_size` (height, width) only decides the stored anchors: any multiple
    of 32 may be fed."""

    def __init__(self, size: str = "n", num_classes: int = 80, queries: int = 300, input_size=(640, 640)):
        super().__init__()
        self.size, self.num_classes = size, num_classes
        self.backbone = HgNetV2(SIZES[size])
        self.decoder = Decoder(SIZES[size], num_classes, queries, input_size)
        self.encoder = HybridEncoder(SIZES[size])

    def forward(self, images: Tensor, denoising: dict | None = None) -> dict:
        return self.decoder(self.encoder(self.backbone(images)), denoising)
