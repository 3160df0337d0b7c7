from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ultramotion
from ultramotion import HungarianMatcher, Orchestrator, ResultPacket, Tensor

TIMES = ("latency_ms",)


def without_times(packet: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in packet.items() if key not in TIMES}


@pytest.fixture(scope="module")
def recording(command: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], list[Any]]:
    """Frames of the phantom, and what the command wrote of them."""
    out = tmp_path_factory.mktemp("out")
    subprocess.run(
        [command, "run", "phantom:3", "--frames", "6", "--device", "cpu", "--out", out], check=True, capture_output=True
    )
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    return list(ultramotion.run("phantom:3", frames=6, device="cpu")), lines


def test_packets_are_those_of_the_command(recording: tuple[list[Any], list[Any]]) -> None:
    packets, lines = recording
    assert len(packets) == len(lines) == 6
    for packet, line in zip(packets, lines, strict=True):
        assert without_times(packet.to_dict()) == without_times(line)
        assert json.loads(packet.to_json()) == packet.to_dict()
        assert list(packet.to_dict()) == list(line)


@pytest.mark.parametrize("residency", ["device", "host"])
def test_images_one_by_one_give_the_same(recording: tuple[list[Any], list[Any]], residency: str) -> None:
    packets, _ = recording
    ours = ("source", "latency_ms", "transfers", "modes")
    with Orchestrator(device="cpu", residency=residency) as orchestrator:
        for expected in packets:
            packet = orchestrator.run_inference(expected.image, timestamp=expected.timestamp)
            line, expected_line = packet.to_dict(), expected.to_dict()
            assert [key for key in line if line[key] != expected_line[key] and key not in ours] == []
            assert line["modes"] == {**expected_line["modes"], "residency": residency}
            assert (packet.transfers["h2d"] == 1) is (residency == "device")
            resident = orchestrator.residency == "device" or None
            assert resident is None or packet.transfers["allocations"] == 0 or packet.frame_id == 0


def test_a_call_can_ask_for_residency(frame: Any, small: dict[str, Any]) -> None:
    with Orchestrator(device="cpu", residency="host", **small) as orchestrator:
        modes = [
            orchestrator.run_inference(frame, gpu_resident=resident, timestamp=0.04 * number).modes["residency"]
            for number, resident in enumerate([False, True, True, False])
        ]
    assert modes == ["host", "device", "device", "host"]


def test_attributes_are_the_line(orchestrator: Orchestrator, frame: Any) -> None:
    packet = orchestrator.run_inference(frame, timestamp=1.5)
    line = packet.to_dict()
    objects = line["objects"]
    assert len(packet) == len(objects) == 2
    assert packet.timestamp == line["timestamp"] == 1.5
    assert packet.time_source == "source"
    assert packet.state == line["state"]
    assert packet.boxes_xyxy.shape == (2, 4)
    assert np.allclose(packet.boxes_xyxy, [found["box_xyxy"] for found in objects])
    assert np.allclose(packet.scores, [found["score"] for found in objects])
    assert packet.labels == [found["label"] for found in objects]
    assert packet.track_ids.tolist() == [found["track_id"] for found in objects]
    assert packet.confirmed.tolist() == [found["confirmed"] for found in objects]
    assert [packet.class_names[number] for number in packet.class_ids] == packet.labels
    assert (packet.latency_ms, packet.transfers, packet.modes) == (
        line["latency_ms"],
        line["transfers"],
        line["modes"],
    )
    assert packet.image is None
    masks = packet.masks
    assert (masks.shape, masks.dtype) == ((2, 512, 512), bool)
    assert masks.sum(axis=(1, 2)).tolist() == packet.mask_areas_px.tolist()
    for mask, found in zip(masks, objects, strict=True):
        assert (mask == decoded(found["mask"])).all()
    assert f"vessel #{packet.track_ids[0]}" in repr(packet)
    assert orchestrator.run_inference(frame).time_source == "arrival"


