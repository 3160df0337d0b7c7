"""The decoder's warm start: to draw the ellipse that a box holds, before any image is looked at.

    python training/segmenter/geometry.py runs/geometry.pt --minutes 15

In: nothing. Out: a state dict of `MobileSam` whose prompt encoder and mask decoder outline an ellipse in any box, on
embeddings of random numbers. A two-way decoder from scratch takes thousands of steps before its masks are where their
boxes are; here a step costs a fraction of one with images.
"""

import os

# Waiting threads sleep rather than spin: on a busy machine that halves the cost of a step.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from losses import outline_loss
from model import EMBEDDING_STRIDE, MobileSam
from samples import CROP_SIDE, RUN_TIME_SIDE, random_view

# Standard deviation of the image embedding (at most) and of learned tokens at the start; positions have about 0.7.
EMBEDDING_SCALE = 0.3
PEAK_LR, WARM_UP_STEPS, CLIP = 1e-3, 60, 1.0
# Every fourth step is at the run-time size, the others on the cheaper crops.
WHOLE_EVERY, CROP_PROMPTS, WHOLE_PROMPTS = 4, 16, 8
# Cycles per half of the image: below a quarter a sine is monotonic over the image, and tells left from right at once.
AXIS_FREQUENCIES = (0.1, 2.0)


def position_matrix(generator):
    """[2, 128]: SAM's random directions and, in half of the columns, frequencies along x alone and along y alone,
    geometrically spaced. Edges of boxes are along the axes, and the slow waves among them are nearly the coordinate."""
    matrix = torch.zeros(2, 128)
    low, high = (math.log10(f) for f in AXIS_FREQUENCIES)
    matrix[0, :32] = matrix[1, 32:64] = torch.logspace(low, high, 32)
    matrix[:, 64:] = torch.randn(2, 64, generator=generator)
    return matrix


def initialise(model, seed=0):
    """Residual branches of the image encoder begin as the identity. In the decoder positions begin louder than contents,
    and tokens and image begin by attending to each other where they are near."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
    for stage in model.image_encoder.layers:
        for block in stage.blocks:
            if hasattr(block, "conv3"):
                nn.init.zeros_(block.conv3.bn.weight)
            else:
                nn.init.zeros_(block.attn.proj.weight)
                nn.init.zeros_(block.mlp.fc2.weight)
    nn.init.constant_(model.image_encoder.neck[3].weight, EMBEDDING_SCALE)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=EMBEDDING_SCALE)
    transformer = model.mask_decoder.transformer
    for layer in transformer.layers:
        for attention in (layer.cross_attn_token_to_image, layer.cross_attn_image_to_token):
            attention.q_proj.weight.data.mul_(1.5)
            attention.k_proj.weight.data.copy_(attention.q_proj.weight.data)
    final = transformer.final_attn_token_to_image
    final.q_proj.weight.data.mul_(1.5)
    final.k_proj.weight.data.copy_(final.q_proj.weight.data)
    matrix = position_matrix(torch.Generator().manual_seed(seed))
    model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix.copy_(matrix)


def random_embeddings(grid, count):
    """[N, 256, grid, grid], smooth and noisy, each scaled at random up to what the image encoder's may have."""
    smooth = F.interpolate(torch.randn(count, 256, 4, 4), (grid, grid), mode="bilinear")
    mixed = smooth + 0.5 * torch.randn(count, 256, grid, grid)
    scale = EMBEDDING_SCALE * torch.rand(count, 1, 1, 1)
    return scale * F.layer_norm(mixed.permute(0, 2, 3, 1), (256,)).permute(0, 3, 1, 2)


def ellipses(side, count, rng):
    """Random boxes [N, 4] in a square and, at half its resolution, the distance in pixels to the outline of the ellipse
    in each, positive inside: [N, side/2, side/2]. To first order: exact on the outline, where it matters."""
    sides = np.exp(rng.uniform(np.log(14), np.log(0.7 * side), (count, 1)) + rng.uniform(-0.5, 0.5, (count, 2)))
    sides = sides.clip(10, side)
    corner = rng.random((count, 2)) * (side - sides)
    boxes = torch.from_numpy(np.concatenate([corner, corner + sides], 1).astype(np.float32))
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    half_x, half_y = half[:, 0, None, None], half[:, 1, None, None]
    pixel = torch.arange(side // 2) * 2 + 1.0
    dx = (pixel[None, None, :] - centre[:, 0, None, None]) / half_x
    dy = (pixel[None, :, None] - centre[:, 1, None, None]) / half_y
    radius = (dx**2 + dy**2).sqrt()
    slope = ((dx / half_x) ** 2 + (dy / half_y) ** 2).sqrt().clamp(min=1e-6)
    distance = (1 - radius) * radius / slope
    return boxes, distance.minimum(half.min(1).values[:, None, None])


def warm_start(model, minutes, rng, peak_lr=PEAK_LR):
    """Trains the prompt encoder and mask decoder in place; yields (step, seconds, loss, Dice) now and then."""
    parameters = [*model.prompt_encoder.parameters(), *model.mask_decoder.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, betas=(0.9, 0.98), weight_decay=0.01)
    started, recent, step = time.perf_counter(), [], 0
    while (seconds := time.perf_counter() - started) < 60 * minutes:
        share = seconds / (60 * minutes)
        whole = step % WHOLE_EVERY == 0
        side, count = (RUN_TIME_SIDE, WHOLE_PROMPTS) if whole else (CROP_SIDE, CROP_PROMPTS)
        boxes, distance = ellipses(side, count, rng)
        embedding = random_embeddings(side // EMBEDDING_STRIDE, count)
        logits, iou = model.decode(
            embedding, torch.arange(count), view=random_view(side, rng), boxes_xyxy=boxes
        )
        loss, score = outline_loss(logits[:, :1], iou[:, :1], distance)
        for group in optimizer.param_groups:
            cosine = 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share))
            group["lr"] = peak_lr * min(1.0, step / WARM_UP_STEPS + 0.02) * cosine
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        recent.append((loss.item(), score))
        step += 1
        if step % 50 == 0:
            yield step, seconds, *np.mean(recent, 0).tolist()
            recent.clear()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=15)
    parser.add_argument("--resume", type=Path, help="state dict to go on from")
    parser.add_argument("--lr", type=float, default=PEAK_LR, help="peak learning rate")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    model = MobileSam()
    initialise(model)
    if arguments.resume:
        model.load_state_dict(torch.load(arguments.resume, weights_only=True))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for step, seconds, loss, score in warm_start(model, arguments.minutes, np.random.default_rng(arguments.seed), arguments.lr):
        print(f"step {step:5}  {seconds:6.0f} s  loss {loss:.4f}  Dice {score:.4f}", flush=True)
        if step % 200 == 0:
            torch.save(model.state_dict(), arguments.out)
    torch.save(model.state_dict(), arguments.out)


if __name__ == "__main__":
    main()
