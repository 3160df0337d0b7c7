"""MobileSAM: a promptable segmenter, for training and as a reference.

What comes in: grey images in three channels, normalised (`normalise`), `[B, 3, S, S]` with S a multiple of 64,
and prompts in pixels of that square: boxes, points, low-resolution masks.
What goes out: mask logits at a quarter of the input's resolution and a predicted IoU for each mask.

    model = MobileSam().eval()
    embedding = model.image_encoder(normalise(image))                     # [1, 256, S/16, S/16]
    masks, iou = model.predict(embedding, boxes_xyxy=boxes)               # [N, 1, S/4, S/4], [N, 1]

Written from the papers, with the parameter names and shapes of the official checkpoint `mobile_sam.pt`:
- TinyViT-5M image encoder: Wu et al., "TinyViT", ECCV 2022; with stride 16 (its last merging does not stride) and
  the neck of ViTDet, as in Zhang et al., "Faster Segment Anything", 2023.
- prompt encoder and two-way mask decoder: Kirillov et al., "Segment Anything", ICCV 2023, section 3 and appendix A.
TinyViT's classification head (`image_encoder.norm_head`, `image_encoder.head`) takes no part in SAM and is left out.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
EMBEDDING_STRIDE = 16
UNUSED_PREFIXES = ("image_encoder.norm_head.", "image_encoder.head.")


def normalise(grey):
    """`[B, H, W]` grey levels in 0..255 to `[B, 3, H, W]`: three equal channels, minus the mean, over the deviation."""
    mean = torch.tensor(PIXEL_MEAN, dtype=grey.dtype, device=grey.device).view(1, 3, 1, 1)
    std = torch.tensor(PIXEL_STD, dtype=grey.dtype, device=grey.device).view(1, 3, 1, 1)
    return (grey.unsqueeze(1) - mean) / std


# ---------------------------------------------------------------------------------------------- image encoder


class ConvNorm(nn.Sequential):
    """Convolution without bias, then batch norm."""

    def __init__(self, inputs, outputs, kernel=1, stride=1, groups=1):
        super().__init__()
        self.add_module("c", nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False))
        self.add_module("bn", nn.BatchNorm2d(outputs))


class PatchEmbed(nn.Module):
    """`[B, 3, S, S]` to `[B, dim, S/4, S/4]`."""

    def __init__(self, dim):
        super().__init__()
        self.seq = nn.Sequential(ConvNorm(3, dim // 2, 3, 2), nn.GELU(), ConvNorm(dim // 2, dim, 3, 2))

    def forward(self, x):
        return self.seq(x)


class MBConv(nn.Module):
    """Inverted residual: expand, depthwise, project, add, activate."""

    def __init__(self, dim, expansion=4):
        super().__init__()
        hidden = dim * expansion
        self.conv1 = ConvNorm(dim, hidden)
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.conv3 = ConvNorm(hidden, dim)

    def forward(self, x):
        y = F.gelu(self.conv1(x))
        y = F.gelu(self.conv2(y))
        return F.gelu(x + self.conv3(y))


class PatchMerging(nn.Module):
    """`[B, inputs, H, W]` to `[B, outputs, H/stride, W/stride]`."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs)
        self.conv2 = ConvNorm(outputs, outputs, 3, stride, groups=outputs)
        self.conv3 = ConvNorm(outputs, outputs)

    def forward(self, x):
        x = F.gelu(self.conv1(x))
        return self.conv3(F.gelu(self.conv2(x)))


class WindowAttention(nn.Module):
    """Multi-head attention within one window, with a learned bias for each |dy|, |dx|. `[N, window², dim]` both ways."""

    def __init__(self, dim, heads, window):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        position = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"), -1).view(-1, 2)
        offset = (position[:, None] - position[None]).abs()
        index = offset[..., 0] * window + offset[..., 1]
        self.register_buffer("bias_index", index, persistent=False)

    def forward(self, x):
        n, length, dim = x.shape
        # The channels of `qkv` are grouped by head: [q, k, v] of head 0, then of head 1, and so on.
        qkv = self.qkv(self.norm(x)).view(n, length, self.heads, 3, dim // self.heads)
        q, k, v = qkv.permute(3, 0, 2, 1, 4).unbind(0)
        scores = q @ k.transpose(-2, -1) * (dim // self.heads) ** -0.5 + self.attention_biases[:, self.bias_index]
        return self.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, length, dim))


