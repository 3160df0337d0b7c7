"""Every example runs, by itself, in a folder of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

EXAMPLES = REPOSITORY / "python" / "examples"

# An example, and what it says at its end; the second where the library that it is about is missing.
ANSWERS = {
    "matcher_in_training.py": ("all agree with SciPy's optimum", "PyTorch is not installed"),
    "point_and_box.py": ("Tensor(shape=[2, 1, 512, 512]", ""),
    "ray_archive.py": ("2 recordings, 8 frames", "Ray is not installed"),
    "recording.py": ("found.json: 40 objects in 20 images", ""),
    "rerun_log.py": ("ultramotion.rrd", "rerun is not installed"),
}


def test_every_example_is_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(ANSWERS)


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_example(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / name)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    said = ran.stdout.splitlines()[-1]
    done, missing = ANSWERS[name]
    assert done in said or (missing and missing in said), ran.stdout
    if done not in said:
        pytest.skip(said)