def decoded(mask: dict[str, Any]) -> Any:
    """COCO's compressed run lengths, as its format says: column by column, differences to the count before the last."""
    counts: list[int] = []
    text = iter(mask["counts"].encode())
    for byte in text:
        value, shift = 0, 0
        while True:
            value |= (byte - 48 & 31) << shift
            shift += 5
            if not (byte - 48) & 32:
                break
            byte = next(text)
        if (byte - 48) & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape(mask["size"][::-1]).T


def test_masks_are_unpacked_once_and_only_if_read(orchestrator: Orchestrator, frame: Any) -> None:
    packet = orchestrator.run_inference(frame, timestamp=2.0)
    assert packet.masks is packet.masks
    tensor = orchestrator.run_inference(frame, sam_as_numpy=False, gpu_resident=True, timestamp=2.04).masks
    assert isinstance(tensor, Tensor)
    assert tensor.shape == packet.masks.shape


def test_packets_stay_what_they_are(frame: Any, orchestrator: Orchestrator) -> None:
    kept = [orchestrator.run_inference(frame, timestamp=3 + 0.04 * number) for number in range(7)]
    before = [packet.to_json() for packet in kept]
    masks = [packet.masks.copy() for packet in kept]
    for number in range(9):
        orchestrator.run_inference(np.roll(frame, 40 * number, axis=1), timestamp=4 + 0.04 * number)
    assert [packet.to_json() for packet in kept] == before
    assert all((packet.masks == mask).all() for packet, mask in zip(kept, masks, strict=True))
    assert len({packet.frame_id for packet in kept}) == 7


def test_memory_does_not_grow(frame: Any, small: dict[str, Any]) -> None:
    psutil = pytest.importorskip("psutil")
    process = psutil.Process()
    with Orchestrator(device="cpu", score_threshold=0.0, tracker={"birth_score": 0.0}, **small) as orchestrator:
        for number in range(30):
            assert len(orchestrator.run_inference(frame, timestamp=0.04 * number)) > 0
        before = process.memory_info().rss
        for number in range(30, 130):
            assert orchestrator.run_inference(frame, timestamp=0.04 * number).masks.ndim == 3
    # If packets stayed, their masks alone would be 100 x 16 x 32 KB, and 8 times that unpacked.
    assert process.memory_info().rss - before < 20e6


def test_the_former_dictionary_is_understood(frame: Any, small: dict[str, Any]) -> None:
    weights = {"cost_class": 2.0, "cost_bbox": 4.0, "cost_giou": 1.0}

    def modes(config: Any, **settings: Any) -> tuple[str, str, type]:
        with Orchestrator(config, device="cpu", **small, **settings) as orchestrator:
            packet = orchestrator.run_inference(frame, timestamp=0.0)
            return packet.modes["residency"], packet.modes["matcher"], type(packet.masks)

    host = {"sam_config": {"as_numpy": True}, "orchestrator_config": {"sam_as_numpy": True, "gpu_resident": False}}
    resident = {
        "matcher": HungarianMatcher(weights, use_gpu_match=True),
        "sam_config": {"as_numpy": False, "device_consistent": True},
        "orchestrator_config": {"sam_as_numpy": False, "gpu_resident": True},
    }
    assert modes({}) == ("device", "exact", np.ndarray)
    assert modes(host) == ("host", "exact", np.ndarray)
    assert modes(resident) == ("device", "greedy", Tensor)
    assert modes({"matcher": HungarianMatcher(weights)}) == ("device", "host", np.ndarray)
    assert modes({"matcher": HungarianMatcher(weights)}, matcher="greedy")[1] == "greedy"
    assert modes(resident, residency="host", tracker={"birth_score": 0.5})[0] == "host"
    with pytest.warns(UserWarning, match="device_consistent"):
        modes({"sam_config": {"device_consistent": False}})


