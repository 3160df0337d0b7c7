"""D-FINE's decoder: queries chosen from the encoder's maps, boxes refined layer by layer as distributions of their edges.

Sources: the D-FINE paper (FDR, section 4.1; LQE, appendix), RT-DETR (arXiv:2304.08069) for the choice of queries,
Deformable DETR (arXiv:2010.04159) for the cross attention. See `model.py`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoder import HEADS, ConvNorm
from sizes import Size

REG_MAX = 32
ANCHOR_SIDE = 0.05  # of the image, on the finest level; doubles with each level
INVALID_MARGIN = 0.01  # anchors whose box comes closer to the border are not used


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
