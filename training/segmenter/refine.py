"""Finishes the decoder at the run-time size, on the image encoder as it stands.

    python training/segmenter/refine.py runs/segmenter/checkpoint.pt runs/refined.pt --minutes 22

In: a checkpoint of `train.py`; its EMA weights go on. Out: a checkpoint whose `ema` weights are the result, and its log
beside it. A look of the encoder at whole frames, without gradients, serves several steps of the decoder, each with new
boxes: a step costs a fifth of one with the encoder, and sees exactly the embeddings of run time.
"""

import os

# Waiting threads sleep rather than spin: on a busy machine that halves the cost of a step.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from evaluate import load_model
from samples import RUN_TIME_SIDE, batch_of
from train import SECOND_PROMPT_EVERY, SECOND_PROMPT_WEIGHT, Ema, box_loss, drawn, load_sets
from train import optimizer_of, second_prompt_loss, update

PEAK_LR = 2e-4
BATCH = {"usgra": 5, "carotid": 3}
PROMPTS_PER_IMAGE, STEPS_PER_LOOK = 3, 3
LOG_STEPS, CHECKPOINT_STEPS = 30, 90


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=22)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=2)
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    frames_by_set = load_sets(phantom=None)
    model = load_model(arguments.checkpoint).to(memory_format=torch.channels_last)
    optimizer = optimizer_of({model.prompt_encoder: PEAK_LR, model.mask_decoder: PEAK_LR})
    ema, recent, step = Ema(model), [], 0
    log_path, started = arguments.out.with_suffix(".jsonl"), time.perf_counter()

    while (seconds := time.perf_counter() - started) < 60 * arguments.minutes:
        busy = os.getloadavg()[0] > os.cpu_count() + 0.5
        torch.set_num_threads(1 if busy else arguments.threads)
        rng = np.random.default_rng([arguments.seed, step])
        batch = batch_of(drawn(frames_by_set, rng, BATCH), RUN_TIME_SIDE, PROMPTS_PER_IMAGE, rng)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            embedding = model.image_encoder(batch.images.contiguous(memory_format=torch.channels_last))
        embedding = embedding.float()
        for _ in range(STEPS_PER_LOOK):
            loss, score, logits = box_loss(model, embedding, batch, rng)
            recent.append((loss.item(), score))
            if step % SECOND_PROMPT_EVERY == 0:
                loss = loss + SECOND_PROMPT_WEIGHT * second_prompt_loss(model, embedding, batch, logits, rng)
            update(optimizer, loss, seconds / (60 * arguments.minutes))
            ema.update(model, step)
            step += 1
        if step % LOG_STEPS == 0:
            mean_loss, dice = np.mean(recent, 0).tolist()
            recent.clear()
            row = {"phase": "refine", "step": step, "seconds": round(seconds, 1), "loss": round(mean_loss, 5)}
            line = json.dumps(row | {"dice": round(dice, 5)})
            print(line, flush=True)
            with log_path.open("a") as file:
                file.write(line + "\n")
        if step % CHECKPOINT_STEPS == 0:
            torch.save({"ema": ema.state}, arguments.out)
    torch.save({"ema": ema.state}, arguments.out)


if __name__ == "__main__":
    main()
