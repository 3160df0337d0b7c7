from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import ultramotion
from ultramotion import SamPredictor, Tensor


@pytest.fixture(scope="module")
def set_predictor(predictor: SamPredictor, frame: Any) -> SamPredictor:
    predictor.set_image(frame)
    return predictor


def test_shapes_and_order_are_the_official_ones(set_predictor: SamPredictor) -> None:
    point: dict[str, Any] = {"point_coords": np.array([[400, 240]]), "point_labels": np.array([1])}
    masks, scores, low_res = set_predictor.predict(**point)
    assert (masks.shape, masks.dtype) == ((3, 512, 512), bool)
    assert (scores.shape, scores.dtype) == ((3,), np.float32)
    assert low_res is not None
    assert (low_res.shape, low_res.dtype) == ((3, 80, 80), np.float32)
    logits, _, _ = set_predictor.predict(**point, return_logits=True)
    assert logits.dtype == np.float32
    assert ((logits > 0) == masks).all()
    one, one_score, _ = set_predictor.predict(box=[360, 200, 445, 285], multimask_output=False)
    assert (one.shape, one_score.shape) == ((1, 512, 512), (1,))
    again, _, nothing = set_predictor.predict(
        box=[[360, 200, 445, 285]], mask_input=low_res[:1], multimask_output=False, return_low_res=False
    )
    assert again.shape == (1, 512, 512)
    assert nothing is None
    tensors = set_predictor.predict(**point, as_numpy=False)
    assert all(isinstance(tensor, Tensor) for tensor in tensors)
    assert (tensors[0].numpy() == masks).all()


def test_a_batch_is_its_objects_one_by_one(set_predictor: SamPredictor) -> None:
    boxes = np.array([[360, 200, 445, 285], [170, 180, 230, 230], [0, 0, 511, 511], [-20, 100, 50, 900], [5, 5, 5, 5]])
    masks, scores, low_res = set_predictor.predict_torch(
        boxes=set_predictor.transform.apply_boxes_torch(boxes, (512, 512)), multimask_output=False
    )
    assert (masks.shape, scores.shape, low_res.shape) == ((5, 1, 512, 512), (5, 1), (5, 1, 80, 80))
    for box, mask, score in zip(boxes, masks.numpy(), scores.numpy(), strict=True):
        alone, alone_score, _ = set_predictor.predict(box=box, multimask_output=False)
        assert (alone == mask).all()
        assert np.allclose(alone_score, score, atol=1e-5)
    points = [[[400, 240], [10, 10]], [[200, 200], [0, 0]]]
    masks, _, _ = set_predictor.predict_torch(point_coords=points, point_labels=[[1, 0], [1, -1]])
    alone, _, _ = set_predictor.predict(point_coords=[[200, 200]], point_labels=[1])
    assert (masks.numpy()[1] == alone).all()


