"""Writes reference.json: what SciPy and PyTorch make of inputs that the tests generate again from their seeds.

    python crates/tracking/tests/reference.py        (numpy, scipy, torch)
"""

import json
import pathlib

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment


def uniform(seed, n):
    """SplitMix64 of `seed` and the index, upper 24 bits as a float in [0, 1)."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (np.arange(n, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float64) / 2**24


def assignments():
    cases = []
    shapes = [(1, 1), (1, 9), (9, 1), (5, 5), (12, 40), (40, 12), (30, 10), (100, 100), (300, 32), (32, 300)]
    for seed, (rows, cols) in enumerate(shapes):
        # Once with all costs apart, once on a coarse grid with many ties, negative ones among them.
        for levels in (None, 8):
            cost = uniform(seed, rows * cols)
            cost = np.floor(cost * levels) - 3 if levels else cost
            matrix = cost.reshape(rows, cols)
            i, j = linear_sum_assignment(matrix)
            case = dict(seed=seed, rows=rows, cols=cols, levels=levels, total_cost=float(matrix[i, j].sum()))
            if levels is None:
                case["pairs"] = [[int(a), int(b)] for a, b in zip(i, j)]
            cases.append(case)
    return cases


def xyxy(b):
    return torch.cat([b[:, :2] - 0.5 * b[:, 2:], b[:, :2] + 0.5 * b[:, 2:]], -1)


def giou(a, b):
    a, b = xyxy(a)[:, None], xyxy(b)[None]
    area = lambda x: (x[..., 2] - x[..., 0]) * (x[..., 3] - x[..., 1])
    inner = (torch.min(a[..., 2:], b[..., 2:]) - torch.max(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    hull = (torch.max(a[..., 2:], b[..., 2:]) - torch.min(a[..., :2], b[..., :2])).prod(-1)
    union = area(a) + area(b) - inner
    return inner / union - (hull - union) / hull


def matchers():
    cases = []
    for seed, (queries, classes, targets) in enumerate([(6, 2, 3), (20, 3, 5), (3, 4, 7), (50, 80, 12)], start=100):
        values = torch.tensor(uniform(seed, queries * (classes + 4) + targets * 5), dtype=torch.float32)
        logits, boxes, labels, target_boxes = values.split(
            [queries * classes, queries * 4, targets, targets * 4]
        )
        logits = (logits.view(queries, classes) - 0.5) * 8
        boxes, target_boxes = (b.view(-1, 4) * 0.5 + 0.1 for b in (boxes, target_boxes))
        labels = (labels * classes).long()
        for focal in (False, True):
            if focal:
                p = logits.sigmoid()[:, labels]
                negative = 0.75 * p**2 * -(1 - p + 1e-8).log()
                class_cost = 0.25 * (1 - p) ** 2 * -(p + 1e-8).log() - negative
            else:
                class_cost = -logits.softmax(-1)[:, labels]
            cost = class_cost + 5 * torch.cdist(boxes, target_boxes, p=1) - 2 * giou(boxes, target_boxes)
            rounds, left = [], cost.clone()
            for _ in range(3):
                i, j = linear_sum_assignment(left)
                rounds += [[int(a), int(b)] for a, b in zip(i, j)]
                left[i] = 1e6
            cases.append(
                dict(seed=seed, queries=queries, classes=classes, targets=targets, focal=focal,
                     cost=[round(float(c), 6) for c in cost.flatten()[:40]], top_3=rounds)
            )
    return cases


path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(dict(assignments=assignments(), matchers=matchers()), separators=(",", ":")) + "\n")