class Mlp(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class DropPath(nn.Module):
    """Stochastic depth: drops a whole residual branch of a sample in training."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        if not self.training or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        return x * (torch.rand(x.shape[0], *[1] * (x.dim() - 1), dtype=x.dtype, device=x.device) < keep) / keep


class TinyViTBlock(nn.Module):
    """Window attention, 3x3 depthwise convolution, MLP. `[B, dim, H, W]` both ways."""

    def __init__(self, dim, heads, window, drop_path):
        super().__init__()
        self.window = window
        self.attn = WindowAttention(dim, heads, window)
        self.mlp = Mlp(dim, 4 * dim)
        self.local_conv = ConvNorm(dim, dim, 3, groups=dim)
        self.drop_path = DropPath(drop_path)

    def forward(self, x):
        tokens = x.permute(0, 2, 3, 1)
        tokens = tokens + self.drop_path(self.attend(tokens))
        tokens = self.local_conv(tokens.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return (tokens + self.drop_path(self.mlp(tokens))).permute(0, 3, 1, 2)

    def attend(self, x):
        """Attention over windows of `[B, H, W, dim]`. Maps that do not divide are padded with zeros *before* the
        attention's norm, so padding takes part as tokens of value `norm.bias`, as in the original."""
        b, h, w, dim = x.shape
        s = self.window
        rows, columns = math.ceil(h / s), math.ceil(w / s)
        x = F.pad(x, (0, 0, 0, columns * s - w, 0, rows * s - h))
        x = x.view(b, rows, s, columns, s, dim).transpose(2, 3).reshape(b * rows * columns, s * s, dim)
        x = self.attn(x)
        x = x.view(b, rows, columns, s, s, dim).transpose(2, 3).reshape(b, rows * s, columns * s, dim)
        return x[:, :h, :w]


class Stage(nn.Module):
    """Blocks, then a merging (not after the last stage)."""

    def __init__(self, blocks, downsample):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = downsample

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of `[B, C, H, W]`."""

    def __init__(self, channels, epsilon=1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.epsilon = epsilon

    def forward(self, x):
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.epsilon)
        return x.permute(0, 3, 1, 2)


class TinyViT(nn.Module):
    """TinyViT-5M with SAM's neck: `[B, 3, S, S]` to the image embedding `[B, 256, S/16, S/16]`."""

    DIMS, DEPTHS, HEADS, WINDOWS = (64, 128, 160, 320), (2, 2, 6, 2), (2, 4, 5, 10), (7, 7, 14, 7)
    # The last merging keeps the resolution, so that the stride is 16 and not 32.
    MERGE_STRIDES = (2, 2, 1)

    def __init__(self, embedding_dim=256, drop_path=0.0):
        super().__init__()
        rates = torch.linspace(0, drop_path, sum(self.DEPTHS)).tolist()
        self.patch_embed = PatchEmbed(self.DIMS[0])
        self.layers = nn.ModuleList()
        for i, (dim, depth) in enumerate(zip(self.DIMS, self.DEPTHS)):
            first = sum(self.DEPTHS[:i])
            blocks = [
                MBConv(dim) if i == 0 else TinyViTBlock(dim, self.HEADS[i], self.WINDOWS[i], rates[first + j])
                for j in range(depth)
            ]
            merging = PatchMerging(dim, self.DIMS[i + 1], self.MERGE_STRIDES[i]) if i < 3 else None
            self.layers.append(Stage(blocks, merging))
        self.neck = nn.Sequential(
            nn.Conv2d(self.DIMS[-1], embedding_dim, 1, bias=False),
            LayerNorm2d(embedding_dim),
            nn.Conv2d(embedding_dim, embedding_dim, 3, padding=1, bias=False),
            LayerNorm2d(embedding_dim),
        )

    def forward(self, x):
        x = self.patch_embed(x)
        for layer in self.layers:
            x = layer(x)
        return self.neck(x)


# --------------------------------------------------------------------------------------------- prompt encoder


class PositionEncoding(nn.Module):
    """Random Fourier features of positions in 0..1 (Tancik et al. 2020)."""

    def __init__(self, features):
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, features))

    def forward(self, xy):
        """`[..., 2]` in 0..1 to `[..., 2 * features]`. Stays in float32: the phase reaches tens of radians."""
        with torch.autocast(xy.device.type, enabled=False):
            phase = 2 * math.pi * ((2 * xy.float() - 1) @ self.positional_encoding_gaussian_matrix.float())
            return torch.cat([phase.sin(), phase.cos()], -1)

    def grid(self, height, width):
        """Encoding of the cell centres: `[1, 2 * features, height, width]`."""
        device = self.positional_encoding_gaussian_matrix.device
        y = (torch.arange(height, device=device) + 0.5) / height
        x = (torch.arange(width, device=device) + 0.5) / width
        return self.cells(x, y)

    def cells(self, x, y):
        """Encoding of the cells with centres `x` [width], `y` [height] in 0..1: `[1, 2 * features, height, width]`."""
        xy = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
        return self(xy).permute(2, 0, 1).unsqueeze(0)


