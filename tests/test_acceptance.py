"""The acceptance script: every trial gets its verdict, whatever the machine does to it, and the report keeps them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import acceptance  # noqa: PLC0415 (a script, found where it lies)

    return acceptance


def trials(script: Any, **outcomes: str) -> tuple[Any, ...]:
    def trial(outcome: str) -> Any:
        def attempt(bench: Any) -> Any:
            if outcome == "crash":
                raise OSError("the board went away")
            return script.Verdict(outcome, "seen | so\nlong")

        return attempt

    return tuple(script.Trial(name.replace("_", " "), trial(outcome)) for name, outcome in outcomes.items())


def test_a_refuted_assumption_is_the_exit_code_and_stands_in_the_report(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    some = trials(script, it_works="confirmed", it_flies="refuted", it_swims="not tested", it_lives="crash")
    assert script.main([str(tmp_path / "new" / "report")], some) == 1
    told = capsys.readouterr().out.splitlines()
    assert [line[0] for line in told[:4]] == ["✓", "✗", "–", "–"]
    assert told[4].startswith("acceptance: 1 of 4 assumptions refuted; the report is ")
    page = (tmp_path / "new/report/report.md").read_text().splitlines()
    assert len(page) == 8, "a line each, whatever is in the evidence"
    assert page[5].startswith("| it flies | refuted | seen \\| so long |")
    assert "the board went away" in page[7]
    kept = json.loads((tmp_path / "new/report/report.json").read_text())
    assert [line["verdict"]["outcome"] for line in kept] == ["confirmed", "refuted", "not tested", "not tested"]


def test_without_a_refuted_one_it_succeeds(script: Any, tmp_path: Path) -> None:
    assert script.main([str(tmp_path)], trials(script, a="confirmed", b="not tested")) == 0


@pytest.mark.slow
def test_what_a_program_prints_is_kept_and_its_end_known(script: Any, tmp_path: Path) -> None:
    bench = script.Bench(tmp_path)
    code = "import sys; print('one', flush=True); print('two', file=sys.stderr); sys.exit(3)"
    done = bench.run("said", sys.executable, "-c", code)
    assert (done.code, done.last) == (3, "two")
    assert "exit code 3" in (tmp_path / "said.txt").read_text()
    assert bench.run("none", "nothing-of-this-name").last == "nothing-of-this-name is not installed"
    late = bench.run("late", sys.executable, "-c", "import time; print('x', flush=True); time.sleep(60)", timeout_s=0.5)
    assert late.code == 124
    assert "no end within" in late.last


def test_no_password_of_a_camera_gets_into_the_report(
    script: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    uri = "rtsp://viewer:Hunter22@127.0.0.1:1/x"

    def attempt(bench: Any) -> Any:
        done = bench.run("camera", sys.executable, "-c", "import sys; print(sys.argv)", *bench.cameras)
        return script.Verdict("confirmed", done.last)

    assert script.main(["--camera", uri, str(tmp_path)], (script.Trial("it is seen", attempt),)) == 0
    written = "".join(path.read_text() for path in tmp_path.iterdir()) + capsys.readouterr().out
    assert "127.0.0.1" in written
    assert "Hunter22" not in written


@pytest.mark.slow
def test_every_trial_has_a_verdict_even_where_there_is_no_jetson(script: Any, tmp_path: Path) -> None:
    quick = tuple(trial for trial in script.TRIALS if trial.attempt.__name__ not in {"gpu_tests", "service"})
    bench = script.Bench(tmp_path, quick=True)
    lines = [script.tried(trial, bench) for trial in quick]
    assert all(line.verdict.evidence for line in lines)
    assert not [line for line in lines if "the trial itself failed" in line.verdict.evidence]
    names = [trial.attempt.__name__ for trial in script.TRIALS]
    assert len(set(names)) == len(names) == 16
    assert names[0] == "cuda_python", "the most doubtful one comes first"
