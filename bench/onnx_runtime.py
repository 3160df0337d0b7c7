"""Times each network of ultramotion beside ONNX Runtime: same machine, threads, weights and run.

    cargo build --release
    python bench/onnx_runtime.py                              # every network and the whole frame
    python bench/onnx_runtime.py dfine_n --rounds 9 --json

In: the PyTorch models of `training/`, with the weights that `ultramotion bench --model NAME` makes up (the same
rule and salt), exported to ONNX into a cache folder; the `ultramotion` program. Before the first timing ONNX
Runtime's output must agree with PyTorch's.
Out: a table (or JSON lines) of both sides' medians, their spread over the rounds, and the ratio, which is the median
over the rounds of ours / ONNX Runtime of the same round (below 1: ours is faster), and once more from each side's best
round, which load from elsewhere touches least. Rounds alternate between the two,
and swap who goes first, so that a disturbance from outside meets both.
"""

import argparse
import contextlib
import datetime
import io
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

from networks import BOXES, NETWORKS, ROOT

SPIN_US = 100_000  # how long ONNX Runtime's workers spin after a run
WARM_UP = 5  # runs before those that count, in every round; `ultramotion bench` does as many
AGREEMENT = {"dfine": 2e-3, "mobile": 1e-3}  # largest relative error between ONNX Runtime and PyTorch


FRAME = "frame"


# ------------------------------------------------------------------------------------------------ ONNX Runtime


def export(name, path, exporter, opset):
    """Writes the network to `path`. Constants are folded by either exporter."""
    make, inputs = NETWORKS[name]
    network, inputs = make().eval(), inputs()
    part = path.with_suffix(".part")
    arguments = dict(input_names=list(inputs), opset_version=opset, dynamo=exporter == "dynamo")
    if exporter == "dynamo":
        arguments |= dict(external_data=False, verbose=False, optimize=True)
    else:
        arguments |= dict(do_constant_folding=True)
    logging.disable(logging.WARNING)
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(network, tuple(inputs.values()), str(part), **arguments)
        expected = network(*inputs.values())
    logging.disable(logging.NOTSET)
    expected = expected if isinstance(expected, tuple) else (expected,)
    check(name, session(part, 2), inputs, [x.numpy() for x in expected])
    part.rename(path)


def check(name, one, inputs, expected):
    """ONNX Runtime must compute what PyTorch does. D-FINE's queries may trade places where scores nearly tie, so its
    scores are compared sorted, and each box with the nearest."""
    got = one.run(None, {k: v.numpy() for k, v in inputs.items()})
    if name.startswith("dfine"):
        errors = [np.abs(np.sort(got[0].ravel()) - np.sort(expected[0].ravel())).max() / np.abs(expected[0]).max()]
        errors.append(np.abs(got[1][0][:, None] - expected[1][0][None]).sum(-1).min(1).max())
    else:
        errors = [np.linalg.norm(a - b) / np.linalg.norm(b) for a, b in zip(got, expected, strict=True)]
    limit = AGREEMENT[name.split("_")[0]]
    if not max(errors) <= limit:
        raise SystemExit(f"{name}: ONNX Runtime differs from PyTorch by {max(errors):.1e}, more than {limit:.0e}")
    print(f"{name}: ONNX Runtime agrees with PyTorch to {max(errors):.1e}", file=sys.stderr)


def session(path, threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    # A long spin: its workers do not fall asleep between operators.
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_US))
    options.add_session_config_entry("session.intra_op.spin_backoff_max", "64")
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Peer:
    """One network in ONNX Runtime, inputs and outputs bound once: no copy is part of its time."""

    def __init__(self, name, path, threads):
        self.session = session(path, threads)
        self.binding = self.session.io_binding()
        for key, value in NETWORKS[name][1]().items():
            self.binding.bind_ortvalue_input(key, ort.OrtValue.ortvalue_from_numpy(value.numpy()))
        for output in self.session.get_outputs():
            self.binding.bind_output(output.name)

    def median_ms(self, runs):
        times = []
        for run in range(WARM_UP + runs):
            start = time.perf_counter()
            self.session.run_with_iobinding(self.binding)
            if run >= WARM_UP:
                times.append(1e3 * (time.perf_counter() - start))
        time.sleep(2e-6 * SPIN_US)  # its workers are asleep when the other side's turn comes
        return statistics.median(times)


# ------------------------------------------------------------------------------------------------ ours


def bench(program, *arguments):
    """The JSON lines of `ultramotion bench`."""
    command = [program, "bench", "--device", "cpu", "--json", *map(str, arguments)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except OSError as error:
        raise SystemExit(f"{program}: {error.strerror}; build it with `cargo build --release` or name it by --program")
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{' '.join(command)}: {error.stderr.strip() or error}")
    return [json.loads(line) for line in done.stdout.splitlines()]


# ------------------------------------------------------------------------------------------------ comparison


def spread(values):
    return {"p50_ms": statistics.median(values), "min_ms": min(values), "max_ms": max(values)}


def compare(name, path, options):
    ours, theirs, last = [], [], None
    peer = Peer(name, path, options.threads)
    arguments = ["--model", name, "--threads", options.threads, "--runs", options.runs]
    if name == "mobile_sam_decoder":
        arguments += ["--boxes", BOXES]
    for turn in range(options.rounds):
        for side in ("ours", "theirs") if turn % 2 else ("theirs", "ours"):
            if side == "ours":
                [last] = bench(options.program, *arguments)
                ours.append(last["p50_ms"])
            else:
                theirs.append(peer.median_ms(options.runs))
        if options.verbose:
            print(f"{name} round {turn}: {ours[-1]:.2f} {theirs[-1]:.2f} ms", file=sys.stderr)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "model": name,
        "input": last["input"],
        "boxes": last["boxes"],
        "ours": spread(ours),
        "onnx_runtime": spread(theirs),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "ratio_of_best": min(ours) / min(theirs),
        "gflops": last["gflops"],
    }


