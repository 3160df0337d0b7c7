"""Trains MobileSAM from scratch on ultrasound, on a CPU.

    python training/segmenter/geometry.py runs/geometry.pt
    python training/segmenter/train.py --start runs/geometry.pt --run runs/segmenter --minutes 100

Runs for a budget of running time: the schedule follows the share of it that is used, and time in which the process was
stopped does not count. SIGTERM ends it with a checkpoint, the same command again resumes. Writes into the run's folder: `log.jsonl`,
`curve.png`, `checkpoint.pt` (everything that resuming needs; its `ema` weights are the result).

What makes so little data and time suffice:
1. The decoder starts from `geometry.py`: it draws the ellipse of its box, and images can only improve on that.
2. It trains on crops of 224 x 224, where TinyViT's windows need no padding: an image costs less than half. Their
   positions are encoded as parts of the run-time square, so the decoder sees one geometry.
3. An auxiliary head on the embedding learns classes densely, so that the encoder gets gradients from every pixel.
4. Logits learn the distance to the outline (`losses.py`), not a yes or no: smooth, and with its zero in the right place.
"""

import os

# Waiting threads sleep rather than spin: on a busy machine that halves the cost of a step.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import argparse
import json
import math
import signal
import time
from collections import deque
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from evaluate import scores
from geometry import initialise
from losses import outline_loss
from model import MobileSam
from samples import CLASSES, CROP_SIDE, batch_of, jittered

from data import load  # training/ is on the path through samples.py

# Images of a batch by data set; a set that is absent leaves its place to usgra, the hardest.
BATCH = {"usgra": 4, "carotid": 3, "phantom": 1}
# Bone in the phantom is a bright line, not a region.
PHANTOM_CLASSES = ("vessel", "nerve")
PROMPTS_PER_IMAGE = 3
SECOND_PROMPT_EVERY, SECOND_PROMPT_WEIGHT = 8, 0.5
ENCODER_LR, DECODER_LR, WEIGHT_DECAY, WARM_UP_SHARE, CLIP = 1e-3, 2e-4, 0.05, 0.02, 1.0
EMA_DECAY = 0.997
AUXILIARY_WEIGHT = 0.4
# Standard deviation of the embedding at the start.
START_SCALE = 0.12
# A step counts at most this many times the median of those before it: a longer one was stopped by something else.
STEP_CAP = 4.0
CHECKPOINT_SECONDS, LOG_STEPS, WATCH_FRAMES = 400, 20, 14


class AuxiliaryHead(nn.Module):
    """Class logits [B, classes, S/4, S/4] from the embedding; not part of the result."""

    def __init__(self, dim=256, factor=4):
        super().__init__()
        self.project = nn.Conv2d(dim, len(CLASSES) * factor**2, 1)
        self.factor = factor

    def forward(self, embedding):
        return F.pixel_shuffle(self.project(embedding), self.factor)

    def loss(self, embedding, classes):
        """Cross entropy against `classes` [B, S, S], objects weighted up against the large background."""
        weight = torch.ones(len(CLASSES))
        weight[1:] = 3.0
        return F.cross_entropy(self(embedding).float(), classes[:, 2::4, 2::4], weight)


def soften(model, auxiliary):
    """Scales the embedding to `START_SCALE`, and the head's reading of it up again: soft enough at first for the decoder
    to draw what it has learned to."""
    norm = model.image_encoder.neck[3]
    with torch.no_grad():
        factor = START_SCALE / norm.weight.abs().mean()
        norm.weight.mul_(factor)
        norm.bias.mul_(factor)
        auxiliary.project.weight.div_(factor)


def optimizer_of(peak_lr_of):
    """AdamW over {module: peak learning rate}; norms, biases and learned tokens do not decay."""
    groups = []
    for module, peak_lr in peak_lr_of.items():
        decayed, plain = [], []
        for owner in module.modules():
            for name, parameter in owner.named_parameters(recurse=False):
                matrix = name == "weight" and parameter.dim() >= 2 and not isinstance(owner, nn.Embedding)
                (decayed if matrix else plain).append(parameter)
        groups.append({"params": decayed, "weight_decay": WEIGHT_DECAY, "peak_lr": peak_lr})
        groups.append({"params": plain, "weight_decay": 0.0, "peak_lr": peak_lr})
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98))


def schedule(share):
    """Warm-up, then cosine to a hundredth, as a share of the peak learning rate."""
    warm_up = min(1.0, share / WARM_UP_SHARE + 0.01)
    return warm_up * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


