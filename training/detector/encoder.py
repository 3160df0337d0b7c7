"""RT-DETR's hybrid encoder (arXiv:2304.08069): feature maps to feature maps that have seen each other.

See `model.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sizes import Size

HEADS = 8


class ConvNorm(nn.Module):
    def __init__(self, cin, cout, kernel, stride=1, groups=1, act=False):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(cout)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return F.silu(x) if self.act else x


class RepVgg(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.conv1 = ConvNorm(dim, dim, 3)
        self.conv2 = ConvNorm(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.conv1(x) + self.conv2(x))


class Csp(nn.Module):
    def __init__(self, cin, dim, blocks):
        super().__init__()
        self.conv1 = ConvNorm(cin, dim, 1, act=True)
        self.conv2 = ConvNorm(cin, dim, 1, act=True)
        self.bottlenecks = nn.Sequential(*(RepVgg(dim) for _ in range(blocks)))

    def forward(self, x: Tensor) -> Tensor:
        return self.bottlenecks(self.conv1(x)) + self.conv2(x)


class Elan(nn.Module):
    """GELAN fusion of two concatenated maps: [B, 2 dim, h, w] to [B, dim, h, w]."""

    def __init__(self, dim, csp_dim, blocks):
        super().__init__()
        self.cv1 = ConvNorm(2 * dim, 2 * dim, 1, act=True)
        self.cv2 = nn.Sequential(Csp(dim, csp_dim, blocks), ConvNorm(csp_dim, csp_dim, 3, act=True))
        self.cv3 = nn.Sequential(Csp(csp_dim, csp_dim, blocks), ConvNorm(csp_dim, csp_dim, 3, act=True))
        self.cv4 = ConvNorm(2 * dim + 2 * csp_dim, dim, 1, act=True)

    def forward(self, x: Tensor) -> Tensor:
        first = self.cv1(x)
        second = self.cv2(first.chunk(2, 1)[1])
        return self.cv4(torch.cat([first, second, self.cv3(second)], 1))


class ScDown(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.cv1 = ConvNorm(dim, dim, 1)
        self.cv2 = ConvNorm(dim, dim, 3, stride=2, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv2(self.cv1(x))


class EncoderLayer(nn.Module):
    """Post-norm transformer layer; the position is added to queries and keys only."""

    def __init__(self, dim, ffn):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, HEADS, batch_first=True)
        self.linear1 = nn.Linear(dim, ffn)
        self.linear2 = nn.Linear(ffn, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        query = x + position
        x = self.norm1(x + self.self_attn(query, query, x, need_weights=False)[0])
        return self.norm2(x + self.linear2(F.gelu(self.linear1(x))))


class EncoderStack(nn.Module):
    def __init__(self, dim, ffn):
        super().__init__()
        self.layers = nn.ModuleList([EncoderLayer(dim, ffn)])

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, position)
        return x


def sincos_position(height: int, width: int, dim: int, like: Tensor) -> Tensor:
    """[1, h w, dim]. The grid is laid out column by column while tokens go row by row, as in the
    official code: on a square map x and y merely trade places."""
    token = torch.arange(height * width, dtype=torch.float32, device=like.device)
    omega = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float32, device=like.device) / (dim // 4))
    first = torch.div(token, height, rounding_mode="floor")[:, None] * omega
    second = torch.remainder(token, height)[:, None] * omega
    return torch.cat([first.sin(), first.cos(), second.sin(), second.cos()], 1)[None].to(like.dtype)


class HybridEncoder(nn.Module):
    def __init__(self, size: Size):
        super().__init__()
        dim, levels = size.encoder_dim, len(size.taps)
        self.input_proj = nn.ModuleList(ConvNorm(size.stages[t].out, dim, 1) for t in size.taps)
        self.encoder = nn.ModuleList([EncoderStack(dim, size.encoder_ffn)])
        self.lateral_convs = nn.ModuleList(ConvNorm(dim, dim, 1) for _ in range(levels - 1))
        self.fpn_blocks = nn.ModuleList(Elan(dim, size.csp_dim, size.csp_blocks) for _ in range(levels - 1))
        self.downsample_convs = nn.ModuleList(nn.Sequential(ScDown(dim)) for _ in range(levels - 1))
        self.pan_blocks = nn.ModuleList(Elan(dim, size.csp_dim, size.csp_blocks) for _ in range(levels - 1))

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        maps = [proj(x) for proj, x in zip(self.input_proj, features)]
        # Attention within the coarsest map only (AIFI).
        b, c, h, w = maps[-1].shape
        tokens = maps[-1].flatten(2).transpose(1, 2)
        tokens = self.encoder[0](tokens, sincos_position(h, w, c, tokens))
        maps[-1] = tokens.transpose(1, 2).reshape(b, c, h, w)
        # Top down: each coarser map joins the next finer one.
        high, inner = maps[-1], []
        for i, (lateral, block) in enumerate(zip(self.lateral_convs, self.fpn_blocks)):
            high = lateral(high)
            inner.insert(0, high)
            high = block(torch.cat([F.interpolate(high, scale_factor=2.0), maps[-2 - i]], 1))
        # Bottom up.
        outputs = [high]
        for down, block, skip in zip(self.downsample_convs, self.pan_blocks, inner):
            outputs.append(block(torch.cat([down(outputs[-1]), skip], 1)))
        return outputs


# Decoder