class PromptEncoder(nn.Module):
    """Points, boxes and mask prompts to sparse tokens `[N, T, 256]` and a dense map `[N, 256, h, w]`."""

    NEGATIVE, POSITIVE, CORNER_MIN, CORNER_MAX = range(4)

    def __init__(self, dim=256, mask_channels=16):
        super().__init__()
        self.pe_layer = PositionEncoding(dim // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, dim) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, dim)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, 2, 2),
            LayerNorm2d(mask_channels // 4),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, 2, 2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, dim, 1),
        )
        self.no_mask_embed = nn.Embedding(1, dim)

    def position(self, grid_size, view=None):
        """Encoding of the embedding's cells, `[1, 256, h, w]`; `view` as in `forward`."""
        height, width = grid_size
        if view is None:
            return self.pe_layer.grid(height, width)
        side, left, top = view
        x = (torch.arange(width) + 0.5) * EMBEDDING_STRIDE + left
        y = (torch.arange(height) + 0.5) * EMBEDDING_STRIDE + top
        return self.pe_layer.cells(x / side, y / side)

    def forward(
        self, grid_size, boxes_xyxy=None, points_xy=None, point_labels=None, mask_logits=None, view=None
    ):
        """`boxes_xyxy` [N, 4] and `points_xy` [N, P, 2] in pixels of the network input, `point_labels` [N, P] (1 on
        the object, 0 off it, -1 no point), `mask_logits` [N, 1, 4h, 4w]; `grid_size` is (h, w) of the embedding.

        A `view` (side, left, top) in pixels says that the input is a part of a larger square: positions are encoded
        as in that, so that training on crops speaks of the same pixels as running on whole frames."""
        height, width = grid_size
        size = torch.tensor([width, height]) * EMBEDDING_STRIDE
        if view is not None:
            side, left, top = view
            size, corner = torch.tensor([side, side]), torch.tensor([left, top], dtype=torch.float32)
            boxes_xyxy = None if boxes_xyxy is None else boxes_xyxy + corner.repeat(2)
            points_xy = None if points_xy is None else points_xy + corner
        tokens = []
        if points_xy is not None:
            if boxes_xyxy is None:
                # Without a box a point list ends with one "no point", as the original was trained.
                points_xy = torch.cat([points_xy, points_xy.new_zeros(len(points_xy), 1, 2)], 1)
                point_labels = torch.cat([point_labels, point_labels.new_full((len(point_labels), 1), -1)], 1)
            labels = point_labels.unsqueeze(-1)
            encoded = self.pe_layer((points_xy + 0.5) / size)
            encoded = torch.where(labels == -1, self.not_a_point_embed.weight, encoded)
            encoded = encoded + (labels == 0) * self.point_embeddings[self.NEGATIVE].weight
            tokens.append(encoded + (labels == 1) * self.point_embeddings[self.POSITIVE].weight)
        if boxes_xyxy is not None:
            corners = self.pe_layer((boxes_xyxy.view(-1, 2, 2) + 0.5) / size)
            kinds = torch.cat([self.point_embeddings[k].weight for k in (self.CORNER_MIN, self.CORNER_MAX)])
            tokens.append(corners + kinds)
        sparse = torch.cat(tokens, 1)
        if mask_logits is not None:
            dense = self.mask_downscaling(mask_logits)
        else:
            dense = self.no_mask_embed.weight.view(1, -1, 1, 1).expand(len(sparse), -1, height, width)
        return sparse, dense


# ----------------------------------------------------------------------------------------------- mask decoder


class Attention(nn.Module):
    """Multi-head attention whose inner width is `dim / reduction`."""

    def __init__(self, dim, heads=8, reduction=1):
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(dim, dim // reduction)
        self.k_proj = nn.Linear(dim, dim // reduction)
        self.v_proj = nn.Linear(dim, dim // reduction)
        self.out_proj = nn.Linear(dim // reduction, dim)

    def split(self, x):
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(self, q, k, v):
        q, k, v = self.split(self.q_proj(q)), self.split(self.k_proj(k)), self.split(self.v_proj(v))
        x = F.scaled_dot_product_attention(q, k, v)
        return self.out_proj(x.transpose(1, 2).flatten(2))


class TokenMlp(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden)
        self.lin2 = nn.Linear(hidden, dim)

    def forward(self, x):
        return self.lin2(F.relu(self.lin1(x)))


class TwoWayBlock(nn.Module):
    """Tokens among themselves, tokens to image, MLP on the tokens, image to tokens."""

    def __init__(self, dim, heads, mlp_dim, first):
        super().__init__()
        self.first = first
        self.self_attn = Attention(dim, heads)
        self.norm1 = nn.LayerNorm(dim)
        self.cross_attn_token_to_image = Attention(dim, heads, 2)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = TokenMlp(dim, mlp_dim)
        self.norm3 = nn.LayerNorm(dim)
        self.norm4 = nn.LayerNorm(dim)
        self.cross_attn_image_to_token = Attention(dim, heads, 2)

    def forward(self, tokens, image, token_position, image_position):
        if self.first:
            # The tokens still equal their positions here: nothing to add, and no residual.
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            q = tokens + token_position
            tokens = tokens + self.self_attn(q, q, tokens)
        tokens = self.norm1(tokens)
        q, k = tokens + token_position, image + image_position
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(q, k, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        q, k = image + image_position, tokens + token_position
        image = self.norm4(image + self.cross_attn_image_to_token(q, k, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    def __init__(self, dim, depth=2, heads=8, mlp_dim=2048):
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(dim, heads, mlp_dim, i == 0) for i in range(depth))
        self.final_attn_token_to_image = Attention(dim, heads, 2)
        self.norm_final_attn = nn.LayerNorm(dim)

    def forward(self, image, image_position, prompt):
        """`image` and `image_position` [N, hw, dim], `prompt` [N, T, dim]; both streams come back updated."""
        tokens = prompt
        for layer in self.layers:
            tokens, image = layer(tokens, image, prompt, image_position)
        q, k = tokens + prompt, image + image_position
        return self.norm_final_attn(tokens + self.final_attn_token_to_image(q, k, image)), image


class Head(nn.Module):
    """Three-layer perceptron."""

    def __init__(self, inputs, hidden, outputs):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, outputs)])

    def forward(self, x):
        return self.layers[2](F.relu(self.layers[1](F.relu(self.layers[0](x)))))


class MaskDecoder(nn.Module):
    """Embedding and prompts to four masks (0: the single answer, 1 to 3: for ambiguous prompts) with their IoU."""

    MASKS = 4

    def __init__(self, dim=256):
        super().__init__()
        self.transformer = TwoWayTransformer(dim)
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(self.MASKS, dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(dim, dim // 4, 2, 2),
            LayerNorm2d(dim // 4),
            nn.GELU(),
            nn.ConvTranspose2d(dim // 4, dim // 8, 2, 2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(Head(dim, dim, dim // 8) for _ in range(self.MASKS))
        self.iou_prediction_head = Head(dim, 256, self.MASKS)

    def forward(self, embedding, position, sparse, dense):
        """`embedding` [N, 256, h, w] one for each prompt, `position` [1, 256, h, w], `sparse` [N, T, 256], `dense`
        [N, 256, h, w]; to mask logits [N, 4, 4h, 4w] and IoU [N, 4]."""
        n, dim, height, width = embedding.shape
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(n, -1, -1)
        image = (embedding + dense).flatten(2).transpose(1, 2)
        position = position.flatten(2).transpose(1, 2)
        tokens, image = self.transformer(image, position, torch.cat([own, sparse], 1))
        iou = self.iou_prediction_head(tokens[:, 0])
        features = self.output_upscaling(image.transpose(1, 2).reshape(n, dim, height, width))
        kernels = torch.stack([mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], 1)
        masks = kernels @ features.flatten(2)
        return masks.view(n, self.MASKS, *features.shape[2:]), iou


class MobileSam(nn.Module):
    def __init__(self, drop_path=0.0):
        super().__init__()
        self.image_encoder = TinyViT(drop_path=drop_path)
        self.prompt_encoder = PromptEncoder()
        self.mask_decoder = MaskDecoder()

    def decode(self, embedding, image_index=None, view=None, **prompts):
        """All four masks [N, 4, 4h, 4w] and IoU [N, 4]; `image_index` [N] says which of the B embeddings a prompt is
        for (the first when left out). Prompts and `view` as in `PromptEncoder.forward`."""
        grid_size = embedding.shape[-2:]
        sparse, dense = self.prompt_encoder(grid_size, view=view, **prompts)
        if image_index is None:
            image_index = torch.zeros(len(sparse), dtype=torch.long, device=embedding.device)
        position = self.prompt_encoder.position(grid_size, view)
        return self.mask_decoder(embedding[image_index], position, sparse, dense)

    def predict(self, embedding, multimask=False, **prompts):
        """One mask [N, 1, 4h, 4w] and its IoU [N, 1], or with `multimask` three."""
        masks, iou = self.decode(embedding, **prompts)
        return (masks[:, 1:], iou[:, 1:]) if multimask else (masks[:, :1], iou[:, :1])
