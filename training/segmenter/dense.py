"""The image encoder's warm start: to tell nerve, vessel and bone from background at every pixel, without prompts.

    python training/segmenter/dense.py runs/dense.pt --minutes 12 --phantom runs/phantom

In: the training frames. Out: a checkpoint whose encoder and auxiliary head `train.py --encoder` starts from. It needs
no decoder, so it can run while `geometry.py` trains that one.
"""

import os

# Waiting threads sleep rather than spin: on a busy machine that halves the cost of a step.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from geometry import initialise
from model import MobileSam
from samples import CROP_SIDE, batch_of
from train import ENCODER_LR, AuxiliaryHead, Ema, drawn, load_sets, optimizer_of, update


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--encoder", type=Path, help="checkpoint of an earlier run to go on from")
    parser.add_argument("--phantom", type=Path, help="folder of exported phantom frames")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    frames_by_set = load_sets(arguments.phantom)
    model, auxiliary = MobileSam(drop_path=0.05), AuxiliaryHead()
    initialise(model)
    if arguments.encoder:
        earlier = torch.load(arguments.encoder, weights_only=True)
        state = {k: v for k, v in earlier["ema"].items() if k.startswith("image_encoder.")}
        model.load_state_dict(state, strict=False)
        auxiliary.load_state_dict(earlier["auxiliary"])
    model.to(memory_format=torch.channels_last)
    optimizer = optimizer_of({model.image_encoder: ENCODER_LR, auxiliary: ENCODER_LR})
    ema, started, recent, step = Ema(model), time.perf_counter(), [], 0

    def save():
        torch.save({"ema": ema.state, "auxiliary": auxiliary.state_dict()}, arguments.out)

    while (seconds := time.perf_counter() - started) < 60 * arguments.minutes:
        rng = np.random.default_rng([arguments.seed, step])
        batch = batch_of(drawn(frames_by_set, rng), CROP_SIDE, 1, rng)
        with torch.autocast("cpu", torch.bfloat16):
            embedding = model.image_encoder(batch.images.contiguous(memory_format=torch.channels_last))
        loss = auxiliary.loss(embedding.float(), batch.classes)
        # The schedule ends at half of its fall: the run that goes on from here begins high.
        update(optimizer, loss, 0.6 * seconds / (60 * arguments.minutes))
        ema.update(model, step)
        recent.append(loss.item())
        step += 1
        if step % 20 == 0:
            print(f"step {step:5}  {seconds:6.0f} s  loss {np.mean(recent):.4f}", flush=True)
            recent.clear()
        if step % 200 == 0:
            save()
    save()


if __name__ == "__main__":
    main()
