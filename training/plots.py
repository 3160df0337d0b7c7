"""Pictures of what training gave: learning curves, precision-recall curves, and the worst frames.

    python training/plots.py --program target/release/ultramotion

In: the logs of the runs in `training/*/logs/`, and the held-out frames of usgra and carotid, which `ultramotion eval`
measures. Out, in `docs/`: `learning-curves.png`, `precision-recall.png`, each below 300 kB, and `eval.json`, one object a
set, with all figures. With `--phantom DIR` (exported frames) also `error-gallery.png`, the worst of the phantom's held-out
seeds; `--real-gallery PATH` draws that of the real sets, whose frames show people and do not belong in the repository. The program's own models are taken unless `--detector` and `--segmenter`
name others. Without the data the learning curves are drawn alone, and that is said.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from data import SPLITS, load, shared_data

HERE = Path(__file__).resolve().parent
MAX_BYTES = 300_000
# Fields of a log's row that are no loss.
NOT_LOSSES = {"step", "minutes", "seconds", "lr", "step_s", "side", "norm", "gradient", "iou_error", "dice"}
# Fields that hold scores by set and class, what they are, and how they are drawn.
SCORES = {
    "AP50": ("AP50", "-o"),
    "dice": ("Dice, jittered boxes", "-o"),
    "exact": ("Dice, exact boxes", "--s"),
}
COLOURS = {"vessel": "tab:blue", "nerve": "tab:orange"}
CLASS_VALUES = {"nerve": 1, "vessel": 2}
# Of true outlines in overlays.
TRUE_COLOURS = ("#00e650", "#ffd200")
SOURCES = (
    "Images: usgra-seg (T. Kandaouroff, 2025) and Common Carotid Artery Ultrasound Images (A. Momot, 2022), CC BY 4.0, "
    "drawn on. Research only."
)


def palette() -> Image.Image:
    """Greys as they are in ultrasound, and the colours that lines have: one made from the picture would drop thin
    outlines, which are few pixels."""
    lines = np.array([matplotlib.colors.to_rgb(c) for c in (*TRUE_COLOURS, *(f"C{i}" for i in range(6)))])
    darker = [lines * share for share in (0.25, 0.5, 0.75, 1.0)]
    lighter = [lines + (1 - lines) * share for share in (0.25, 0.5, 0.75)]
    greys = np.repeat(np.linspace(0, 1, 96)[:, None], 3, axis=1)
    colours = np.concatenate([greys, *darker, *lighter])
    image = Image.new("P", (1, 1))
    image.putpalette(np.round(colours * 255).astype(np.uint8).tobytes())
    return image


def save(figure, path: Path):
    """As a PNG of few colours; a picture that is still too large is made smaller."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110)
    plt.close(figure)
    picture = Image.open(buffer).convert("RGB")
    while True:
        encoded = io.BytesIO()
        picture.quantize(palette=palette(), dither=Image.Dither.NONE).save(encoded, "PNG", optimize=True)
        if len(encoded.getvalue()) <= MAX_BYTES:
            break
        picture = picture.resize((picture.width * 9 // 10, picture.height * 9 // 10), Image.LANCZOS)
    path.write_bytes(encoded.getvalue())
    print(f"{path}: {picture.width} x {picture.height}, {len(encoded.getvalue()) / 1000:.0f} kB")


def stages(log: Path) -> dict[str, list[dict]]:
    """Rows of a log by stage: a run's phases, where it names them, else the whole file. Rows of scores that a phase named
    `watch` took belong to the stage that they interrupt."""
    found: dict[str, list[dict]] = {}
    for line in log.read_text().splitlines():
        row = json.loads(line)
        phase = row.get("phase")
        name = log.stem if phase is None else f"{log.stem}: {phase}"
        if phase == "watch":
            name = next((n for n in reversed(found) if not n.endswith("geometry")), f"{log.stem}: train")
        if "minutes" in row or "seconds" in row:
            found.setdefault(name, []).append(row)
    return found


def minutes(row: dict) -> float:
    return row["minutes"] if "minutes" in row else row["seconds"] / 60


def loss(row: dict) -> float | None:
    """The total, else the first loss that is logged."""
    names = [n for n, v in row.items() if n not in NOT_LOSSES and isinstance(v, (int, float))]
    return row.get("loss", row[names[0]] if names else None)


def learning_curves(logs: dict[str, list[Path]], path: Path):
    """A row for each network: losses on the left, scores on frames left out on the right, over minutes of training."""
    figure, axes = plt.subplots(len(logs), 2, figsize=(10, 3.4 * len(logs)), squeeze=False, layout="constrained")
    for (network, files), (left, right) in zip(logs.items(), axes):
        start, losses, colours = 0.0, [], {}
        for file in files:
            scores: dict[tuple[str, str], list] = {}
            for name, rows in stages(file).items():
                points = [(start + minutes(r), loss(r)) for r in rows if loss(r) is not None]
                if points:
                    left.plot(*np.array(points).T, linewidth=1, label=name)
                    losses += [value for _, value in points]
                for row in rows:
                    for kind in SCORES:
                        by_label = row.get(kind)
                        for label, value in by_label.items() if isinstance(by_label, dict) else ():
                            label = label.replace("/", " ")
                            scores.setdefault((label, kind), []).append((start + minutes(row), value))
                start += max(minutes(r) for r in rows)
            for (label, kind), points in sorted(scores.items()):
                colour = colours.setdefault(label, f"C{len(colours)}")
                name, style = SCORES[kind]
                right.plot(*np.array(points).T, style, color=colour, markersize=3, lw=1, label=f"{label}, {name}")
        left.set(title=f"{network}: loss", xlabel="minutes of training")
        if losses and max(losses) > 10 * min(losses) > 0:
            left.set_yscale("log")
        left.legend(fontsize=7)
        right.set(title=f"{network}: frames left out", xlabel="minutes of training", xlim=left.get_xlim(), ylim=(0, 1.02))
        # A score that several runs took is named once.
        named = dict(zip(*reversed(right.get_legend_handles_labels())))
        if named:
            right.legend(named.values(), named.keys(), fontsize=7)
        for axis in (left, right):
            axis.grid(alpha=0.3)
    save(figure, path)


def evaluate(program: Path, set_name: str, folder: Path, overlays: Path, models: list[str]) -> dict:
    """What `ultramotion eval` says of a set's held-out frames; all of `folder` for the phantom."""
    command = [program, "eval", "--images", folder / "images", "--masks", folder / "masks"]
    command += [] if set_name == "phantom" else ["--split", SPLITS]
    command += ["--json", "--overlays", overlays, *models]
    command += ["--classes", "vessel=1", "--one-per-class"] if set_name == "carotid" else ["--classes", "nerve=1,vessel=2"]
    print(" ".join(map(str, command)))
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def write_held_out_phantom(phantom: Path, folder: Path):
    """One frame of each held-out seed, with nerves as 1 and vessels as 2."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    seeds = set()
    for frame in load("held_out", ["phantom"], phantom=phantom):
        seed = frame.name.split("_")[0]
        if seed in seeds:
            continue
        seeds.add(seed)
        mask = np.zeros(frame.image.shape, np.uint8)
        for index, label in enumerate(frame.labels):
            mask[frame.mask(index)] = CLASS_VALUES.get(label, 0)
        Image.fromarray(frame.image).save(folder / "images" / f"{frame.name}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{frame.name}.png")


def precision_recall(reports: dict[str, dict], path: Path):
    """A curve for each set and class at IoU 0.5, with the run's threshold as a point."""
    figure, axes = plt.subplots(1, len(reports), figsize=(4.6 * len(reports), 5), squeeze=False, layout="constrained")
    for axis, (set_name, report) in zip(axes[0], reports.items()):
        for label, figures in report["by_class"].items():
            found = figures["detection"]
            if found["ap50"] is None:
                continue
            colour = COLOURS.get(label)
            for suffix, style, note in (("", "--", "all answers"), ("_by_pipeline_rules", "-", "overlapping ones dropped")):
                name = f"{label}, {note}: AP50 {found['ap50' + suffix]:.3f}"
                curve = found["precision_at_recall" + suffix]
                axis.plot(np.linspace(0, 1, 101), curve, style, color=colour, linewidth=1.2, label=name)
            if found["precision"] is not None:
                axis.plot(found["recall"], found["precision"], "o", color=colour)
        axis.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="recall", ylabel="precision", aspect="equal")
        axis.set_title(f"{set_name}, {report['frames']} frames left out, IoU 0.5", fontsize=10)
        axis.grid(alpha=0.3)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=7)
    threshold = next(iter(reports.values()))["score_threshold"]
    figure.supxlabel(f"points: what a run gives at its threshold of {threshold:g}", fontsize=8)
    save(figure, path)


