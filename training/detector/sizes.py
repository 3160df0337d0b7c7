"""D-FINE's sizes: N, S, M, L and X."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One HGNetV2 stage. `light`: pointwise then depthwise convolutions instead of full ones."""

    mid: int
    out: int
    blocks: int
    light: bool
    kernel: int
    layers: int


@dataclass(frozen=True)
class Size:
    stem: tuple[int, int]
    stages: tuple[Stage, Stage, Stage, Stage]
    affine: bool  # a learnable scale and shift after each activation
    taps: tuple[int, ...]  # backbone stages handed to the encoder
    encoder_dim: int
    encoder_ffn: int
    csp_dim: int
    csp_blocks: int
    dim: int  # decoder
    ffn: int
    layers: int
    points: tuple[int, ...]  # sampling points per level and head
    reg_scale: float


def _stages(widths: tuple, blocks: tuple, layers: int) -> tuple:
    return tuple(
        Stage(mid, out, n, light=i >= 2, kernel=5 if i >= 2 else 3, layers=layers)
        for i, ((mid, out), n) in enumerate(zip(widths, blocks))
    )


_B0 = ((16, 16), _stages(((16, 64), (32, 256), (64, 512), (128, 1024)), (1, 1, 2, 1), 3))
_B2 = ((24, 32), _stages(((32, 96), (64, 384), (128, 768), (256, 1536)), (1, 1, 3, 1), 4))
_B4 = ((32, 48), _stages(((48, 128), (96, 512), (192, 1024), (384, 2048)), (1, 1, 3, 1), 6))
_B5 = ((32, 64), _stages(((64, 128), (128, 512), (256, 1024), (512, 2048)), (1, 2, 5, 2), 6))

SIZES = {
    "n": Size(*_B0, True, (2, 3), 128, 512, 21, 2, 128, 512, 3, (6, 6), 4.0),
    "s": Size(*_B0, True, (1, 2, 3), 256, 1024, 64, 1, 256, 1024, 3, (3, 6, 3), 4.0),
    "m": Size(*_B2, True, (1, 2, 3), 256, 1024, 128, 2, 256, 1024, 4, (3, 6, 3), 4.0),
    "l": Size(*_B4, False, (1, 2, 3), 256, 1024, 128, 3, 256, 1024, 6, (3, 6, 3), 4.0),
    "x": Size(*_B5, False, (1, 2, 3), 384, 2048, 192, 3, 256, 1024, 6, (3, 6, 3), 8.0),
}


# Backbone: HGNetV2