def whole_frame(options):
    """The embedded default on the phantom, frame in to packet out. No peer runs the same."""
    totals = []
    for _ in range(options.rounds):
        lines = bench(options.program, "--threads", options.threads, "--runs", options.runs)
        [total] = [line for line in lines if line["model"] == "frame"]
        totals.append(total["p50_ms"])
    return {"model": FRAME, "input": total["input"], "boxes": None, "ours": spread(totals)}


def machine(options):
    flags, model = set(), platform.processor()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "flags":
                flags = set(value.split())
            elif key.strip() in ("model name", "cpu family", "model"):
                model = value.strip() if key.strip() == "model name" else model
    wanted = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimd")
    revision = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    version = subprocess.run([options.program, "--version"], capture_output=True, text=True)
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "instructions": [flag for flag in wanted if flag in flags],
        "threads": options.threads,
        "precision": "f32",
        "ultramotion": f"{version.stdout.strip()} (checkout {revision.stdout.strip() or 'unknown'})",
        "onnxruntime": ort.__version__,
        "torch": torch.__version__,
        "exporter": f"{options.exporter}, opset {options.opset}",
        "date": datetime.date.today().isoformat(),
        "load_average": [round(x, 1) for x in os.getloadavg()],
        "rounds": options.rounds,
        "runs": options.runs,
    }


def table(results):
    """Markdown. `results` are lines of `--json`; the header takes the machine from the first."""
    first = results[0]["machine"]
    loads = [r["machine"]["load_average"][0] for r in results]
    lines = [
        f"{first['cpu']}, {first['cores']} cores ({', '.join(first['instructions'])}), {first['threads']} threads, "
        f"{first['precision']}; {first['ultramotion']}, ONNX Runtime {first['onnxruntime']} (model exported by "
        f"PyTorch {first['torch']}, {first['exporter']}); {first['date']}; load average {min(loads)} to {max(loads)}.",
        "",
        "| network | input | ours, ms | ONNX Runtime, ms | ratio | of the best rounds |",
        "|---|---|---:|---:|---:|---:|",
    ]

    def side(s):
        return f"**{s['p50_ms']:.1f}** ({s['min_ms']:.1f}–{s['max_ms']:.1f})"

    for r in results:
        shape = "x".join(map(str, r["input"])) + (f", {r['boxes']} boxes" if r["boxes"] else "")
        if "onnx_runtime" in r:
            ratio = f"**{r['ratio']:.2f}** ({r['ratio_min']:.2f}–{r['ratio_max']:.2f})"
            lines.append(
                f"| {r['model']} | {shape} | {side(r['ours'])} | {side(r['onnx_runtime'])} | {ratio} "
                f"| {r['ratio_of_best']:.2f} |"
            )
        else:
            rate = f"{1e3 / r['ours']['p50_ms']:.1f} frames/s"
            lines.append(f"| {r['model']} | {shape} | {side(r['ours'])} | – | {rate} | – |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"of {', '.join(NETWORKS)}, {FRAME} [default: all]")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7, help="alternations between the two [default: 7]")
    parser.add_argument("--runs", type=int, default=15, help="runs that count on each side of a round [default: 15]")
    parser.add_argument("--program", default=str(ROOT / "target/release/ultramotion"), help="the ultramotion to time")
    parser.add_argument("--exporter", choices=("torchscript", "dynamo"), default="dynamo")
    parser.add_argument("--opset", type=int, default=20)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "ultramotion-onnx")
    parser.add_argument("--export-only", action="store_true", help="write and check the ONNX files, time nothing")
    parser.add_argument("--report", type=Path, metavar="FILE", help="print the table of stored JSON lines, time nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object a network")
    parser.add_argument("--verbose", action="store_true", help="also print each round")
    options = parser.parse_args()
    if options.report:
        print(table([json.loads(line) for line in options.report.read_text().splitlines()]))
        return
    names = options.models or [*NETWORKS, FRAME]
    if unknown := [name for name in names if name not in NETWORKS and name != FRAME]:
        parser.error(f"{unknown[0]} is none of {', '.join(NETWORKS)}, {FRAME}")
    options.cache.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name in names:
        if name != FRAME:
            paths[name] = options.cache / f"{name}-{options.exporter}{options.opset}-torch{torch.__version__}.onnx"
            if not paths[name].exists():
                export(name, paths[name], options.exporter, options.opset)
    if options.export_only:
        return
    results = []
    for name in names:
        load = [round(x, 1) for x in os.getloadavg()]
        result = whole_frame(options) if name == FRAME else compare(name, paths[name], options)
        results.append(result | {"machine": machine(options) | {"load_average": load}})
        if options.json:
            print(json.dumps(results[-1]), flush=True)
    if not options.json:
        print(table(results))


if __name__ == "__main__":
    main()
