"""Times this crate's assignment and SciPy's on the same matrices, one after the other on the same machine.

    python crates/tracking/benches/scipy_assignment.py        (needs numpy and scipy, and cargo on the path)

SciPy gets its matrix as float64, so no conversion counts against it.
"""

import json
import subprocess
import sys
import timeit

import numpy as np
import scipy
from scipy.optimize import linear_sum_assignment


def costs(rows, cols):
    """The bench's matrix: SplitMix64 of the index, upper 24 bits as a float in [0, 1)."""
    with np.errstate(over="ignore"):
        z = (np.arange(rows * cols, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(40)).astype(np.float64) / 2**24).reshape(rows, cols)


def main():
    command = ["cargo", "bench", "-q", "-p", "ultramotion-tracking", "--bench", "assignment"]
    ours = [json.loads(line) for line in subprocess.check_output(command, text=True).splitlines()]
    print(f"SciPy {scipy.__version__}, NumPy {np.__version__}; microseconds, median")
    print(f"{'size':>9} {'exact':>9} {'greedy':>9} {'SciPy':>9}   exact/SciPy  same optimum")
    same = True
    for exact, greedy in zip(ours[::2], ours[1::2]):
        rows, cols = exact["rows"], exact["cols"]
        matrix = costs(rows, cols)
        optimum = matrix[linear_sum_assignment(matrix)].sum()
        timer = timeit.Timer(lambda: linear_sum_assignment(matrix))
        repeats = max(1, int(2e-5 / timer.timeit(1)))
        scipy_us = np.median(timer.repeat(501, repeats)) / repeats * 1e6
        agrees = abs(exact["total_cost"] - optimum) < 1e-9
        same &= agrees
        print(
            f"{rows:>4}x{cols:<4} {exact['p50_us']:9.2f} {greedy['p50_us']:9.2f} {scipy_us:9.2f}"
            f"   {exact['p50_us'] / scipy_us:11.2f}  {'yes' if agrees else 'NO'}"
        )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
