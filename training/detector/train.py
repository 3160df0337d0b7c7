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
import json  # noqa: E402
import sys  # noqa: E402
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
from run import BLENDED_SHARE, Average, Run, Sampler, optimiser  # noqa: E402

CLIP_NORM, FINAL_LR_SHARE = 0.1, 0.02
# Shares of the run: the simulator's frames end, and from when on there are few pastes and splices.
PHANTOM_UNTIL, CALM_FROM = 0.25, 0.9


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
    kept = {"model": model, "ema": average.model, "heads": heads}
    run = Run(args, optimizer, kept, FINAL_LR_SHARE)
    fused.accelerate(model)

    def score():
        scores = evaluate(average.model, held_out, args.input)
        flat = {f"{s}/{c}": round(v["AP50"], 3) for s, by in scores.items() for c, v in by.items()}
        run.log({"step": run.step, "minutes": round(run.trained_s / 60, 1), "AP50": flat})
        plot(run.log_path, args.out / "curve.png")

    run.log({"step": run.step, "frames": {n: len(s) for n, s in sources.items()}})
    scored_s = run.trained_s
    for rng in run.steps():
        progress = run.progress
        side = side_at(args, run.step, progress)
        chosen = sampler.batch(run.step, shares_at(args.batch, names, progress))
        strength = 1.0 if progress < CALM_FROM else 0.5
        samples = [views.view(sources[n][i], donors[n], side, args.input, rng, strength) for n, i in chosen]
        if progress < CALM_FROM:
            samples = views.mixed(samples, rng, BLENDED_SHARE)
        images, targets = views.batch_of(samples)
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + run.step)
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
        if run.descend(parts, [*model.parameters(), *heads.parameters()], CLIP_NORM):
            average.update(model, run.step)
        if run.trained_s - scored_s > args.evaluate_minutes * 60:
            score()
            scored_s = run.trained_s
    if not run.stopped:
        score()


if __name__ == "__main__":
    main()
