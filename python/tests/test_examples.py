"""Every example runs, by itself, in under a minute."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

# An example, and what it says at its end; the second where the library that it is about is missing.
ANSWERS = {
    "matcher_in_training.py": ("all agree with SciPy's optimum", "PyTorch is not installed"),
    "ray_archive.py": ("2 recordings, 8 frames", "Ray is not installed"),
}


def test_every_example_is_here() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(ANSWERS)


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_example(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / name)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert ran.returncode == 0, ran.stderr
    assert any(answer in ran.stdout.splitlines()[-1] for answer in ANSWERS[name]), ran.stdout
