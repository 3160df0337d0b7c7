"""PP-HGNetV2 (PaddleClas), D-FINE's backbone: an image to feature maps.

See `model.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sizes import Size, Stage


class Affine(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.bias


class ConvBnAct(nn.Module):
    def __init__(self, cin, cout, kernel, stride=1, groups=1, padding=None, act=True, affine=False):
        super().__init__()
        padding = (kernel - 1) // 2 if padding is None else padding
        self.conv = nn.Conv2d(cin, cout, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(cout)
        self.act = act
        self.lab = Affine() if act and affine else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        if self.act:
            x = F.relu(x)
        return x if self.lab is None else self.lab(x)


class LightConv(nn.Module):
    def __init__(self, cin, cout, kernel, affine):
        super().__init__()
        self.conv1 = ConvBnAct(cin, cout, 1, act=False)
        self.conv2 = ConvBnAct(cout, cout, kernel, groups=cout, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.conv1(x))


class Stem(nn.Module):
    def __init__(self, mid, out, affine):
        super().__init__()
        self.stem1 = ConvBnAct(3, mid, 3, stride=2, affine=affine)
        self.stem2a = ConvBnAct(mid, mid // 2, 2, padding=0, affine=affine)
        self.stem2b = ConvBnAct(mid // 2, mid, 2, padding=0, affine=affine)
        self.stem3 = ConvBnAct(mid * 2, mid, 3, stride=2, affine=affine)
        self.stem4 = ConvBnAct(mid, out, 1, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(self.stem1(x), (0, 1, 0, 1))
        deep = self.stem2b(F.pad(self.stem2a(x), (0, 1, 0, 1)))
        x = torch.cat([F.max_pool2d(x, 2, 1), deep], 1)
        return self.stem4(self.stem3(x))


class HgBlock(nn.Module):
    def __init__(self, cin, stage: Stage, residual, affine):
        super().__init__()
        inputs = [cin] + [stage.mid] * (stage.layers - 1)
        make = LightConv if stage.light else ConvBnAct
        self.layers = nn.ModuleList(make(c, stage.mid, stage.kernel, affine=affine) for c in inputs)
        self.aggregation = nn.Sequential(
            ConvBnAct(cin + stage.layers * stage.mid, stage.out // 2, 1, affine=affine),
            ConvBnAct(stage.out // 2, stage.out, 1, affine=affine),
        )
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        outputs = [x]
        for layer in self.layers:
            outputs.append(layer(outputs[-1]))
        y = self.aggregation(torch.cat(outputs, 1))
        return x + y if self.residual else y


class HgStage(nn.Module):
    def __init__(self, cin, stage: Stage, downsample, affine):
        super().__init__()
        self.downsample = ConvBnAct(cin, cin, 3, stride=2, groups=cin, act=False) if downsample else nn.Identity()
        self.blocks = nn.Sequential(
            *(HgBlock(stage.out if i else cin, stage, residual=i > 0, affine=affine) for i in range(stage.blocks))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class HgNetV2(nn.Module):
    """Features of the stages in `taps`, finest first."""

    def __init__(self, size: Size):
        super().__init__()
        self.taps = size.taps
        self.stem = Stem(*size.stem, size.affine)
        widths = [size.stem[1]] + [s.out for s in size.stages]
        self.stages = nn.ModuleList(
            HgStage(widths[i], stage, downsample=i > 0, affine=size.affine) for i, stage in enumerate(size.stages)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.stem(x)
        outputs = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self.taps:
                outputs.append(x)
        return outputs


# Hybrid encoder
