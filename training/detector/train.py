"""Train D-FINE-N on ultrasound, from `pretrain.py`'s weights or from scratch.

    python training/detector/train.py --minutes 45 --init runs/pretrain/last.pt --out runs/detector

In: the data sets of `../data.py`. Out, in the output folder: `last.pt` (everything needed to go on,
EMA weights included), `log.jsonl` (one line every few steps, losses and held-out scores), `curve.png`.

The objective is D-FINE's (`losses.py`), and beside it the dense one of `dense.py` on heads of its own.

The run is bounded by time, not by steps: the learning rate follows a cosine over `--minutes` of the
process's own processor time, so the same command suits a fast and a slow machine, and a busy one.
Running the command again goes on from `last.pt`; SIGTERM saves and ends it.
"""

from __future__ import annotations

import os

# Waiting threads sleep instead of spinning: on a busy machine that halves the cost of a step.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import argparse  # noqa: E402
import copy  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import signal  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import data  # noqa: E402
import dense  # noqa: E402
import fused  # noqa: E402
import losses  # noqa: E402
import views  # noqa: E402
from evaluate import CLASSES, evaluate  # noqa: E402
from model import DFine  # noqa: E402

WEIGHT_DECAY, CLIP_NORM = 0.03, 0.1
FINAL_LR_SHARE = 0.02
# Shares of the run: the simulator's frames end, and from when on there are few pastes and splices.
PHANTOM_UNTIL, CALM_FROM = 0.25, 0.9
BLENDED_SHARE = 0.25


class Sampler:
    """Which frames of each set make batch `step`: each set is shuffled anew every epoch. A function of
    the seed and the step, so a resumed run draws what an uninterrupted one would."""

    def __init__(self, sizes: dict[str, int], seed: int):
        self.sizes, self.seed = sizes, seed

    def batch(self, step: int, shares: dict[str, int]) -> list[tuple[str, int]]:
        """Set and index of each image; `shares`: images of each set."""
        chosen = []
        for number, (name, size) in enumerate(self.sizes.items()):
            count = shares[name]
            for position in range(step * count, (step + 1) * count):
                epoch, index = divmod(position, size)
                order = np.random.default_rng([self.seed, number, epoch]).permutation(size)
                chosen.append((name, int(order[index])))
        return chosen


class Average:
    """Exponential moving average of all parameters and statistics. Young averages forget faster."""

    def __init__(self, model: torch.nn.Module, decay: float, warm: float):
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay, self.warm = decay, warm

    @torch.no_grad()
    def update(self, model: torch.nn.Module, step: int):
        decay = self.decay * (1 - math.exp(-(step + 1) / self.warm))
        ours, theirs = [], []
        for mine, other in zip(self.model.state_dict().values(), model.state_dict().values()):
            if mine.is_floating_point() and mine.isfinite().all():
                ours.append(mine)
                theirs.append(other)
        torch._foreach_lerp_(ours, theirs, 1 - decay)


def optimiser(model: torch.nn.Module, lr: float, slow: list[torch.nn.Module] = ()) -> torch.optim.Optimizer:
    """AdamW; norms, biases and the scalar affine layers do not decay. The parameters of `slow` get
    half the learning rate: they are pre-trained. A group's share of the rate is its `share`."""
    halved = {p for module in slow for p in module.parameters()}
    groups = []
    for decay, wide in ((WEIGHT_DECAY, True), (0.0, False)):
        for share in (1.0, 0.5):
            chosen = [p for p in model.parameters() if p.requires_grad and (p.ndim > 1) == wide]
            chosen = [p for p in chosen if (p in halved) == (share == 0.5)]
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay, "share": share})
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.999))


def learning_rate(args, step: int, progress: float) -> float:
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return args.lr * min(1.0, (step + 1) / args.warmup) * (FINAL_LR_SHARE + (1 - FINAL_LR_SHARE) * cosine)


def side_at(args, step: int, progress: float) -> int:
    """Crops first: cheap steps learn what things look like, the whole views how they lie together."""
    crop = args.input * 7 // 10 // 32 * 32
    rng = np.random.default_rng([args.seed, 7, step])
    return crop if rng.random() < 0.6 - progress else args.input


def queries_at(args, progress: float) -> int:
    """Fewer queries first, for the same reason; the tail of the list is background anyway."""
    return args.queries // 4 if progress < 0.5 else args.queries // 3 if progress < 0.7 else args.queries