def test_a_file_and_keywords(tmp_path: Path, frame: Any, small: dict[str, Any]) -> None:
    path = tmp_path / "settings.toml"
    path.write_text("max_objects = 3\nscore_threshold = 0.0\n[tracker]\nbirth_score = 0.0\n")
    image = frame[::8, ::8]
    with Orchestrator(path, device="cpu", **small) as orchestrator:
        assert len(orchestrator.run_inference(image)) == 3
    with Orchestrator(path, device="cpu", max_objects=np.int64(2), **small) as orchestrator:
        assert len(orchestrator.run_inference(image)) == 2


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"colour": "red"}, ValueError, "colour"),
        ({"max_objects": 65}, ValueError, "must be 1 to 64"),
        ({"max_objects": "many"}, ValueError, "whole number"),
        ({"score_threshold": float("nan")}, ValueError, "must be 0 to 1"),
        ({"tracker": {"birth": 1}}, ValueError, "birth"),
        ({"tracker": {"birth_score": 2}}, ValueError, "must be 0 to 1"),
        ({"detector": object()}, TypeError, "detector cannot be of type object"),
        ({"detector": "no-such-model"}, ValueError, "no-such-model"),
        ({"detector": "no/such/model.pth"}, FileNotFoundError, "model.pth"),
        ({"detector": "ultrasound-sam"}, ValueError, "ultrasound-sam"),
        ({"device": "tpu"}, ValueError, "tpu"),
        ({"device": "cpu", "precision": "f16"}, ValueError, "f32"),
        ({"precision": "f8"}, ValueError, "f8"),
        ({"config": {"colours": {}}}, ValueError, "colours"),
        ({"config": {"matcher": "exact"}}, TypeError, "HungarianMatcher"),
        ({"config": {"sam_config": {"numpy": True}}}, ValueError, "numpy"),
        ({"config": {"sam_config": {"as_numpy": 1.5}}}, TypeError, "True or False"),
        ({"config": {"sam_config": 7}}, TypeError, "is a dictionary"),
        ({"config": 7}, TypeError, "config"),
        ({"config": "no-such-file.toml"}, FileNotFoundError, "no-such-file.toml"),
    ],
)
def test_wrong_settings_are_said(arguments: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as raised:
        Orchestrator(**arguments)
    assert text in str(raised.value)


def test_a_gpu_that_is_not_there_is_said() -> None:
    with pytest.raises(RuntimeError, match="--device cpu|no GPU|driver"):
        Orchestrator(device="cuda:77")


def test_after_an_error_it_goes_on(frame: Any, orchestrator: Orchestrator) -> None:
    first = orchestrator.run_inference(frame, timestamp=10.0)
    for wrong in (np.zeros((0, 4), np.uint8), np.full((9, 9), np.nan)):
        with pytest.raises(ValueError, match="image"):
            orchestrator.run_inference(wrong)
    with pytest.raises(ValueError, match="timestamp"):
        orchestrator.run_inference(frame, timestamp=float("nan"))
    second = orchestrator.run_inference(frame, timestamp=10.04)
    assert second.frame_id == first.frame_id + 1
    assert second.track_ids.tolist() == first.track_ids.tolist()


def test_after_close_it_says_so(frame: Any, small: dict[str, Any]) -> None:
    orchestrator = Orchestrator(device="cpu", **small)
    packet = orchestrator.run_inference(frame)
    with orchestrator as same:
        assert same is orchestrator
    with pytest.raises(RuntimeError, match="this Orchestrator is closed"):
        orchestrator.run_inference(frame)
    assert packet.to_dict()["width"] == 512


def test_threads_take_turns(frame: Any, small: dict[str, Any]) -> None:
    packets: list[ResultPacket] = []
    beats: list[int] = []
    done = threading.Event()

    def beat() -> None:
        while not done.is_set():
            beats.append(1)

    with Orchestrator(device="cpu", **small) as orchestrator:
        heart = threading.Thread(target=beat)
        heart.start()

        def work() -> None:
            packets.extend(orchestrator.run_inference(frame) for _ in range(10))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done.set()
        heart.join()
    assert sorted(packet.frame_id for packet in packets) == list(range(40))
    assert len(beats) > 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_is_told_to_make_its_own() -> None:
    """In a process of its own: pytest's may have threads of other libraries."""
    program = """
import os, sys, warnings
import numpy as np
import ultramotion
warnings.simplefilter("ignore", DeprecationWarning)
image = np.zeros((32, 32), np.uint8)
detector = ultramotion.Detector("dfine_n", device="cpu", threads=2)
child = os.fork()
if child == 0:
    try:
        detector.predict(image)
    except RuntimeError as error:
        os.write(1, str(error).encode())
        del detector
        sys.exit(0)
    sys.exit(3)
_, status = os.waitpid(child, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "this Detector is of another process" in done.stdout


def test_an_exception_in_the_callers_loop_leaves_it_usable(frame: Any, small: dict[str, Any]) -> None:
    with Orchestrator(device="cpu", **small) as orchestrator:
        with pytest.raises(ZeroDivisionError):
            for _ in range(3):
                orchestrator.run_inference(frame)
                raise ZeroDivisionError
        assert orchestrator.run_inference(frame).frame_id == 1
        assert orchestrator.memory_bytes() > 0


def test_what_is_pointed_at_is_followed(frame: Any, small: dict[str, Any]) -> None:
    followed = {"least_iou": 0.0, "least_quality": 0.0, "most_of_frame": 1.0, "most_growth": 1000.0}
    height, width = frame.shape[:2]
    with Orchestrator(device="cpu", max_prompts=2, prompts=followed, **small) as orchestrator:
        found = orchestrator.run_inference(frame, timestamp=0.0)
        assert not found.prompted.any()
        box = (1, 1, width / 2, height / 2)
        orchestrator.prompt(box=box, label="tendon")
        orchestrator.prompt([(width / 4, height / 4)], box=box)
        with pytest.raises(ValueError, match="let one go first"):
            orchestrator.prompt([(3, 3)])
        packet = orchestrator.run_inference(frame, timestamp=0.04)
        assert packet.prompted.sum() == 2
        names = [item["label"] for item in packet.to_dict()["objects"] if item.get("prompt")]
        assert sorted(names) == ["tendon", "user"]
        line = packet.to_dict()["objects"]
        for score, values in packet.quality.items():
            assert values.tolist() == pytest.approx([item["quality"][score] for item in line])
            assert ((values >= 0) & (values <= 1)).all()
        orchestrator.let_go(label="tendon")
        packet = orchestrator.run_inference(frame, timestamp=0.08)
        assert packet.prompted.sum() == 1
        orchestrator.let_go(int(packet.track_ids[packet.prompted][0]))
        assert not orchestrator.run_inference(frame, timestamp=0.12).prompted.any()
        for wrong, reason in (
            ([(width + 1, 0)], "outside"),
            ([(float("nan"), 0)], "numbers"),
            ([(0, 0, False)], "needs"),
        ):
            with pytest.raises(ValueError, match=reason):
                orchestrator.prompt(wrong)
        with pytest.raises(ValueError, match="identity 7"):
            orchestrator.let_go(7)
    with Orchestrator(device="cpu", **small) as orchestrator, pytest.raises(ValueError, match="max_prompts"):
        orchestrator.prompt([(1, 1)])


def test_coco_and_supervision(recording: tuple[list[Any], list[Any]], tmp_path: Path) -> None:
    packets, lines = recording
    written = ultramotion.to_coco(packets, tmp_path / "coco.json")
    assert json.loads((tmp_path / "coco.json").read_text()) == written
    assert [image["file_name"] for image in written["images"]] == [f"phantom-3_{n:06d}.png" for n in range(6)]
    objects = [found for line in lines for found in line["objects"]]
    assert len(written["annotations"]) == len(objects)
    names = {category["id"]: category["name"] for category in written["categories"]}
    for annotation, found in zip(written["annotations"], objects, strict=True):
        assert names[annotation["category_id"]] == found["label"]
        assert annotation["segmentation"] == found["mask"]
        assert annotation["area"] == decoded(found["mask"]).sum()
        x, y, width, height = annotation["bbox"]
        assert np.allclose([x, y, x + width, y + height], found["box_xyxy"])
    if not packets:
        return
    pytest.importorskip("supervision")
    detections = packets[-1].to_supervision()
    assert np.allclose(detections.xyxy, packets[-1].boxes_xyxy)
    assert (detections.mask == packets[-1].masks).all()
    assert detections.tracker_id.tolist() == packets[-1].track_ids.tolist()
