"""The pictures of the documentation: no older than the code that draws them, small, and with nothing from elsewhere."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType

import cv2
import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "screenshots.py"
MOST_BYTES = 150_000


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("screenshots_script", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_picture_is_older_than_the_code_that_draws_it(script: ModuleType) -> None:
    assert script.old() == [], "run scripts/screenshots"


def test_other_code_makes_a_picture_old(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(script.STATIC, tmp_path / "static")
    monkeypatch.setattr(script, "STATIC", tmp_path / "static")
    before = script.digests().splitlines()
    (tmp_path / "static" / "style.css").write_text("body { color: red }")
    after = script.digests().splitlines()
    assert [line.split()[1] for line in after if line not in before] == ["page.webp"]


def test_pictures_are_small_and_can_be_shown(script: ModuleType) -> None:
    names = {path.name for path in script.IMAGES.iterdir()}
    assert names >= {"page.webp", "top.svg"}
    assert all((script.IMAGES / name).stat().st_size <= MOST_BYTES for name in names)
    page = cv2.imread(str(script.IMAGES / "page.webp"))
    assert page is not None
    assert page.shape[1::-1] == script.SIZE
    svg = (script.IMAGES / "top.svg").read_text().replace("&#160;", " ")
    assert "capture → publish" in svg
    assert re.findall(r"(?:url\(|href=)\S*https?:", svg) == []