def error_gallery(reports: dict[str, dict], overlays: dict[str, Path], counts: dict[str, int], path: Path):
    """The worst frames of each set."""
    pictures = []
    for set_name, report in reports.items():
        files = sorted(overlays[set_name].glob("*.png"))[: counts[set_name]]
        figures = {row["name"]: row for row in report["by_frame"]}
        for file in files:
            row = figures[file.stem.split("_", 1)[1]]
            title = f"{set_name} {row['name']}\n{row['objects']} there, {row['missed']} missed, {row['wrong']} wrong"
            pictures.append((f"{title}, quality {row['quality']:.2f}", Image.open(file)))
    columns = 3
    rows = -(-len(pictures) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(10, 3.6 * rows + 0.6), squeeze=False, layout="constrained")
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, picture) in zip(axes.flat, pictures):
        axis.imshow(picture)
        axis.set_title(title, fontsize=7)
    carotid = "green a true vessel in carotid" if "carotid" in reports else ""
    legend = "; ".join(filter(None, ["green a true nerve, yellow a true vessel", carotid, "white what the run found"]))
    title = f"The worst frames of those left out of training: {legend}"
    quality = "quality: sum of the Dice of what was found, over objects and wrong detections"
    figure.suptitle(f"{title}\n{quality}", fontsize=8)
    figure.supxlabel("Simulated frames. Research only." if "phantom" in reports else SOURCES, fontsize=6)
    save(figure, path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=HERE.parent / "target" / "release" / "ultramotion")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs")
    parser.add_argument("--phantom", type=Path, help="exported phantom frames, for the gallery")
    parser.add_argument("--real-gallery", type=Path, metavar="PATH", help="also draw the worst frames of the real sets, here")
    parser.add_argument("--detector", help="a checkpoint instead of the built-in detector")
    parser.add_argument("--segmenter", help="a checkpoint instead of the built-in segmenter")
    parser.add_argument("--score-threshold", help="the run's, instead of its default")
    for network in ("detector", "segmenter"):
        parser.add_argument(f"--{network}-logs", type=Path, nargs="*", help=f"in order [training/{network}/logs/*.jsonl]")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    logs = {}
    for network in ("detector", "segmenter"):
        given = getattr(arguments, f"{network}_logs")
        logs[network] = given if given is not None else sorted((HERE / network / "logs").glob("*.jsonl"))
    logs = {network: files for network, files in logs.items() if files}
    if logs:
        learning_curves(logs, arguments.out / "learning-curves.png")
    else:
        print("no logs in training/*/logs: no learning curves")

    if not shared_data().is_dir():
        sys.exit(f"{shared_data()} is missing, so nothing can be measured: ULTRAMOTION_SHARED names the folder")
    models = ["--device", "cpu"]
    for option in ("detector", "segmenter", "score_threshold"):
        value = getattr(arguments, option)
        models += [f"--{option.replace('_', '-')}", value] if value else []
    with tempfile.TemporaryDirectory() as folder:
        overlays = {name: Path(folder) / name for name in ("usgra", "carotid")}
        reports = {
            name: evaluate(arguments.program, name, shared_data() / name, overlays[name], models) for name in overlays
        }
        (arguments.out / "eval.json").write_text(json.dumps(concise(reports), indent=1) + "\n")
        precision_recall(reports, arguments.out / "precision-recall.png")
        if arguments.real_gallery:
            error_gallery(reports, overlays, {"usgra": 4, "carotid": 2}, arguments.real_gallery)
        if arguments.phantom:
            frames, drawn = Path(folder) / "phantom-frames", Path(folder) / "phantom"
            write_held_out_phantom(arguments.phantom, frames)
            report = {"phantom": evaluate(arguments.program, "phantom", frames, drawn, models)}
            error_gallery(report, {"phantom": drawn}, {"phantom": 6}, arguments.out / "error-gallery.png")


def concise(value):
    """Figures with as many digits as mean something, and data sets by name rather than by path."""
    if isinstance(value, dict):
        return {
            k: Path(v).parts[-2] if k in ("images", "masks") and isinstance(v, str) else concise(v)
            for k, v in value.items()
            if not k.startswith("precision_at_recall") and k not in ("by_frame", "part")
        }
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
