"""What the tests share: an image, pipelines that are made once, small models, the command."""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import ultramotion

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("ULTRAMOTION_SHARED", REPOSITORY.parent / "shared"))


@pytest.fixture(scope="session")
def frame() -> npt.NDArray[np.uint8]:
    """A frame of the phantom, in which two vessels are found."""
    packet = next(iter(ultramotion.run("phantom", frames=1)))
    assert packet.image is not None
    return np.array(packet.image)


@pytest.fixture(scope="session")
def orchestrator() -> Iterator[ultramotion.Orchestrator]:
    with ultramotion.Orchestrator(device="cpu") as made:
        yield made


@pytest.fixture(scope="session")
def predictor() -> ultramotion.SamPredictor:
    return ultramotion.SamPredictor("ultrasound-sam", device="cpu")


@pytest.fixture(scope="session")
def reference() -> Path:
    """The folder with what the official code computes."""
    if not (SHARED / "reference").is_dir():
        pytest.skip(f"the fixtures are not at {SHARED / 'reference'}")
    return SHARED / "reference"


@pytest.fixture(scope="session")
def command() -> Path:
    """The command, for comparison: as ULTRAMOTION_COMMAND says, or where cargo puts it."""
    name = "ultramotion.exe" if sys.platform == "win32" else "ultramotion"
    path = Path(os.environ.get("ULTRAMOTION_COMMAND", REPOSITORY / "target" / "release" / name))
    if not path.is_file():
        pytest.skip(f"the command is not built: cargo build --release makes {path}")
    return path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The shipped models with an input of 64 pixels: fast, and of no other use."""
    folder = tmp_path_factory.mktemp("small")
    names = {"detector": "ultrasound-n", "segmenter": "ultrasound-sam"}
    return {
        kind: str(with_input(REPOSITORY / "weights" / f"{name}.safetensors", folder / f"{name}.safetensors", 64))
        for kind, name in names.items()
    }


def with_input(model: Path, path: Path, side: int) -> Path:
    """Write a model with another input side."""
    data = model.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["input"] = str(side)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])
    return path
