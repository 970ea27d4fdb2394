"""`edgeinfer doctor`, as people and programs call it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edgeinfer import cli
from tests.environment.test_trees import NAMES, TREES, VERDICTS

KEYS = ("jetpack", "l4t", "cuda", "tensorrt", "board", "soc", "gpu", "compute_capability", "driver", "python")


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def doctor(*args: str) -> int:
    return cli.run(["doctor", *args])


@pytest.mark.parametrize("name", NAMES)
def test_json_of_each_tree(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    backend, codes = VERDICTS[name]
    assert doctor("--json", "--root", str(TREES / name)) == (0 if backend else 69)
    report = json.loads(capsys.readouterr().out)
    assert all(set(report[key]) == {"value", "source"} for key in KEYS)
    assert all(
        set(report[key]) == {"value", "source"} for key in ("cudnn", "sm_count", "tensorrt_flavour", "power_mode")
    )
    assert report["verdict"]["backend"] == backend
    assert {problem["code"] for problem in report["problems"]} == codes
    assert all(problem["remedy"] for problem in report["problems"])


@pytest.mark.parametrize("name", NAMES)
def test_page_of_each_tree(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    backend, _ = VERDICTS[name]
    assert doctor("--root", str(TREES / name), "--verbose") == (0 if backend else 69)
    page = capsys.readouterr().out
    assert f"backend: {backend}" in page if backend else "nothing can run" in page
    assert "unknown" in page


def test_page_shows_both_sides_of_a_disagreement(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(TREES / "jetpack-6.2.1", tmp_path / "t", symlinks=True)
    (tmp_path / "t/etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.3, GCID: 1\n")
    doctor("--root", str(tmp_path / "t"))
    page = capsys.readouterr().out
    assert "36.4.3" in page
    assert "36.4.7" in page


def test_markup_in_a_file_is_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_text("[red]Board[/nonsense]")
    doctor("--root", str(tmp_path))
    assert "[red]Board[/nonsense]" in capsys.readouterr().out


@pytest.mark.slow
def test_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    code = doctor("--json")
    report = json.loads(capsys.readouterr().out)
    assert code == (0 if report["verdict"]["backend"] else 69)
    assert report["live"] is True
    assert report["python"]["value"]


def test_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "b.json"
    assert doctor("--bundle", str(file), "--root", str(TREES / "jetpack-6.2.1")) == 0
    bundle = json.loads(file.read_text())
    assert bundle["report"]["jetpack"]["value"] == "6.2.1"
    assert capsys.readouterr().err == f"wrote {file}\n"


@pytest.mark.parametrize(
    ("args", "code"),
    [(["--root", "/nothing-here"], 66), (["--bundle", "/nothing-here/b"], 64), (["--nonsense"], 64)],
)
def test_bad_input_is_one_clear_line(args: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    if "--root" not in args:
        args = [*args, "--root", str(TREES / "jetpack-6.2.1")]
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", *args])
    assert ended.value.code == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("edgeinfer: error: ")
