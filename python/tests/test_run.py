from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ultramotion


def test_a_run_has_its_frames_and_ends(small: dict[str, Any]) -> None:
    run = ultramotion.run("phantom:2", frames=4, device="cpu", **small)
    packets = list(run)
    assert [packet.frame_id for packet in packets] == [0, 1, 2, 3]
    assert {packet.source for packet in packets} == {"phantom:2"}
    assert next(run, None) is None
    assert (run.skipped, run.dropped) == (0, None)
    images = [packet.image for packet in packets]
    assert all(image is not None and image.shape == (512, 512) for image in images)
    assert (images[0] != images[3]).any()
    assert packets[0].spacing_mm is not None
    assert repr(run) == 'Run("phantom:2")'


def test_a_run_that_is_left_is_over(small: dict[str, Any]) -> None:
    for packet in ultramotion.run("phantom", realtime=True, device="cpu", **small):
        assert packet.frame_id == 0
        break
    with ultramotion.run("phantom", device="cpu", **small) as run:
        kept = next(run)
    assert next(run, None) is None
    assert kept.width == 512
    with pytest.raises(ZeroDivisionError), ultramotion.run("phantom", device="cpu", **small) as run:
        next(run)
        raise ZeroDivisionError
    assert next(run, None) is None


def test_one_pipeline_for_many_recordings(small: dict[str, Any], frame: Any) -> None:
    loose = {"device": "cpu", "score_threshold": 0.0, "tracker": {"birth_score": 0.0}, **small}

    def found(packets: Any) -> list[Any]:
        return [(p.frame_id, p.timestamp, p.source, p.state, p.to_dict()["objects"]) for p in packets]

    with ultramotion.Orchestrator(**loose) as orchestrator:
        orchestrator.run_inference(frame)
        for source in ("phantom:1", "phantom:2"):
            expected = found(ultramotion.run(source, frames=3, **loose))
            assert found(orchestrator.run(source, frames=3)) == expected
            assert expected[0][4][0]["track_id"] == 1
        for packet in orchestrator.run("phantom"):
            with pytest.raises(RuntimeError, match="is in a run"):
                orchestrator.run_inference(frame)
            with pytest.raises(RuntimeError, match="is in a run"):
                orchestrator.run("phantom")
            assert packet.frame_id == 0
            break
        with pytest.raises(FileNotFoundError):
            orchestrator.run("no-such-file.mha")
        assert orchestrator.run_inference(frame).frame_id == 1


def test_real_time_drops_and_says_so(small: dict[str, Any]) -> None:
    run = ultramotion.run("phantom", frames=8, realtime=True, device="cpu", **small)
    packets = list(run)
    assert run.dropped is not None
    assert len(packets) + run.dropped == 8


def test_a_folder_with_a_bad_image(tmp_path: Path, small: dict[str, Any], frame: Any) -> None:
    pil = pytest.importorskip("PIL.Image")
    for name in ("a.png", "c.png"):
        pil.fromarray(frame).save(tmp_path / name)
    (tmp_path / "b.png").write_bytes(b"no picture")
    run = ultramotion.run(tmp_path, device="cpu", independent=True, **small)
    with pytest.warns(RuntimeWarning, match=r"skipped: .*b\.png"):
        packets = list(run)
    assert [Path(packet.source).name for packet in packets] == ["a.png", "c.png"]
    assert run.skipped == 1
    assert (np.asarray(packets[1].image) == frame).all()


@pytest.mark.parametrize(
    ("source", "settings", "error", "text"),
    [
        ("no-such-file.mha", {}, FileNotFoundError, "no-such-file.mha"),
        ("phantom:many", {}, ValueError, "seed"),
        ("igtl://", {}, ValueError, "host is missing"),
        (__file__, {}, ValueError, "not a kind of file"),
        ("phantom", {"frames": 0}, ValueError, "1 or more"),
        ("phantom", {"colour": 1}, ValueError, "colour"),
        ("phantom", {"config": "none.toml"}, FileNotFoundError, "none.toml"),
        (7, {}, TypeError, ""),
    ],
)
def test_what_cannot_be_run_is_said(source: Any, settings: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as raised:
        ultramotion.run(source, device="cpu", **settings)
    assert text in str(raised.value)


def test_a_scanner_that_is_not_there(small: dict[str, Any]) -> None:
    run = ultramotion.run("igtl://127.0.0.1:9", device="cpu", **small)
    with pytest.raises(OSError, match="127.0.0.1:9"):
        list(run)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of another kind")
def test_ctrl_c_ends_a_run_that_waits_for_a_scanner(small: dict[str, Any]) -> None:
    """A server that accepts and sends nothing."""
    program = f"""
import socket, sys
import ultramotion
server = socket.create_server(("127.0.0.1", 0))
run = ultramotion.run(f"igtl://127.0.0.1:{{server.getsockname()[1]}}", device="cpu", **{small!r})
print("waiting", flush=True)
try:
    next(run)
except KeyboardInterrupt:
    run.close()
    print("interrupted", flush=True)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    # The signal may come before the wait: both ends are the same.
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert (out, process.returncode) == ("interrupted\n", 0), errors