def plot(log: Path, picture: Path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [json.loads(line) for line in log.read_text().splitlines()]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5))
    losses_, scores = [r for r in rows if "loss" in r], [r for r in rows if "AP50" in r]
    left.plot([r["step"] for r in losses_], [r["loss"] for r in losses_])
    left.set(xlabel="step", ylabel="loss (sum of all layers)", yscale="log")
    for name in scores[0]["AP50"] if scores else []:
        right.plot([r["step"] for r in scores], [r["AP50"].get(name) for r in scores], marker="o", label=name)
    right.set(xlabel="step", ylabel="AP50, held out", ylim=(0, 1))
    if scores:
        right.legend()
    figure.tight_layout()
    figure.savefig(picture, dpi=90)
    plt.close(figure)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an existing run goes on")
    parser.add_argument("--minutes", type=float, default=45, help="training time, which the schedule fills")
    parser.add_argument("--size", default="n", choices=list("nsmlx"))
    parser.add_argument("--init", type=Path, help="a `last.pt` of pretrain.py to start from")
    parser.add_argument("--input", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lr", type=float, default=6e-4)
    parser.add_argument("--warmup", type=int, default=50, help="steps")
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--denoising", type=int, default=30)
    parser.add_argument("--phantom", type=Path, help="folder of phantom frames, an eighth of each batch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="backbone and encoder; for processors that have it")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--evaluate-minutes", type=float, default=8, help="between held-out scores")
    return parser.parse_args()


def shares_at(batch: int, names: list[str], progress: float) -> dict[str, int]:
    """Images of each set in a batch: usgra has both classes and the variety, so it gets most; the
    simulator's frames only help to begin with."""
    eighth = max(1, batch // 8)
    others = {"carotid": eighth, "phantom": eighth if progress < PHANTOM_UNTIL else 0}
    others = {name: count for name, count in others.items() if name in names}
    return {"usgra": batch - sum(others.values())} | others


def main():
    args = arguments()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    log_path, last = args.out / "log.jsonl", args.out / "last.pt"
    classes = {name: i for i, name in enumerate(CLASSES)}
    names = ["usgra", "carotid"] + (["phantom"] if args.phantom else [])
    sources = {
        n: [views.source_of(f, classes, args.input) for f in data.load("train", [n], phantom=args.phantom)]
        for n in names
    }
    # Real anatomy is spliced and pasted into real frames, the simulator's into its own.
    donors = {n: sources["phantom" if n == "phantom" else "usgra"] for n in names}
    held_out = data.load("held_out", ["usgra", "carotid"])
    sampler = Sampler({n: len(s) for n, s in sources.items()}, args.seed)

    model = DFine(args.size, len(CLASSES), args.queries, (args.input, args.input)).train()
    if args.init:
        model.load_state_dict(torch.load(args.init, map_location="cpu", weights_only=True)["ema"])
    model = model.to(memory_format=torch.channels_last)
    heads = dense.DenseHeads(model)
    if args.init:
        heads.masks.load_state_dict(torch.load(args.init, map_location="cpu", weights_only=True)["ema_heads"])
    average = Average(model, decay=0.997, warm=200)
    optimizer = optimiser(
        torch.nn.ModuleList([model, heads]), args.lr, [model.backbone, model.encoder] * bool(args.init)
    )
    step, trained_s = 0, 0.0
    if last.exists():
        saved = torch.load(last, map_location="cpu", weights_only=True)
        model.load_state_dict(saved["model"])
        heads.load_state_dict(saved["heads"])
        average.model.load_state_dict(saved["ema"])
        optimizer.load_state_dict(saved["optimizer"])
        step, trained_s = saved["step"], saved["trained_s"]
    fused.accelerate(model)

    def log(row: dict):
        with log_path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)

    def save():
        state = {"model": model.state_dict(), "ema": average.model.state_dict(), "optimizer": optimizer.state_dict()}
        settings = {k: str(v) for k, v in vars(args).items()}
        state |= {"heads": heads.state_dict(), "step": step, "trained_s": trained_s, "settings": settings}
        torch.save(state, last.with_suffix(".tmp"))
        last.with_suffix(".tmp").replace(last)

    def score():
        scores = evaluate(average.model, held_out, args.input)
        flat = {f"{s}/{c}": round(v["AP50"], 3) for s, by in scores.items() for c, v in by.items()}
        log({"step": step, "minutes": round(trained_s / 60, 1), "AP50": flat})
        plot(log_path, args.out / "curve.png")

    log({"step": step, "frames": {n: len(s) for n, s in sources.items()}})
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    recent: list[float] = []
    sums: list[dict] = []
    scored_s, saved_s = trained_s, trained_s
    while trained_s < args.minutes * 60 and not stop:
        started = time.process_time()
        progress = trained_s / (args.minutes * 60)
        side = side_at(args, step, progress)
        rng = np.random.default_rng([args.seed, 11, step])
        chosen = sampler.batch(step, shares_at(args.batch, names, progress))
        strength = 1.0 if progress < CALM_FROM else 0.5
        samples = [views.view(sources[n][i], donors[n], side, args.input, rng, strength) for n, i in chosen]
        if progress < CALM_FROM:
            samples = views.mixed(samples, rng, BLENDED_SHARE)
        images, targets = views.batch_of(samples)
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + step)
        tokens = sum((side // s) ** 2 for s in ((16, 32) if args.size == "n" else (8, 16, 32)))
        queries = min(queries_at(args, progress), tokens)
        noise = losses.make_denoising(targets, len(CLASSES), queries, args.denoising, generator)
        model.decoder.queries, model.decoder.anchor_scale = queries, args.input / side
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            maps = model.encoder(model.backbone(images))
        maps = [x.float() for x in maps]
        out = model.decoder(maps, noise)
        parts = losses.all_losses(out, targets, noise, model.decoder.up, model.decoder.reg_scale)
        parts |= dense.dense_losses(heads.anchors, heads.masks, maps, samples, targets, len(CLASSES), args.input / side)
        loss = sum(parts.values())
        lr = learning_rate(args, step, progress)
        for group in optimizer.param_groups:
            group["lr"] = lr * group["share"]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_([*model.parameters(), *heads.parameters()], CLIP_NORM)
        if norm.isfinite():
            optimizer.step()
            average.update(model, step)
        step += 1
        took = time.process_time() - started
        trained_s += took
        recent = [*recent[-20:], took]
        sums.append({k: v.item() for k, v in parts.items()} | {"loss": loss.item()})
        if step % 20 == 0:
            mean = {k: round(statistics.fmean(s.get(k, 0.0) for s in sums), 3) for k in sums[0]}
            seconds = round(statistics.fmean(recent), 2)
            log({"step": step, "minutes": round(trained_s / 60, 1), "lr": round(lr, 6), "step_s": seconds} | mean)
            sums = []
        if trained_s - saved_s > 90:
            save()
            saved_s = trained_s
        if trained_s - scored_s > args.evaluate_minutes * 60:
            score()
            scored_s = trained_s
    save()
    if not stop:
        score()


if __name__ == "__main__":
    main()
