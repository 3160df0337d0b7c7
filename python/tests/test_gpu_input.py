"""Images that are on a GPU already: they are to stay there.

The GPU is the tests' own driver, which runs no kernel, but counts copies and has the process's memory as its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).resolve().parents[2] / "crates" / "pipeline" / "tests" / "driver" / "driver.c"

PROGRAM = """
import ctypes
import numpy as np
import ultramotion

class OnGpu:
    '''An array whose DLPack says that it is on a GPU.'''

    def __init__(self, array, gpu=0):
        self.array, self.gpu, self.streams = array, gpu, []

    def __dlpack_device__(self):
        return (2, self.gpu)

    def __dlpack__(self, *, stream=None, **_):
        self.streams.append(stream)
        capsule = self.array.__dlpack__()
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        # The device is what follows the address of the elements.
        (ctypes.c_int32 * 2).from_address(pointer(capsule, b"dltensor") + 8)[:] = (2, self.gpu)
        return capsule

def says(text, error, call, *arguments):
    try:
        call(*arguments)
    except error as raised:
        assert text in str(raised), raised
    else:
        raise AssertionError(f"{text!r} was to be said")

frame = np.arange(96 * 80, dtype=np.uint32).astype(np.uint8).reshape(96, 80)
pipeline = ultramotion.Orchestrator(device="cuda")
assert pipeline.device == "cuda"
pipeline.run_inference(frame)
for image in (OnGpu(frame), OnGpu(frame[:, :, None]), OnGpu(frame[None])):
    before = ultramotion.copied_bytes()
    transfers = pipeline.run_inference(image).transfers
    assert image.streams == [1], "on the stream that the copy waits for"
    assert (transfers["d2d"], transfers["d2d_bytes"]) == (1, frame.nbytes), transfers
    assert transfers["h2d_bytes"] < 200 and transfers["host_syncs"] == 1, transfers
    assert ultramotion.copied_bytes() == before
assert "d2d" not in pipeline.run_inference(frame).transfers

colours = np.zeros((96, 80, 3), np.uint8)
assert pipeline.run_inference(OnGpu(colours)).transfers["d2d_bytes"] == colours.nbytes
predictor = ultramotion.SamPredictor("ultrasound-sam", device="cuda")
predictor.set_image(OnGpu(colours))
assert predictor.is_image_set
ultramotion.Detector("ultrasound-n", device="cuda").predict(OnGpu(frame))

says("computes on GPU 0", ValueError, pipeline.run_inference, OnGpu(frame, gpu=1))
says("contiguous", ValueError, pipeline.run_inference, OnGpu(frame[:, ::2]))
says("contiguous", ValueError, pipeline.run_inference, OnGpu(np.zeros((3, 96, 80), np.uint8)))
says("not [7]", ValueError, pipeline.run_inference, OnGpu(np.zeros(7, np.uint8)))
says("32 bits", TypeError, pipeline.run_inference, OnGpu(np.zeros((96, 80), np.float32)))
says("as RGB only", ValueError, predictor.set_image, OnGpu(colours), "BGR")
host = ultramotion.Orchestrator(device="cuda", residency="host")
says("residency = host", ValueError, host.run_inference, OnGpu(frame))
print("done")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the driver of the tests is for Linux")
def test_an_image_on_the_gpu_stays_there(tmp_path: Path) -> None:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("there is no C compiler to build the driver of the tests")
    library = tmp_path / "libcuda.so"
    build = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(DRIVER), "-lpthread"]
    subprocess.run(build, check=True)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.endswith("done\n"), done.stdout + done.stderr
