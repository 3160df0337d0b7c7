"""Pre-train the detector's backbone, encoder and first decoder stage densely, on masks.

    python training/detector/pretrain.py --minutes 25 --out runs/pretrain --phantom runs/phantom

In: the data sets of `../data.py`. Out: `last.pt` (model, EMA, heads, optimiser), which `train.py --init`
starts from, and `log.jsonl`. A step costs half of a whole one: no queries, no matching, and every cell
gives a gradient. Crops at the run-time scale. Bounded by time and resumable like `train.py`.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import argparse  # noqa: E402
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
import views  # noqa: E402
from evaluate import CLASSES  # noqa: E402
from model import DFine  # noqa: E402
from train import BLENDED_SHARE, Average, Sampler, optimiser  # noqa: E402

SHARES = {"usgra": 12, "carotid": 2, "phantom": 2}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--init", type=Path, help="a run's last.pt to start from")
    parser.add_argument("--phantom", type=Path)
    parser.add_argument("--input", type=int, default=320)
    parser.add_argument("--side", type=int, default=224, help="of the crops")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warmup", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--bf16", action="store_true", help="backbone and encoder; for processors that have it")
    parser.add_argument("--seed", type=int, default=2)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    last = args.out / "last.pt"
    classes = {name: i for i, name in enumerate(CLASSES)}
    shares = {k: v for k, v in SHARES.items() if k != "phantom" or args.phantom}
    sources = {
        n: [views.source_of(f, classes, args.input) for f in data.load("train", [n], phantom=args.phantom)]
        for n in shares
    }
    sampler = Sampler({n: len(s) for n, s in sources.items()}, args.seed)

    model = DFine("n", len(CLASSES), 300, (args.input, args.input)).train()
    if args.init:
        model.load_state_dict(torch.load(args.init, map_location="cpu", weights_only=True)["ema"])
    model = model.to(memory_format=torch.channels_last)
    heads = dense.MaskHeads(128, len(CLASSES), 2)
    whole = torch.nn.ModuleList([model, heads])
    used = torch.nn.ModuleList(
        [model.backbone, model.encoder, heads]
        + [model.decoder.enc_output, model.decoder.enc_score_head, model.decoder.enc_bbox_head]
    )
    average = Average(whole, decay=0.995, warm=150)
    optimizer = optimiser(used, args.lr)
    step, trained_s = 0, 0.0
    if last.exists():
        saved = torch.load(last, map_location="cpu", weights_only=True)
        model.load_state_dict(saved["model"])
        heads.load_state_dict(saved["heads"])
        average.model[0].load_state_dict(saved["ema"])
        average.model[1].load_state_dict(saved["ema_heads"])
        optimizer.load_state_dict(saved["optimizer"])
        step, trained_s = saved["step"], saved["trained_s"]

    def save():
        state = {"model": model.state_dict(), "heads": heads.state_dict(), "optimizer": optimizer.state_dict()}
        state |= {"ema": average.model[0].state_dict(), "ema_heads": average.model[1].state_dict()}
        settings = {k: str(v) for k, v in vars(args).items()} | {"size": "n"}
        torch.save(state | {"step": step, "trained_s": trained_s, "settings": settings}, last.with_suffix(".tmp"))
        last.with_suffix(".tmp").replace(last)

    fused.accelerate(model)
    stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stop.append(number))
    recent, sums, saved_s = [], [], trained_s
    while trained_s < args.minutes * 60 and not stop:
        started = time.process_time()
        progress = trained_s / (args.minutes * 60)
        rng = np.random.default_rng([args.seed, 11, step])
        samples = [
            views.view(sources[n][i], sources[n] if n != "carotid" else [], args.side, args.input, rng)
            for n, i in sampler.batch(step, shares)
        ]
        samples = views.mixed(samples, rng, BLENDED_SHARE)
        images, targets = views.batch_of(samples)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            maps = model.encoder(model.backbone(images))
        maps = [x.float() for x in maps]
        parts = dense.dense_losses(model.decoder, heads, maps, samples, targets, len(CLASSES), args.input / args.side)
        loss = sum(parts.values())
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
        lr = args.lr * min(1.0, (step + 1) / args.warmup) * (0.1 + 0.9 * cosine)
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(used.parameters(), 1.0)
        if norm.isfinite():
            optimizer.step()
            average.update(whole, step)
        step += 1
        took = time.process_time() - started
        trained_s += took
        recent = [*recent[-20:], took]
        sums.append({k: v.item() for k, v in parts.items()} | {"norm": norm.item()})
        if step % 20 == 0:
            mean = {k: round(statistics.fmean(s.get(k, 0.0) for s in sums), 3) for k in sums[0]}
            row = {"step": step, "minutes": round(trained_s / 60, 1), "lr": round(lr, 6)}
            row |= {"step_s": round(statistics.fmean(recent), 2)} | mean
            with (args.out / "log.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
            sums = []
        if trained_s - saved_s > 90:
            save()
            saved_s = trained_s
    save()


if __name__ == "__main__":
    main()
