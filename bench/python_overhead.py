"""What Python adds to a frame, and whether memory stays: on an otherwise idle machine.

    pip install ./python && cargo build --release
    python bench/python_overhead.py                 Python and `ultramotion bench` in turn, medians with spread
    python bench/python_overhead.py --frames 10000  memory over so many frames, with networks of 64 x 64 input
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import ultramotion

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.append(str(REPOSITORY / "python" / "tests"))

from conftest import with_input  # noqa: E402

WARM_UP = 5


def command_ms(command: str, runs: int) -> float:
    """Median of a whole frame, as the command measures it."""
    done = subprocess.run(
        [command, "bench", "--device", "cpu", "--runs", str(runs), "--json"], check=True, capture_output=True, text=True
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return next(line["p50_ms"] for line in lines if line["model"] == "frame")


def python_ms(images: list[np.ndarray], runs: int) -> float:
    """Median of a call, from a NumPy array to a packet with its boxes read."""
    times = []
    with ultramotion.Orchestrator(device="cpu") as orchestrator:
        for number in range(WARM_UP + runs):
            image = images[number % len(images)]
            start = time.perf_counter()
            packet = orchestrator.run_inference(image, timestamp=number / 25)
            _ = packet.boxes_xyxy, packet.scores, packet.track_ids
            times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[WARM_UP:])


def overhead(command: str, rounds: int, runs: int) -> None:
    """Both in turn."""
    images = [packet.image for packet in ultramotion.run("phantom", frames=20, device="cpu")]
    pairs = []
    for number in range(rounds):
        sides = [lambda: command_ms(command, runs), lambda: python_ms(images, runs)]
        if number % 2:
            python, native = sides[1](), sides[0]()
        else:
            native, python = sides[0](), sides[1]()
        pairs.append((native, python))
        print(f"round {number + 1}: command {native:.2f} ms, Python {python:.2f} ms, {python / native:.3f}", flush=True)
    ratios = sorted(python / native for native, python in pairs)
    for name, values in [("command", [n for n, _ in pairs]), ("Python", [p for _, p in pairs])]:
        print(f"{name:8} {statistics.median(values):.2f} ms ({min(values):.2f} to {max(values):.2f})")
    print(f"ratio    {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")


def memory(frames: int) -> None:
    """Resident memory while frames go by; the packet before is held, masks of every tenth are read."""
    page = resource.getpagesize()

    def resident_mb() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * page / 1e6

    folder = Path(tempfile.mkdtemp())
    models = {
        kind: str(with_input(REPOSITORY / "weights" / f"{name}.safetensors", folder / f"{name}.safetensors", 64))
        for kind, name in {"detector": "ultrasound-n", "segmenter": "ultrasound-sam"}.items()
    }
    image = next(ultramotion.run("phantom", frames=1, device="cpu")).image
    with ultramotion.Orchestrator(
        device="cpu", score_threshold=0.0, tracker={"birth_score": 0.0}, **models
    ) as orchestrator:
        for number in range(frames):
            packet = orchestrator.run_inference(image, timestamp=number / 25)
            if number % 10 == 0:
                _ = packet.masks
            if number % (frames // 10) == frames // 10 - 1:
                print(f"{number + 1} frames: {resident_mb():.1f} MB, {len(packet)} objects", flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, metavar="N", help="memory over N frames, instead of the overhead")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--runs", type=int, default=30, help="frames of a round")
    parser.add_argument("--command", default=str(REPOSITORY / "target" / "release" / "ultramotion"))
    given = parser.parse_args()
    if given.frames:
        memory(given.frames)
    else:
        overhead(given.command, given.rounds, given.runs)


if __name__ == "__main__":
    main()
