"""The audit of device mode against host mode, as a program."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from ultramotion import _ultramotion, validate_gpu_pipeline_kpi
from ultramotion.validate_gpu_pipeline_kpi import main

SMALL = ["--frames", "2", "--device", "cpu", "--threads", "2"]


def test_the_table_and_the_json_are_of_both_modes() -> None:
    command = [sys.executable, "-m", "ultramotion.validate_gpu_pipeline_kpi", *SMALL]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "device mode    host mode" in table
    assert table.endswith("budget of a frame in device mode: 1 in, 1 out, 1 wait, 0 allocations: kept\n")
    line = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout
    report = json.loads(line)
    assert (report["device"], report["threads"], report["pass"]) == ("cpu", 2, True)
    device, host = report["modes"]
    assert (device["residency"], host["residency"]) == ("device", "host")
    assert [device["transfers"][key] for key in ("h2d", "d2h", "host_syncs", "allocations")] == [1, 1, 1, 0]
    assert host["transfers"]["h2d"] > 1


def test_over_budget_is_exit_code_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given = {}

    def audit(**arguments: object) -> tuple[str, str, bool]:
        given.update(arguments)
        return '{"pass":false}', "EXCEEDED", False

    monkeypatch.setattr(_ultramotion, "audit", audit)
    assert main(["--frames", "5", "--detector", "my.pth", "--segmenter", "sam"]) == 1
    assert capsys.readouterr().out == "EXCEEDED\n"
    assert given == {"frames": 5, "device": "auto", "threads": 0, "detector": "my.pth", "segmenter": "sam"}


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--device", "tpu"], 2, "'tpu' is not known"),
        (["--frames", "-1"], 2, "error: "),
        (["--frames", "many"], 2, "--frames"),
        (["--detector", "no-such-detector"], 2, "no-such-detector"),
        (["--detector", "/nowhere/my.pth"], 1, "/nowhere/my.pth"),
    ],
)
def test_what_cannot_be_audited(arguments: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        found = main(arguments)
    except SystemExit as exit_:
        found = int(str(exit_.code))
    assert found == code
    assert text in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for word in ("--json", "--frames", "--device", "--threads", "--detector", "--segmenter", "Exit code"):
        assert word in text
    assert validate_gpu_pipeline_kpi.__doc__ is not None
