"""What the stages of the detector's training share: whose turn it is, moving averages, the optimiser, and a run that is
bounded by processor time, logs as it goes and goes on where it was interrupted.

In: a stage's arguments (`out`, `minutes`, `lr`, `warmup`). Out: `last.pt` and `log.jsonl` in the folder `out`.
"""

from __future__ import annotations

import copy
import json
import math
import signal
import statistics
import time

import numpy as np
import torch

WEIGHT_DECAY = 0.03
# A frame in so many is blended with another, in both stages.
BLENDED_SHARE = 0.25
LOG_STEPS, SAVE_SECONDS = 20, 90


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


class Run:
    """The clock, the log and the file of a run. `optimizer` and the modules of `kept` (by name) go into `last.pt`, and come
    from there if it exists."""

    def __init__(self, args, optimizer: torch.optim.Optimizer, kept: dict[str, torch.nn.Module], final_lr_share: float):
        self.args, self.optimizer, self.kept, self.final_lr_share = args, optimizer, kept, final_lr_share
        self.log_path, self.last = args.out / "log.jsonl", args.out / "last.pt"
        self.step, self.trained_s = 0, 0.0
        self.lr, self.saved_s, self.recent, self.sums = 0.0, 0.0, [], []
        self.stopped: list[int] = []
        args.out.mkdir(parents=True, exist_ok=True)
        if self.last.exists():
            saved = torch.load(self.last, map_location="cpu", weights_only=True)
            for name, module in kept.items():
                module.load_state_dict(saved[name])
            optimizer.load_state_dict(saved["optimizer"])
            self.step, self.trained_s = saved["step"], saved["trained_s"]
            self.saved_s = self.trained_s
        signal.signal(signal.SIGTERM, lambda number, _: self.stopped.append(number))

    @property
    def progress(self) -> float:
        return self.trained_s / (self.args.minutes * 60)

    def steps(self):
        """A generator of random numbers for each step, until the time is up or the run is told to end; then saves."""
        while self.progress < 1 and not self.stopped:
            started = time.process_time()
            yield np.random.default_rng([self.args.seed, 11, self.step])
            self.step += 1
            took = time.process_time() - started
            self.trained_s += took
            self.recent = [*self.recent[-LOG_STEPS:], took]
            if self.step % LOG_STEPS == 0:
                self._log_means()
            if self.trained_s - self.saved_s > SAVE_SECONDS:
                self.save()
        self.save()

    def descend(self, parts: dict[str, torch.Tensor], parameters, clip_norm: float) -> bool:
        """One step of the optimiser down the sum of `parts`; false where a gradient is not finite, and nothing was changed."""
        loss = sum(parts.values())
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, self.progress)))
        warm = min(1.0, (self.step + 1) / self.args.warmup)
        self.lr = self.args.lr * warm * (self.final_lr_share + (1 - self.final_lr_share) * cosine)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * group["share"]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, clip_norm)
        if norm.isfinite():
            self.optimizer.step()
        self.sums.append({k: v.item() for k, v in parts.items()} | {"loss": loss.item(), "norm": norm.item()})
        return bool(norm.isfinite())

    def log(self, row: dict):
        with self.log_path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)

    def save(self):
        state = {name: module.state_dict() for name, module in self.kept.items()}
        settings = {"size": "n"} | {k: str(v) for k, v in vars(self.args).items()}
        state |= {"optimizer": self.optimizer.state_dict(), "settings": settings}
        state |= {"step": self.step, "trained_s": self.trained_s}
        torch.save(state, self.last.with_suffix(".tmp"))
        self.last.with_suffix(".tmp").replace(self.last)
        self.saved_s = self.trained_s

    def _log_means(self):
        mean = {k: round(statistics.fmean(s.get(k, 0.0) for s in self.sums), 3) for k in self.sums[0]}
        row = {"step": self.step, "minutes": round(self.trained_s / 60, 1), "lr": round(self.lr, 6)}
        self.log(row | {"step_s": round(statistics.fmean(self.recent), 2)} | mean)
        self.sums = []
