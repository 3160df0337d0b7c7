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
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import data  # noqa: E402
import dense  # noqa: E402
import fused  # noqa: E402
import views  # noqa: E402
from evaluate import CLASSES  # noqa: E402
from model import DFine  # noqa: E402
from run import BLENDED_SHARE, Average, Run, Sampler, optimiser  # noqa: E402

SHARES = {"usgra": 12, "carotid": 2, "phantom": 2}
CLIP_NORM, FINAL_LR_SHARE = 1.0, 0.1


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
    kept = {"model": model, "heads": heads, "ema": average.model[0], "ema_heads": average.model[1]}
    run = Run(args, optimiser(used, args.lr), kept, FINAL_LR_SHARE)
    fused.accelerate(model)
    for rng in run.steps():
        samples = [
            views.view(sources[n][i], sources[n] if n != "carotid" else [], args.side, args.input, rng)
            for n, i in sampler.batch(run.step, shares)
        ]
        samples = views.mixed(samples, rng, BLENDED_SHARE)
        images, targets = views.batch_of(samples)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            maps = model.encoder(model.backbone(images))
        maps = [x.float() for x in maps]
        parts = dense.dense_losses(model.decoder, heads, maps, samples, targets, len(CLASSES), args.input / args.side)
        if run.descend(parts, used.parameters(), CLIP_NORM):
            average.update(whole, run.step)


if __name__ == "__main__":
    main()
