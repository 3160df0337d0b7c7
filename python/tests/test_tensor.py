from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import ultramotion
from ultramotion import SamPredictor, Tensor


@pytest.fixture(scope="module")
def results(predictor: SamPredictor, frame: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [2, 3, H, W], scores [2, 3], low-resolution logits [2, 3, h, w]."""
    predictor.set_image(frame)
    boxes = [[360, 200, 445, 285], [170, 180, 230, 230]]
    return predictor.predict_torch(boxes=boxes, return_logits=True)


def test_numpy_is_a_read_only_view(results: tuple[Tensor, ...]) -> None:
    for tensor in results:
        before = ultramotion.copied_bytes()
        first, second = tensor.numpy(), np.asarray(tensor)
        assert first.__array_interface__["data"][0] == second.__array_interface__["data"][0]
        assert first.base is not None
        assert not first.flags.writeable
        assert first.shape == tensor.shape
        assert str(first.dtype) == tensor.dtype
        assert ultramotion.copied_bytes() == before
        with pytest.raises(ValueError, match="read-only"):
            first[...] = 0


def test_memory_outlives_its_tensor(predictor: SamPredictor, frame: Any) -> None:
    predictor.set_image(frame)
    masks = predictor.predict_torch(boxes=[[360, 200, 445, 285]])[0]
    view, exported = masks.numpy(), np.from_dlpack(masks)
    expected = view.copy()
    del masks
    gc.collect()
    predictor.set_image(255 - frame)
    predictor.predict_torch(boxes=[[0, 0, 500, 500]])
    assert (view == expected).all()
    assert (exported == expected).all()


def test_dlpack_is_a_view(results: tuple[Tensor, ...]) -> None:
    for tensor in (*results, results[0] > 0):
        exported = np.from_dlpack(tensor)
        assert exported.__array_interface__["data"][0] == tensor.numpy().__array_interface__["data"][0]
        assert exported.dtype == tensor.dtype
        assert (exported == tensor.numpy()).all()
        assert not exported.flags.writeable
    assert results[0].__dlpack_device__() == (1, 0)
    with pytest.raises(BufferError):
        results[0].__dlpack__(max_version=(1, 0), copy=True)
    with pytest.raises(BufferError):
        results[0].__dlpack__(max_version=(1, 0), dl_device=(2, 0))


def test_code_for_either_kind_runs(results: tuple[Tensor, ...]) -> None:
    logits, scores, _ = results
    array = logits.numpy()
    for tensor_result, expected in [
        (logits > 0.0, array > 0),
        (logits >= 0.5, array >= 0.5),
        (logits < 0, array < 0),
        (logits <= -1, array <= -1),
        (logits == 0, array == 0),
        (logits != 0, array != 0),
        (logits.bool(), array.astype(bool)),
        (logits.astype(bool), array.astype(bool)),
        (logits.astype("int32"), array.astype(np.int32)),
        (logits.astype(np.int64), array.astype(np.int64)),
        (logits[1], array[1]),
        (logits[-1][2], array[-1][2]),
        (logits.reshape(6, -1), array.reshape(6, -1)),
        (logits.cpu(), array),
    ]:
        assert isinstance(tensor_result, Tensor)
        assert tensor_result.shape == expected.shape
        assert tensor_result.dtype == expected.dtype
        assert (tensor_result.numpy() == expected).all()
    assert logits.astype("float32") is logits
    assert len(logits) == 2
    assert [row.shape for row in logits] == [array.shape[1:]] * 2  # type: ignore[attr-defined]
    assert np.asarray(scores, dtype=np.float64).dtype == np.float64
    assert bool(scores[0][0] > 2) is False
    assert repr(scores) == "Tensor(shape=[2, 3], dtype=float32, device=cpu)"


def test_what_a_tensor_cannot_do_is_said(results: tuple[Tensor, ...]) -> None:
    logits = results[0]
    with pytest.raises(TypeError, match="compared with a number"):
        logits > "1"  # type: ignore[operator] # noqa: B015
    with pytest.raises(ValueError, match="complex64"):
        logits.astype(np.complex64)
    with pytest.raises(ValueError, match=r"cannot become \[5, -1\]"):
        logits.reshape(5, -1)
    with pytest.raises(IndexError, match="row 2 of a Tensor with 2"):
        logits[2]
    with pytest.raises(ValueError, match="neither true nor false"):
        bool(logits)
    with pytest.raises(ValueError, match="copy"):
        np.array(logits, dtype=np.float64, copy=False)