def test_red_and_blue_change_places(predictor: SamPredictor, frame: Any) -> None:
    colours = np.stack([frame, frame // 2, 255 - frame], axis=2)
    predictor.set_image(colours)
    expected = predictor.get_image_embedding().numpy()
    predictor.set_image(colours[:, :, ::-1], image_format="BGR")
    assert (predictor.get_image_embedding().numpy() == expected).all()
    predictor.set_image(colours[:, :, ::-1])
    assert (predictor.get_image_embedding().numpy() != expected).any()
    with pytest.raises(ValueError, match="'GRAY'"):
        predictor.set_image(frame, image_format="GRAY")  # type: ignore[arg-type]


def test_without_an_image_it_says_so(frame: Any) -> None:
    predictor = SamPredictor("ultrasound-sam", device="cpu")
    assert not predictor.is_image_set
    for call in (lambda: predictor.predict(box=[1, 1, 2, 2]), predictor.get_image_embedding):
        with pytest.raises(RuntimeError, match="set one first"):
            call()
    predictor.set_image(frame)
    assert predictor.is_image_set
    assert predictor.original_size == (512, 512)
    predictor.reset_image()
    assert not predictor.is_image_set
    predictor.close()
    predictor.close()
    with pytest.raises(RuntimeError, match="is closed"):
        predictor.set_image(frame)


@pytest.mark.parametrize(
    ("prompts", "error", "text"),
    [
        ({}, ValueError, "no prompt"),
        ({"box": [1, 2, 3]}, ValueError, "box has the shape [3]"),
        ({"box": [9, 9, 1, 1]}, ValueError, "x1 <= x2"),
        ({"box": [0, 0, float("nan"), 9]}, ValueError, "not a finite number"),
        ({"box": ["a", 0, 1, 1]}, TypeError, "array of numbers"),
        ({"point_coords": [[1, 2]]}, ValueError, "given together"),
        ({"point_coords": [1, 2], "point_labels": [1]}, ValueError, "[N, 2]"),
        ({"point_coords": [[1, 2]], "point_labels": [1, 0]}, ValueError, "a label for each point"),
        ({"point_coords": [[1, 2]], "point_labels": [2]}, ValueError, "label is 2"),
        ({"point_coords": [[1, float("inf")]], "point_labels": [1]}, ValueError, "finite"),
        ({"point_coords": np.zeros((99, 2)), "point_labels": np.ones(99)}, ValueError, "99 points"),
        ({"box": [0, 0, 9, 9], "mask_input": np.zeros((1, 7, 7))}, ValueError, "logits"),
        ({"box": [0, 0, 9, 9], "mask_input": np.zeros((7, 7))}, ValueError, "[1, h, w]"),
    ],
)
def test_what_is_no_prompt_is_said(
    set_predictor: SamPredictor, prompts: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as raised:
        set_predictor.predict(**prompts)
    assert text in str(raised.value)
    assert set_predictor.predict(box=[0, 0, 9, 9])[0].shape == (3, 512, 512)


def test_batches_of_different_sizes_are_said(set_predictor: SamPredictor) -> None:
    with pytest.raises(ValueError, match="different numbers of objects: 1 of points, 2 boxes"):
        set_predictor.predict_torch(boxes=[[0, 0, 9, 9], [1, 1, 5, 5]], point_coords=[[[1, 1]]], point_labels=[[1]])
    with pytest.raises(ValueError, match=r"\[B, 4\]"):
        set_predictor.predict_torch(boxes=[0, 0, 9, 9])


def test_a_checkpoint_of_something_else_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="segmenter"):
        SamPredictor("ultrasound-n")
    with pytest.raises(ValueError, match="ultrasound-sam"):
        ultramotion.Detector("ultrasound-sam")
    with pytest.raises(FileNotFoundError, match=r"no-such\.pt"):
        SamPredictor(tmp_path / "no-such.pt")
    with pytest.raises(ValueError, match="no-such-model"):
        SamPredictor("no-such-model")
    page = tmp_path / "page.pth"
    page.write_text("<html></html>")
    with pytest.raises(ValueError, match="web page"):
        ultramotion.Detector(page)


def test_run_segmentation_takes_what_has_boxes(predictor: SamPredictor, orchestrator: Any, frame: Any) -> None:
    found = ultramotion.Detector("ultrasound-n", device="cpu").predict(frame)
    boxes = found.boxes_xyxy
    expected = ultramotion.run_segmentation(frame, boxes, predictor)
    assert isinstance(expected, np.ndarray)
    assert (expected.shape, expected.dtype) == ((2, 512, 512), bool)
    assert expected.any(axis=(1, 2)).all()
    packet = orchestrator.run_inference(frame, timestamp=0.0)
    for detections in (found, {"boxes": boxes}, [{"bbox": list(box)} for box in boxes], boxes.tolist(), packet):
        assert np.allclose(ultramotion.run_segmentation(frame, detections, predictor), expected, atol=0)
    assert (ultramotion.run_segmentation(frame, bbox_xyxy=boxes[0], predictor=predictor) == expected[:1]).all()
    tensor = ultramotion.run_segmentation(frame, boxes, as_numpy=False)
    assert isinstance(tensor, Tensor)
    assert (tensor.numpy() == expected).all()
    whole = ultramotion.run_segmentation(frame, predictor=predictor)
    box = ultramotion.run_segmentation(frame, bbox_xyxy=[0, 0, 512, 512], predictor=predictor)
    for nothing in ([], np.empty((0, 4)), None):
        assert (ultramotion.run_segmentation(frame, nothing, predictor) == whole).all()
    assert (whole == box).all()
    with pytest.raises(ValueError, match="not as both"):
        ultramotion.run_segmentation(frame, boxes, bbox_xyxy=boxes)
    with pytest.raises(ValueError, match=r"\[N, 4\]"):
        ultramotion.run_segmentation(frame, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="without"):
        ultramotion.run_segmentation(frame, {"masks": 1})
    with pytest.raises(TypeError, match="cannot be read as boxes"):
        ultramotion.run_segmentation(frame, [object()])


def test_the_official_values_through_python(reference: Path, tmp_path: Path) -> None:
    """The network with weights by rule computes what the official code computed with them."""
    fixture = read_safetensors(reference / "mobile_sam.safetensors")
    keys = json.loads((reference / "mobile_sam.keys.json").read_text())
    weights = {name: filled(name, tuple(shape), "reference") for name, shape in keys.items()}
    path = tmp_path / "mobile_sam.safetensors"
    write_safetensors(path, weights, {"format": "ultramotion", "architecture": "mobile_sam", "input": "1024"})
    predictor = SamPredictor(path, device="cpu")
    predictor.set_image(fixture["image"])
    embedding = predictor.get_image_embedding().numpy()
    assert embedding.shape == (1, 256, 64, 64)
    close(sampled(embedding, 4096), fixture["image_embedding.sample"], 1e-4)
    boxes = [[100, 150, 400, 500], [600, 300, 900, 620], [20, 20, 1000, 1000]]
    _, scores, low_res = predictor.predict_torch(boxes=boxes, multimask_output=False)
    assert low_res.shape == (3, 1, 256, 256)
    close(scores.numpy(), fixture["box.iou"], 1e-4)
    close(sampled(low_res.numpy()[0], 16384), fixture["box.low_res_masks.sample"], 1e-3)
    close(low_res.numpy()[1, 0], fixture["box.low_res_mask_1"], 1e-3)
    masks, point_scores, point_low_res = predictor.predict(
        point_coords=[[512, 300], [200, 800]], point_labels=[1, 0], mask_input=low_res.numpy()[0]
    )
    assert masks.shape == (3, 1024, 1024)
    close(point_scores, fixture["points_mask.iou"][0], 1e-4)
    close(sampled(point_low_res, 16384), fixture["points_mask.low_res_masks.sample"], 1e-3)


def close(got: Any, expected: Any, tolerance: float) -> None:
    assert got.shape == expected.shape
    assert np.linalg.norm(got - expected) <= tolerance * np.linalg.norm(expected)


def sampled(values: Any, count: int) -> npt.NDArray[np.float32]:
    flat: npt.NDArray[np.float32] = np.asarray(values).reshape(-1)
    return flat[:: flat.size // count][:count]


def filled(name: str, shape: tuple[int, ...], salt: str) -> npt.NDArray[np.generic]:
    """Weights by the rule that the fixtures name: the same in any language."""
    size = int(np.prod(shape, dtype=np.int64))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    seed = 0xCBF29CE484222325
    for byte in f"{salt}/{name}".encode():
        seed = (seed ^ byte) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, size + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    unit = (z >> np.uint64(40)).astype(np.float64) / 2**24 * 2 - 1
    if name.endswith("running_var"):
        values = 1 + 0.5 * unit
    elif name.endswith("running_mean"):
        values = 0.1 * unit
    elif len(shape) >= 2:
        values = unit * np.sqrt(3 / (size / shape[0]))
    elif name.endswith(("weight", "scale")) or size == 1:
        values = 1 + 0.2 * unit
    else:
        values = 0.1 * unit
    return values.astype(np.float32).reshape(shape)


DTYPES: dict[str, npt.DTypeLike] = {"F32": np.float32, "I64": np.int64, "U8": np.uint8}


def read_safetensors(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = np.frombuffer(data[start:end], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def write_safetensors(path: Path, tensors: dict[str, npt.NDArray[np.generic]], metadata: dict[str, str]) -> None:
    names = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": metadata}
    offset = 0
    for name, values in tensors.items():
        end = offset + values.nbytes
        header[name] = {"dtype": names[values.dtype], "shape": values.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.writelines(values.tobytes() for values in tensors.values())
