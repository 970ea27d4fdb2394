"""Why TensorRT is not used: said where there is a GPU, in doctor's words, and nowhere else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from edgeinfer.backends import tensorrt
from edgeinfer.commands._report import print_summary
from edgeinfer.config import plugins
from edgeinfer.config.card import load_model
from edgeinfer.config.settings import load_config
from edgeinfer.daemon import selection
from edgeinfer.daemon.explanation import explain, has_traces
from edgeinfer.environment import Environment, Fact
from edgeinfer.errors import ConfigError, EdgeinferError, OutOfMemoryError, UnavailableError
from edgeinfer.messages import Reason
from edgeinfer.telemetry.bulletin import Bulletin
from edgeinfer.telemetry.snapshot import DaemonSnapshot
from tests.environment.test_rules import HERE, JETSON, known

HIDDEN = replace(JETSON, tensorrt_module=Fact(), tensorrt_system_module=HERE, python_venv=known(True))
MISSING = UnavailableError("the Python module tensorrt is not installed", "install it")

FALLBACK: Any = "the fallback"


def never() -> Environment:
    raise AssertionError("nobody has to be asked")


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text("# R36 (release), REVISION: 4.7")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content", "traces"),
    [
        ("etc/nv_tegra_release", "", True),
        ("proc/driver/nvidia/version", "NVRM", True),
        ("dev/nvidiactl", "", True),
        ("dev/nvmap", "", True),
        ("proc/device-tree/compatible", "nvidia,p3767-0005\0nvidia,tegra234\0", True),
        ("sys/firmware/devicetree/base/compatible", "nvidia,tegra264\0", True),
        ("proc/device-tree/compatible", "raspberrypi,5-model-b\0brcm,bcm2712\0", False),
        ("etc/debian_version", "12", False),
    ],
)
def test_where_there_could_be_a_gpu(tmp_path: Path, name: str, content: str, traces: bool) -> None:
    path = tmp_path / name
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert has_traces(tmp_path) is traces


def test_nothing_is_amiss_where_there_is_no_gpu(tmp_path: Path) -> None:
    assert explain(MISSING, never, tmp_path) is None


def test_on_a_jetson_it_is_what_doctor_says(jetson: Path) -> None:
    found = explain(MISSING, lambda: HIDDEN, jetson)
    assert isinstance(found, UnavailableError)
    assert found.message == f"TensorRT's bindings in {HERE.value} can't be seen from this virtual environment"
    assert "--system-site-packages" in found.hint


def test_what_doctor_does_not_know_of_speaks_for_itself(jetson: Path) -> None:
    assert explain(MISSING, lambda: JETSON, jetson) is MISSING


def test_an_error_that_is_not_the_machines_is_its_own_explanation(tmp_path: Path) -> None:
    error = ConfigError("the network has three inputs")
    assert explain(error, never, tmp_path) is error


# --- what is chosen ---


def module_that(raises: EdgeinferError | None = None, cached: bool = False, opens: Any = None) -> ModuleType:
    """A TensorRT whose preparation ends so."""
    found = ModuleType("tensorrt_double")

    def prepare(*_: Any) -> Any:
        if raises is not None:
            raise raises
        return SimpleNamespace(cached=cached, open=lambda tell, cancel: opens)

    found.prepare, found.open, found.Options = prepare, prepare, tensorrt.Options  # type: ignore[attr-defined]
    return found


Choose = Callable[..., selection.Choice]


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch) -> Choose:
    monkeypatch.setattr(selection, "_fallback", lambda *_: FALLBACK)

    def chosen(module: ModuleType, *overrides: tuple[str, str]) -> selection.Choice:
        monkeypatch.setattr(plugins, "load", lambda kind, name, *_: module)
        return selection.choose(load_model("nanodet-g"), load_config(None, list(overrides)), None)

    return chosen


def test_auto_keeps_the_reason(choose: Choose) -> None:
    chosen = choose(module_that(MISSING))
    assert (chosen.now, chosen.later, chosen.refused) == (FALLBACK, None, MISSING)


def test_tensorrt_that_was_asked_for_fails_in_doctors_words(choose: Choose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "explain", lambda error: UnavailableError("doctor's words", "a way out"))
    with pytest.raises(UnavailableError, match="doctor's words; a way out"):
        choose(module_that(MISSING), ("backend", "tensorrt"))
    monkeypatch.setattr(selection, "explain", lambda error: None)
    with pytest.raises(UnavailableError, match="the Python module tensorrt is not installed"):
        choose(module_that(MISSING), ("backend", "tensorrt"))


def test_without_memory_it_is_prepared_again_later(choose: Choose) -> None:
    """Other programs may have given some back by then."""
    module = module_that(OutOfMemoryError("the GPU has no memory left"))
    chosen = choose(module)
    assert (chosen.now, chosen.refused) == (FALLBACK, None)
    assert chosen.later is not None
    with pytest.raises(OutOfMemoryError):
        chosen.later(lambda _: None, threading.Event())
    engine = SimpleNamespace(prepare=lambda wanted: None)
    module.prepare = module_that(opens=engine).prepare  # type: ignore[attr-defined]
    again = choose(module).later
    assert again is not None
    assert again(lambda _: None, threading.Event()) is engine


def test_a_backend_without_memory_for_its_decoder_is_closed(choose: Choose) -> None:
    closed = []

    def prepare(wanted: object) -> None:
        raise OutOfMemoryError("the GPU has no memory left")

    engine = SimpleNamespace(prepare=prepare, close=lambda: closed.append(1))
    chosen = choose(module_that(opens=engine), ("backend", "tensorrt"))
    assert chosen.later is not None
    with pytest.raises(OutOfMemoryError):
        chosen.later(lambda _: None, threading.Event())
    assert closed == [1]


def test_the_headline_of_a_daemon_that_could_do_more() -> None:
    board = Bulletin()
    board.unused = unused = Reason("tensorrt-unused", "TensorRT is not used: …")
    board.heat = Reason("throttled", "hot")
    assert board.headline is unused
    board.news = Reason("engine-failed", "…")
    assert board.headline is board.news


def test_the_summary_says_it(capsys: pytest.CaptureFixture[str]) -> None:
    line = "TensorRT is not used: it is hidden; unhide it"
    print_summary(DaemonSnapshot(model="m", backend="onnxruntime-cpu", unused=Reason("tensorrt-unused", line)))
    assert line in capsys.readouterr().err.splitlines()
