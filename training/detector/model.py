"""D-FINE (Peng et al., 2024, arXiv:2410.13842) in PyTorch: sizes N, S, M, L and X.

In: float images [B, 3, H, W] in 0..1, H and W multiples of 32. Out: a dict with `pred_logits`
[B, Q, classes] and `pred_boxes` [B, Q, 4] (cx, cy, w, h as shares of the image), and in training
everything that the losses need. Parameter names and shapes are those of the official checkpoints,
so either side's files load in the other.

    model = DFine("n", num_classes=2)
    out = model(torch.rand(1, 3, 320, 320))

Sources: the D-FINE paper for the decoder (FDR, section 4.1; LQE, appendix), RT-DETR
(arXiv:2304.08069) for the hybrid encoder and query selection, PP-HGNetV2 (PaddleClas) for the backbone,
Deformable DETR (arXiv:2010.04159) for the cross attention. `check_parity.py` compares with outputs of the official code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEADS = 8
REG_MAX = 32
ANCHOR_SIDE = 0.05  # of the image, on the finest level; doubles with each level
INVALID_MARGIN = 0.01  # anchors whose box comes closer to the border are not used


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


class Mlp(nn.Module):
    def __init__(self, cin, hidden, cout, layers):
        super().__init__()
        widths = [cin] + [hidden] * (layers - 1) + [cout]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class DeformableAttention(nn.Module):
    """Multi-scale deformable attention without value and output projections.

    Sampling coordinates and interpolation stay in float32 under autocast: half precision is known
    to break them.
    """

    def __init__(self, dim, points: tuple[int, ...]):
        super().__init__()
        self.points = points
        total = HEADS * sum(points)
        self.sampling_offsets = nn.Linear(dim, total * 2)
        self.attention_weights = nn.Linear(dim, total)
        scale = torch.tensor([1.0 / n for n in points for _ in range(n)])
        self.register_buffer("num_points_scale", scale)

    def forward(self, query: Tensor, boxes: Tensor, values: list[Tensor]) -> Tensor:
        """`query` [B, Q, C], `boxes` [B, Q, 4], `values` per level [B heads, C / heads, h, w]."""
        b, q, c = query.shape
        total = sum(self.points)
        offsets = self.sampling_offsets(query).reshape(b, q, HEADS, total, 2)
        weights = self.attention_weights(query).reshape(b, q, HEADS, total).float().softmax(-1)
        # A point's offset is in halves of the box, thinned by the level's number of points.
        scale = self.num_points_scale[:, None] * 0.5
        centre, extent = boxes[:, :, None, None, :2], boxes[:, :, None, None, 2:]
        grid = 2 * (centre + offsets.to(scale.dtype) * scale * extent) - 1
        grid = grid.transpose(1, 2).flatten(0, 1)  # [B heads, Q, points, 2]
        weights = weights.to(grid.dtype).transpose(1, 2).flatten(0, 1)[:, None]
        sampled = [
            F.grid_sample(value.to(part.dtype), part, mode="bilinear", padding_mode="zeros", align_corners=False)
            for value, part in zip(values, grid.split(self.points, 2))
        ]
        out = (torch.cat(sampled, -1) * weights).sum(-1)  # [B heads, C / heads, Q]
        return out.reshape(b, c, q).transpose(1, 2)


class Gate(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.gate = nn.Linear(2 * dim, 2 * dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, old: Tensor, new: Tensor) -> Tensor:
        keep, take = self.gate(torch.cat([old, new], -1)).sigmoid().chunk(2, -1)
        return self.norm(keep * old + take * new)


class DecoderLayer(nn.Module):
    def __init__(self, dim, ffn, points):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(dim, HEADS, batch_first=True)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn = DeformableAttention(dim, points)
        self.gateway = Gate(dim)
        self.linear1 = nn.Linear(dim, ffn)
        self.linear2 = nn.Linear(ffn, dim)
        self.norm3 = nn.LayerNorm(dim)

    def forward(self, x: Tensor, position: Tensor, boxes: Tensor, values: list[Tensor], hidden: Tensor | None) -> Tensor:
        query = x + position
        attended = self.self_attn(query, query, x, attn_mask=hidden, need_weights=False)[0]
        x = self.norm1(x + attended)
        x = self.gateway(x, self.cross_attn(x + position, boxes, values))
        x = x + self.linear2(F.relu(self.linear1(x)))
        return self.norm3(x.clamp(-65504, 65504))


class QualityEstimator(nn.Module):
    """LQE: corrects the class score by how peaked the four edge distributions are."""

    def __init__(self, top=4):
        super().__init__()
        self.top = top
        self.reg_conf = Mlp(4 * (top + 1), 64, 1, 2)

    def forward(self, scores: Tensor, corners: Tensor) -> Tensor:
        b, q, _ = corners.shape
        top = corners.reshape(b, q, 4, REG_MAX + 1).softmax(-1).topk(self.top, -1).values
        statistics = torch.cat([top, top.mean(-1, keepdim=True)], -1)
        return scores + self.reg_conf(statistics.reshape(b, q, -1))


def edge_weights(up: Tensor, reg_scale: Tensor) -> Tensor:
    """W(n) of the paper's equation 3: 33 edge offsets, dense near zero, symmetric, [33]."""
    bound = (up.abs() * reg_scale.abs()).reshape(1)
    step = (bound + 1) ** (2 / (REG_MAX - 2))
    half = step ** torch.arange(1, REG_MAX // 2, device=up.device, dtype=up.dtype) - 1
    return torch.cat([-2 * bound, -half.flip(0), torch.zeros_like(bound), half, 2 * bound])


def decode_edges(reference: Tensor, corners: Tensor, weights: Tensor, reg_scale: Tensor) -> Tensor:
    """Boxes from edge distributions: `reference` [B, Q, 4] cxcywh, `corners` [B, Q, 4 * 33] logits."""
    b, q, _ = corners.shape
    distance = corners.reshape(b, q, 4, REG_MAX + 1).softmax(-1) @ weights
    scale = reg_scale.abs()
    edge = 0.5 * scale + distance
    unit = reference[..., 2:] / scale
    low = reference[..., :2] - edge[..., :2] * unit
    high = reference[..., :2] + edge[..., 2:] * unit
    return torch.cat([(low + high) / 2, high - low], -1)


def inverse_sigmoid(x: Tensor, eps: float = 1e-5) -> Tensor:
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def make_anchors(shapes: list[tuple[int, int]], device=None, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """Anchors as logits [1, N, 4], inf where unusable, and the mask of usable ones [1, N, 1].
    `scale`: the side of the whole view over that of the image, for an image that is a crop of a view."""
    anchors = []
    for level, (h, w) in enumerate(shapes):
        y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
        side = torch.full((h, w), min(0.5, ANCHOR_SIDE * scale * 2.0**level))
        anchors.append(torch.stack([(x + 0.5) / w, (y + 0.5) / h, side, side], -1).reshape(-1, 4))
    anchors = torch.cat(anchors)[None]
    valid = ((anchors > INVALID_MARGIN) & (anchors < 1 - INVALID_MARGIN)).all(-1, keepdim=True)
    logits = torch.log(anchors / (1 - anchors)).masked_fill(~valid, torch.inf)
    return logits.to(device), valid.to(device)


class DecoderStack(nn.Module):
    """The layers and their quality estimators, with the constants of the edge distribution."""

    def __init__(self, size: Size):
        super().__init__()
        self.up = nn.Parameter(torch.tensor([0.5]), requires_grad=False)
        self.reg_scale = nn.Parameter(torch.tensor([size.reg_scale]), requires_grad=False)
        self.layers = nn.ModuleList(DecoderLayer(size.dim, size.ffn, size.points) for _ in range(size.layers))
        self.lqe_layers = nn.ModuleList(QualityEstimator() for _ in range(size.layers))


class Decoder(nn.Module):
    def __init__(self, size: Size, num_classes: int, queries: int, input_size: tuple[int, int]):
        super().__init__()
        dim = size.dim
        self.queries, self.num_classes = queries, num_classes
        # Held twice because official checkpoints hold them twice.
        self.up = nn.Parameter(torch.tensor([0.5]), requires_grad=False)
        self.reg_scale = nn.Parameter(torch.tensor([size.reg_scale]), requires_grad=False)
        strides = [2 ** (t + 2) for t in size.taps]
        anchors, valid = make_anchors([(input_size[0] // s, input_size[1] // s) for s in strides])
        self.register_buffer("anchors", anchors)
        self.register_buffer("valid_mask", valid)
        if size.encoder_dim != dim:
            self.input_proj = nn.ModuleList(ConvNorm(size.encoder_dim, dim, 1) for _ in size.taps)
        else:
            self.input_proj = None
        self.decoder = DecoderStack(size)
        self.denoising_class_embed = nn.Embedding(num_classes + 1, dim, padding_idx=num_classes)
        self.query_pos_head = Mlp(4, 2 * dim, dim, 2)
        self.anchor_scale = 1.0  # of images that are crops: see `make_anchors`
        self.enc_output = nn.Sequential()
        self.enc_output.add_module("proj", nn.Linear(dim, dim))
        self.enc_output.add_module("norm", nn.LayerNorm(dim))
        self.enc_score_head = nn.Linear(dim, num_classes)
        self.enc_bbox_head = Mlp(dim, dim, 4, 3)
        self.dec_score_head = nn.ModuleList(nn.Linear(dim, num_classes) for _ in range(size.layers))
        self.pre_bbox_head = Mlp(dim, dim, 4, 3)
        self.dec_bbox_head = nn.ModuleList(Mlp(dim, dim, 4 * (REG_MAX + 1), 3) for _ in range(size.layers))
        self._initialise()

    def _initialise(self):
        # Focal-loss prior: every class starts at 1 %.
        for head in [self.enc_score_head, *self.dec_score_head]:
            nn.init.constant_(head.bias, -math.log(0.99 / 0.01))
        # Boxes start at their references, distributions uniform, quality neutral.
        for mlp in [self.enc_bbox_head, self.pre_bbox_head, *self.dec_bbox_head]:
            nn.init.zeros_(mlp.layers[-1].weight)
            nn.init.zeros_(mlp.layers[-1].bias)
        for lqe in self.decoder.lqe_layers:
            nn.init.zeros_(lqe.reg_conf.layers[-1].weight)
            nn.init.zeros_(lqe.reg_conf.layers[-1].bias)
        nn.init.xavier_uniform_(self.enc_output.proj.weight)
        for layer in self.query_pos_head.layers:
            nn.init.xavier_uniform_(layer.weight)
        nn.init.normal_(self.denoising_class_embed.weight[:-1])
        for layer in self.decoder.layers:
            nn.init.xavier_uniform_(layer.linear1.weight)
            nn.init.xavier_uniform_(layer.linear2.weight)
            gate = layer.gateway.gate
            nn.init.zeros_(gate.weight)
            nn.init.zeros_(gate.bias)
            self._initialise_sampling(layer.cross_attn)

    @staticmethod
    def _initialise_sampling(attention: DeformableAttention):
        """Each head looks in its own direction, each point of a level a step further."""
        angle = torch.arange(HEADS, dtype=torch.float32) * (2 * math.pi / HEADS)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        direction = direction / direction.abs().max(-1, keepdim=True).values
        step = torch.cat([torch.arange(1, n + 1) for n in attention.points]).float()
        with torch.no_grad():
            attention.sampling_offsets.bias.copy_((direction[:, None] * step[None, :, None]).flatten())
        for parameter in (attention.sampling_offsets.weight, *attention.attention_weights.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, maps: list[Tensor], denoising: dict | None = None) -> dict:
        """`denoising`: `labels` [B, D], `boxes_unact` [B, D, 4] and `hidden`, the attention mask
        [D + Q, D + Q], True where a query must not look."""
        if self.input_proj is not None:
            maps = [proj(x) for proj, x in zip(self.input_proj, maps)]
        shapes = [tuple(x.shape[-2:]) for x in maps]
        memory = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], 1)
        b, _, c = memory.shape
        # Heads become batch entries: [B heads, C / heads, h, w], a view of each map.
        values = [x.reshape(b * HEADS, c // HEADS, *x.shape[-2:]).float() for x in maps]

        if sum(h * w for h, w in shapes) == self.anchors.shape[1]:
            anchors, valid = self.anchors, self.valid_mask
        else:
            anchors, valid = make_anchors(shapes, memory.device, self.anchor_scale)
        selected = self._select(self.enc_output(valid.to(memory.dtype) * memory), anchors)
        content, boxes_unact = selected["content"].detach(), selected["boxes_unact"].detach()
        hidden = None
        if denoising is not None:
            noisy = self.denoising_class_embed(denoising["labels"]).to(content.dtype)
            content = torch.cat([noisy, content], 1)
            boxes_unact = torch.cat([denoising["boxes_unact"], boxes_unact], 1)
            hidden = denoising["hidden"]
        layers, pre = self._refine(content, boxes_unact, values, hidden)
        out = {"pred_logits": layers[-1]["pred_logits"], "pred_boxes": layers[-1]["pred_boxes"]}
        if self.training:
            out["layers"], out["pre"] = layers, pre
            out["encoder"] = {"pred_logits": selected["logits"], "pred_boxes": selected["boxes_unact"].sigmoid()}
        return out

    def _select(self, memory: Tensor, anchors: Tensor) -> dict:
        """The `queries` tokens with the best class score."""
        logits = self.enc_score_head(memory)
        count = min(self.queries, logits.shape[1])
        chosen = logits.max(-1).values.topk(count, 1).indices[..., None]
        content = memory.gather(1, chosen.expand(-1, -1, memory.shape[-1]))
        anchor = anchors.expand(memory.shape[0], -1, -1).gather(1, chosen.expand(-1, -1, 4))
        return {
            "content": content,
            "logits": logits.gather(1, chosen.expand(-1, -1, logits.shape[-1])).to(anchor.dtype),
            "boxes_unact": self.enc_bbox_head(content).to(anchor.dtype) + anchor,
        }

    def _refine(self, x, boxes_unact, values, hidden) -> tuple[list[dict], dict | None]:
        """Fine-grained distribution refinement, paper section 4.1: layer 0 makes initial boxes, and
        every layer adds to the edge distributions around them."""
        stack = self.decoder
        weights = edge_weights(stack.up, stack.reg_scale)
        boxes = boxes_unact.sigmoid()
        wide = boxes.dtype
        layers, pre, initial = [], None, None
        previous, corners = 0.0, 0.0
        for i, layer in enumerate(stack.layers):
            position = self.query_pos_head(boxes).clamp(-10, 10)
            x = layer(x, position, boxes, values, hidden)
            if i == 0:
                pre_boxes = (self.pre_bbox_head(x).to(wide) + inverse_sigmoid(boxes)).sigmoid()
                initial = pre_boxes.detach()
                if self.training:
                    pre = {"pred_logits": self.dec_score_head[0](x).to(wide), "pred_boxes": pre_boxes}
            corners = self.dec_bbox_head[i](x + previous).to(wide) + corners
            refined = decode_edges(initial, corners, weights, stack.reg_scale)
            if self.training or i == len(stack.layers) - 1:
                scores = stack.lqe_layers[i](self.dec_score_head[i](x), corners).to(wide)
                layers.append(
                    {"pred_logits": scores, "pred_boxes": refined, "corners": corners, "reference": initial}
                )
            boxes, previous = refined.detach(), x.detach()
        return layers, pre


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