def update(optimizer, loss, share):
    """One step; a gradient that is not finite is left out. Returns the gradient's norm."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * schedule(share)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_([p for group in optimizer.param_groups for p in group["params"]], CLIP)
    if torch.isfinite(norm):
        optimizer.step()
    return norm.item()


class Ema:
    """Moving average of weights and batch statistics."""

    def __init__(self, model, state=None):
        self.state = {k: v.clone() for k, v in (state or model.state_dict()).items()}

    @torch.no_grad()
    def update(self, model, step):
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.state[name].lerp_(value, 1 - decay)
            else:
                self.state[name].copy_(value)

    def model(self):
        model = MobileSam()
        model.load_state_dict(self.state)
        return model.eval()


def box_loss(model, embedding, batch, rng):
    """Loss, mean Dice and the logits [N, 1, S/4, S/4] for boxes as a detector would give them."""
    boxes = torch.from_numpy(jittered(batch.boxes_xyxy, rng))
    logits, iou = model.decode(embedding, batch.image_index, batch.view, boxes_xyxy=boxes)
    loss, score = outline_loss(logits[:, :1], iou[:, :1], batch.distances)
    return loss, score, logits[:, :1]


def second_prompt_loss(model, embedding, batch, first_logits, rng):
    """The prompts that a box is not: a point, half of the time with the box's own low-resolution mask as mask prompt.
    A point is ambiguous, so three masks compete; the single mask learns as well."""
    prompts = {
        "points_xy": batch.points_xy[:, None],
        "point_labels": torch.ones(len(batch.points_xy), 1, dtype=torch.long),
    }
    if rng.random() < 0.5:
        prompts["mask_logits"] = first_logits.detach().float()
    logits, iou = model.decode(embedding, batch.image_index, batch.view, **prompts)
    one, _ = outline_loss(logits[:, :1], iou[:, :1], batch.distances)
    three, _ = outline_loss(logits[:, 1:], iou[:, 1:], batch.distances)
    return 0.5 * (one + three)


def drawn(frames_by_set, rng):
    """The frames of one batch."""
    wanted = dict(BATCH)
    for name in BATCH:
        if name not in frames_by_set:
            wanted["usgra"] += wanted.pop(name)
    return [frames_by_set[n][rng.integers(len(frames_by_set[n]))] for n, count in wanted.items() for _ in range(count)]


def load_sets(phantom):
    sets = {"usgra": load("train", ["usgra"], max_side=480), "carotid": load("train", ["carotid"])}
    if phantom:
        frames = load("train", ["phantom"], max_side=480, phantom=phantom)
        sets["phantom"] = [f for f in frames if set(f.labels) <= set(PHANTOM_CLASSES)]
    # A frame without an object has nothing to prompt.
    return {name: [f for f in frames if f.labels] for name, frames in sets.items()}


def draw_curve(path, rows):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    train = [r for r in rows if r["phase"] == "train"]
    watch = [r for r in rows if r["phase"] == "watch"]
    figure, axes = pyplot.subplots(figsize=(7, 4))
    axes.plot([r["seconds"] / 60 for r in train], [r["dice"] for r in train], lw=0.8, label="training, jittered boxes")
    for name in sorted({k for r in watch for k in r["dice"]}):
        axes.plot([r["seconds"] / 60 for r in watch], [r["dice"].get(name) for r in watch], "o-", ms=3, label=f"held out, {name}")
    axes.set(xlabel="minutes of training", ylabel="Dice", ylim=(0.5, 1))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/segmenter"), help="folder of the run")
    parser.add_argument("--minutes", type=float, default=80, help="running time, the warm start not counted")
    parser.add_argument("--phantom", type=Path, help="folder of exported phantom frames")
    parser.add_argument("--start", type=Path, required=True, help="weights to start from, see geometry.py")
    parser.add_argument("--encoder", type=Path, help="checkpoint of an earlier run whose image encoder to start from")
    parser.add_argument("--threads", type=int, default=2, help="on an idle machine; one while others compete for it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--precision", choices=["bf16", "f32"], default="bf16", help="of the image encoder")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    arguments.run.mkdir(parents=True, exist_ok=True)
    checkpoint_path, log_path = arguments.run / "checkpoint.pt", arguments.run / "log.jsonl"
    rows = [json.loads(line) for line in log_path.read_text().splitlines()] if log_path.exists() else []

    def log(row):
        rows.append(row)
        line = json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()})
        print(line, flush=True)
        with log_path.open("a") as file:
            file.write(line + "\n")

    frames_by_set = load_sets(arguments.phantom)
    watched = load("held_out", ["usgra", "carotid"], max_side=480)
    watched = watched[:: max(1, len(watched) // WATCH_FRAMES)]
    print({name: len(frames) for name, frames in frames_by_set.items()}, "watching", len(watched), flush=True)

    model, auxiliary = MobileSam(drop_path=0.05), AuxiliaryHead()
    initialise(model)
    model.to(memory_format=torch.channels_last)
    step, seconds = 0, 0.0
    saved = torch.load(checkpoint_path, weights_only=True) if checkpoint_path.exists() else None
    if saved is None:
        model.load_state_dict(torch.load(arguments.start, weights_only=True))
        if arguments.encoder:
            earlier = torch.load(arguments.encoder, weights_only=True)
            state = {k: v for k, v in earlier["ema"].items() if k.startswith("image_encoder.")}
            model.load_state_dict(state, strict=False)
            auxiliary.load_state_dict(earlier["auxiliary"])
        soften(model, auxiliary)
    decoder_lrs = {model.prompt_encoder: DECODER_LR, model.mask_decoder: DECODER_LR}
    optimizer = optimizer_of({model.image_encoder: ENCODER_LR, auxiliary: ENCODER_LR} | decoder_lrs)
    ema = Ema(model)
    if saved is not None:
        model.load_state_dict(saved["model"])
        auxiliary.load_state_dict(saved["auxiliary"])
        peaks = [group["peak_lr"] for group in optimizer.param_groups]
        optimizer.load_state_dict(saved["optimizer"])
        for group, peak in zip(optimizer.param_groups, peaks):
            group["peak_lr"] = peak
        ema = Ema(model, saved["ema"])
        step, seconds = saved["step"], saved["seconds"]
        print(f"resumed at step {step}, {seconds / 60:.1f} minutes", flush=True)

    def checkpoint():
        found, iou_errors = scores(ema.model(), watched)
        dice, exact = (
            {f"{s} {label}": round(float(np.mean(v, 0)[0]), 4) for (s, label), v in sorted(found[kind].items())}
            for kind in ("jittered", "exact")
        )
        row = {"phase": "watch", "step": step, "seconds": seconds, "dice": dice, "exact": exact}
        log(row | {"iou_error": iou_errors["jittered"]})
        state = {"model": model.state_dict(), "auxiliary": auxiliary.state_dict(), "ema": ema.state}
        state |= {"optimizer": optimizer.state_dict(), "step": step, "seconds": seconds}
        torch.save(state, checkpoint_path.with_suffix(".partial"))
        checkpoint_path.with_suffix(".partial").replace(checkpoint_path)
        draw_curve(arguments.run / "curve.png", rows)

    if saved is None:
        checkpoint()
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
    budget, saved_at, recent, durations = arguments.minutes * 60, seconds, [], deque(maxlen=40)
    while seconds < budget and not stop:
        started = time.perf_counter()
        # Threads that wait for one another are worth less than one alone where others take the cores away.
        busy = os.getloadavg()[0] > os.cpu_count() + 0.5
        torch.set_num_threads(1 if busy else arguments.threads)
        share = seconds / budget
        rng = np.random.default_rng([arguments.seed, step])
        batch = batch_of(drawn(frames_by_set, rng), CROP_SIDE, PROMPTS_PER_IMAGE, rng)
        # The decoder gains nothing from bf16 at this size.
        with torch.autocast("cpu", torch.bfloat16, enabled=arguments.precision == "bf16"):
            embedding = model.image_encoder(batch.images.contiguous(memory_format=torch.channels_last))
        embedding = embedding.float()
        loss, score, logits = box_loss(model, embedding, batch, rng)
        auxiliary_loss = auxiliary.loss(embedding, batch.classes)
        total = loss + AUXILIARY_WEIGHT * (1 - share) * auxiliary_loss
        if step % SECOND_PROMPT_EVERY == 0:
            total = total + SECOND_PROMPT_WEIGHT * second_prompt_loss(model, embedding, batch, logits, rng)
        norm = update(optimizer, total, share)
        ema.update(model, step)
        step += 1
        recent.append((loss.item(), auxiliary_loss.item(), score, norm))
        durations.append(time.perf_counter() - started)
        seconds += min(durations[-1], STEP_CAP * float(np.median(durations)))
        if step % LOG_STEPS == 0:
            mean = np.mean(recent, 0).tolist()
            recent.clear()
            row = {"phase": "train", "step": step, "seconds": seconds, "lr": ENCODER_LR * schedule(share)}
            log(row | {"loss": mean[0], "auxiliary": mean[1], "dice": mean[2], "gradient": mean[3]})
        if seconds - saved_at > CHECKPOINT_SECONDS:
            saved_at = seconds
            checkpoint()
    checkpoint()


if __name__ == "__main__":
    main()
