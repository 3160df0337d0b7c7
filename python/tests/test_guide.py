"""Every block of Python in the guide and in the READMEs runs, a page's blocks one after another."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY

PAGES = [
    *sorted((REPOSITORY / "docs" / "guide" / "src").glob("*.md")),
    REPOSITORY / "python" / "README.md",
    REPOSITORY / "README.md",
]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if BLOCK.search(page.read_text())], ids=lambda page: page.stem)
def test_the_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    text = page.read_text()
    for block in BLOCK.finditer(text):
        # Lines of errors are those of the page.
        lines = "\n" * text[: block.start(1)].count("\n")
        exec(compile(lines + block.group(1), page, "exec"), names)


def test_every_page_is_in_the_summary() -> None:
    folder = REPOSITORY / "docs" / "guide" / "src"
    named = set(re.findall(r"\((\w+\.md)\)", (folder / "SUMMARY.md").read_text()))
    assert named == {page.name for page in folder.glob("*.md")} - {"SUMMARY.md"}
