"""One table of a visit's measurements.

    python table.py RESULTS_FOLDER

Reads what `visit.sh` wrote: a file for each part, JSON lines of `ultramotion bench` and of `peers.py`."""

import json
import sys
from pathlib import Path


def lines(path):
    for text in path.read_text(errors="replace").splitlines():
        if text.startswith("{"):
            yield json.loads(text)


def main():
    folder = Path(sys.argv[1])
    rows = []
    for path in sorted(folder.glob("*.txt")):
        for line in lines(path):
            if "model" in line and "p50_ms" in line:
                form = "ultramotion, kernels in turn" if path.stem.endswith("_in_turn") else "ultramotion"
                rows.append((line["model"], form, line["precision"], line))
            elif "peer" in line:
                rows.append((line["peer"], f"PyTorch, {line['form']}", line["precision"], line))
    print("| what | by | precision | p50 ms | p99 ms | runs |")
    print("|---|---|---|---:|---:|---:|")
    for what, who, precision, line in sorted(rows, key=lambda row: (row[0], row[2], row[1])):
        print(f"| {what} | {who} | {precision} | {line['p50_ms']:.3f} | {line['p99_ms']:.3f} | {line['runs']} |")
    print()
    print((folder / "machine.txt").read_text().strip())
    print((folder / "summary.txt").read_text().strip())


if __name__ == "__main__":
    main()
