from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ultramotion
from ultramotion import Detector


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector("ultrasound-n", device="cpu")


class Dlpack:
    """An array of which only DLPack is known, as another library's."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __dlpack__(self, **request: Any) -> Any:
        return self.array.__dlpack__(**request)

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()


class OnGpu(Dlpack):
    def __dlpack_device__(self) -> Any:
        return (2, 0)


def test_every_form_is_the_same_image(detector: Detector, frame: Any) -> None:
    rgb = np.repeat(frame[:, :, None], 3, axis=2)
    wide = np.zeros((512, 1024), np.uint8)
    wide[:, ::2] = frame
    forms = {
        "H, W": frame,
        "H, W, 1": frame[:, :, None],
        "1, H, W": frame[None],
        "1, 1, H, W": frame[None, None],
        "every other column": wide[:, ::2],
        "turned and back": np.ascontiguousarray(frame[::-1])[::-1],
        "columns first": np.asfortranarray(frame),
        "read-only": np.frombuffer(frame.tobytes(), np.uint8).reshape(frame.shape),
        "float32": (frame / 255).astype(np.float32),
        "float64": frame / 255,
        "DLPack": Dlpack(frame),
        "DLPack, strides": Dlpack(wide[:, ::2]),
        "DLPack, float32": Dlpack((frame / 255).astype(np.float32)),
    }
    expected = detector.predict(frame)
    assert len(expected.boxes_xyxy) == 2
    for name, image in forms.items():
        found = detector.predict(image)
        assert (found.boxes_xyxy == expected.boxes_xyxy).all(), name
        assert (found.scores == expected.scores).all(), name
    colours = {"H, W, 3": rgb, "3, H, W": rgb.transpose(2, 0, 1), "1, 3, H, W": rgb.transpose(2, 0, 1)[None]}
    expected = detector.predict(rgb)
    for name, image in colours.items():
        assert (detector.predict(image).boxes_xyxy == expected.boxes_xyxy).all(), name


def test_contiguous_bytes_are_not_copied(detector: Detector, frame: Any) -> None:
    before = ultramotion.copied_bytes()
    for image in (frame, frame[:, :, None], frame[None], Dlpack(frame), np.repeat(frame[:, :, None], 3, axis=2)):
        detector.predict(image)
    assert ultramotion.copied_bytes() == before
    detector.predict(frame / 255)
    assert ultramotion.copied_bytes() == before + frame.size


NAN = np.full((8, 8), 0.5)
NAN[3, 4] = np.nan


@pytest.mark.parametrize(
    ("image", "error", "text"),
    [
        (np.zeros((4, 5, 6, 7), np.uint8), ValueError, "not [4, 5, 6, 7]"),
        (np.zeros((4, 5, 2), np.uint8), ValueError, "not [4, 5, 2]"),
        (np.zeros(7, np.uint8), ValueError, "not [7]"),
        (np.zeros((2, 3, 8, 8), np.uint8), ValueError, "not [2, 3, 8, 8]"),
        (np.zeros((0, 8), np.uint8), ValueError, "empty"),
        (np.zeros((8, 0, 3), np.uint8), ValueError, "empty"),
        (np.broadcast_to(np.uint8(0), (10_000, 10_000)), ValueError, "10000x10000"),
        (NAN, ValueError, "from 0 to 1"),
        (np.full((8, 8), 128.0), ValueError, "divide 8-bit values by 255"),
        (np.full((8, 8), -0.1, np.float32), ValueError, "from 0 to 1"),
        (np.zeros((8, 8), np.int16), TypeError, "int16"),
        (np.zeros((8, 8), np.complex64), TypeError, "complex64"),
        (np.zeros((8, 8), ">f4"), TypeError, ">f4"),
        (np.array([["a"]]), TypeError, "<U1"),
        (np.zeros((8, 8), object), TypeError, "object"),
        (Dlpack(np.zeros((8, 8), np.int16)), TypeError, "16 bits"),
        (OnGpu(np.zeros((8, 8), np.uint8)), ValueError, "another device"),
        ([[1, 2], [3, 4]], TypeError, "not list"),
        ("picture.png", TypeError, "not str"),
        (None, TypeError, "not NoneType"),
    ],
)
def test_what_is_no_image_is_said(
    detector: Detector, orchestrator: Any, frame: Any, image: Any, error: type[Exception], text: str
) -> None:
    for call in (detector.predict, orchestrator.run_inference):
        with pytest.raises(error) as raised:
            call(image)
        assert text in str(raised.value)
        assert str(raised.value).count("\n") == 0
    assert len(detector.predict(frame).scores) == 2


def test_pil_images_are_read(detector: Detector, frame: Any) -> None:
    pil = pytest.importorskip("PIL.Image")
    expected = detector.predict(frame)
    assert (detector.predict(pil.fromarray(frame)).boxes_xyxy == expected.boxes_xyxy).all()


def test_an_image_of_torch_is_taken_as_it_is(detector: Detector, frame: Any) -> None:
    torch = pytest.importorskip("torch")
    expected = detector.predict(frame)
    before = ultramotion.copied_bytes()
    image = torch.from_numpy(frame)
    assert (detector.predict(image).boxes_xyxy == expected.boxes_xyxy).all()
    assert ultramotion.copied_bytes() == before
    assert (detector.predict(image[None, None] / 255.0).boxes_xyxy == expected.boxes_xyxy).all()
    assert (torch.from_dlpack(ultramotion.run_segmentation(frame, expected, as_numpy=False)).sum() > 0).item()


def test_a_threshold_out_of_range_is_said(detector: Detector, frame: Any) -> None:
    for threshold in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="0 to 1"):
            detector.predict(frame, threshold)
    everything = detector.predict(frame, 0.0)
    assert len(everything.scores) == 300
    assert (np.diff(everything.scores) <= 0).all()
