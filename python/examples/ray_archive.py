"""An archive that is larger than one machine: a Ray Data job over a folder of recordings.

    pip install "ray[data]"
    python examples/ray_archive.py FOLDER --out results

One actor on each node of the cluster takes one recording after another, on all of the node's cores or its GPU, with
models that are opened and programs that are compiled once. It writes what it finds as OUT/RECORDING.jsonl, the lines
that `ultramotion run` writes. FOLDER and OUT have to be where every node sees them. What comes back is a row a
recording. A recording that cannot be read is named, and does not end the job.

Without FOLDER, two short recordings of the phantom are made and taken. Where Ray is missing, this says so and does
nothing.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import ultramotion


class Perceive:
    """What an actor does: a recording in, a summary out."""

    def __init__(self, out: str, settings: dict[str, Any]) -> None:
        self.out = Path(out)
        self.pipeline = ultramotion.Orchestrator(**settings)  # models are opened once

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        recording = Path(row["recording"])
        lines = self.out / f"{recording.name}.jsonl"
        unfinished = lines.with_suffix(".part")
        frames, tracks, error = 0, set[int](), ""
        try:
            with unfinished.open("w") as file, self.pipeline.run(recording) as packets:
                for packet in packets:
                    file.write(packet.to_json() + "\n")
                    frames += 1
                    tracks.update(packet.track_ids[packet.confirmed].tolist())
            # Whoever looks sees whole files only, and a job that is started again can leave those out.
            unfinished.replace(lines)
        except (OSError, ValueError) as failed:
            error = str(failed)
            unfinished.unlink(missing_ok=True)
        return {"recording": str(recording), "frames": frames, "structures": len(tracks), "error": error}


def make_recordings(folder: Path) -> None:
    """Write two short sequences in MetaImage, the format that PLUS and 3D Slicer record."""
    for seed in (1, 2):
        images = [packet.image for packet in ultramotion.run(f"phantom:{seed}", frames=4)]
        frames = np.stack([image for image in images if image is not None])
        count, height, width = frames.shape[:3]
        header = (
            f"ObjectType = Image\nNDims = 3\nDimSize = {width} {height} {count}\nElementType = MET_UCHAR\n"
            "ElementDataFile = LOCAL\n"
        )
        (folder / f"phantom{seed}.mha").write_bytes(header.encode() + frames.tobytes())


def summarise(folder: Path, out: Path, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Run the job, and return a row a recording."""
    # What is perceived is the archive's business alone.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    ray.init(ignore_reinit_error=True, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    # More than half of its cores: no node has room for two such actors.
    cores = int(min(node.get("CPU", 1) for node in nodes)) // 2 + 1
    on_gpus = all(node.get("GPU", 0) >= 1 for node in nodes)
    recordings = [{"recording": str(path)} for path in sorted(folder.glob("*.mh[ad]"))]
    job = ray.data.from_items(recordings, override_num_blocks=max(1, len(recordings))).map(
        Perceive,
        fn_constructor_kwargs={"out": str(out), "settings": settings},
        compute=ray.data.ActorPoolStrategy(size=len(nodes)),
        num_cpus=cores,
        num_gpus=1 if on_gpus else 0,
    )
    rows: list[dict[str, Any]] = job.take_all()
    ray.shutdown()
    return sorted(rows, key=lambda row: str(row["recording"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="recordings: .mha, .igs.mha or .mhd")
    parser.add_argument("--out", type=Path, default=None, help="folder for the results (made if missing)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda[:N]")
    parser.add_argument("--detector", help="a detector by name, or a checkpoint of one")
    given = parser.parse_args()
    if importlib.util.find_spec("ray") is None:
        print('skipped: Ray is not installed; pip install "ray[data]"')
        return
    settings = {"device": given.device} | ({"detector": given.detector} if given.detector else {})
    with tempfile.TemporaryDirectory() as made:
        folder = given.folder or Path(made)
        if given.folder is None:
            make_recordings(folder)
        out = (given.out or folder / "results").resolve()
        out.mkdir(parents=True, exist_ok=True)
        rows = summarise(folder.resolve(), out, settings)
        for row in rows:
            found = row["error"] or f"{row['frames']} frames, {row['structures']} structures"
            print(f"{Path(row['recording']).name}: {found}")
        print(f"{len(rows)} recordings, {sum(row['frames'] for row in rows)} frames")


if __name__ == "__main__":
    main()
