"""The desk and the daemon that it changes: orders, reloads that fail, engines that are being built, the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgeinfer.config.reader import ConfigReader
from edgeinfer.daemon.daemon import Daemon
from edgeinfer.daemon.desk import Desk
from edgeinfer.errors import ConfigError, EdgeinferError, TemporaryError
from edgeinfer.messages import ReloadReport
from edgeinfer.web.viewing.desk import Outcome
from tests.scripted_backend import Scripted
from tests.test_reload import (  # noqa: F401 (fixtures)
    SMALL,
    Builds,
    Recorder,
    Run,
    assert_untouched,
    backends,
    begun,
    builds,
    model,
    no_time_for_subscribers,
    two,
)

pytestmark = pytest.mark.slow


class Desked(Run):
    """A run whose file is one, with a desk."""

    def __init__(self, path: Path | None, *overrides: tuple[str, Any]) -> None:
        self.path = path
        self.recorder = Recorder()
        self.reader = ConfigReader(path, [("publish", None), *overrides])
        self.desk = Desk(self.reader)
        self.daemon = Daemon(self.reader(), {"recorder": self.recorder}, self.desk.read, desk=self.desk)
        self.requests, self.reports = 0, []
        self.daemon.start()

    def ask(self, call: Callable[[], Outcome]) -> Future[Outcome]:
        """Asks from another thread, as the page does."""
        asked: Future[Outcome] = Future()

        def work() -> None:
            try:
                asked.set_result(call())
            except EdgeinferError as error:
                asked.set_exception(error)

        threading.Thread(target=work, daemon=True).start()
        return asked

    def do(self, call: Callable[[], Outcome]) -> Outcome:
        """Asks, and turns the daemon until there is an answer."""
        asked = self.ask(call)
        self.until(asked.done, "the answer")
        return asked.result()

    def hang_up(self) -> ReloadReport:
        """A reload that a signal asks for."""
        before = self.daemon.reloader.report.requested
        self.request()
        self.until(lambda: self.daemon.reloader.report.finished > before, "the reload")
        return self.daemon.reloader.report

    def write(self, **changes: Any) -> str:
        """The file's text with other keys."""
        assert self.path is not None
        return yaml.safe_dump({**yaml.safe_load(self.path.read_text()), **changes})


@pytest.fixture
def run(model: str, backends: list[Scripted], tmp_path: Path) -> Iterator[Desked]:  # noqa: F811 (fixtures)
    path = tmp_path / "site.yaml"
    path.write_text(
        yaml.safe_dump({"model": {"path": model}, "backend": "tests.scripted_backend", "sources": {"a": SMALL}})
    )
    run = Desked(path)
    run.until_results("a")
    yield run
    run.stop()


def test_sources_come_and_go_and_the_others_do_not_notice(run: Desked) -> None:
    assert run.do(lambda: run.desk.set_source("b", SMALL, "restart")).changes == ["sources.b: added"]
    run.until_results("b")
    assert run.do(lambda: run.desk.set_source("c", SMALL, "file")).changes == ["sources.c: added"]
    run.until_results("c")
    text = run.write(sources={"a": SMALL, "d": SMALL})
    assert run.do(lambda: run.desk.reload(text)).changes == ["sources.d: added"]
    assert run.hang_up().ok, "a signal's reload keeps what was added"
    assert set(run.daemon.reloader.config.sources) == {"a", "b", "c", "d"}
    assert run.do(lambda: run.desk.remove_source("b")).changes == ["sources.b: removed"]
    assert run.do(lambda: run.desk.remove_source("c")).changes == ["sources.c: removed"]
    assert run.do(run.desk.reload).text == "nothing has changed"
    run.until_results("a")
    run.stop()
    assert_untouched(run)


def test_a_model_that_fails_is_taken_out_of_the_file_again(
    run: Desked,
    two: str,  # noqa: F811 (a fixture)
    backends: list[Scripted],  # noqa: F811 (fixtures)
) -> None:
    assert run.path is not None
    before = run.path.read_bytes()
    text = run.write(model={"path": two, "max_batch": 7})
    failing = "the network has no output called"
    Path(two).with_suffix(".yaml").write_text(
        Path(two)
        .with_suffix(".yaml")
        .read_text()
        .replace("name: boxes_scores", "name: boxes_scores\n  options: {boxes: nowhere}")
    )
    with pytest.raises(ConfigError, match=f"not reloaded: .*{failing}.*; everything is as it was"):
        run.do(lambda: run.desk.reload(text))
    assert run.path.read_bytes() == before
    assert run.do(run.desk.reload).text == "nothing has changed"
    run.until_results("a")


def test_a_source_is_added_while_an_engine_is_built(
    run: Desked,
    two: str,  # noqa: F811 (a fixture)
    builds: Builds,  # noqa: F811 (fixtures)
) -> None:
    """It asks for the same model, and is applied together with that."""
    text = run.write(backend="tensorrt", model={"path": two})
    first = run.ask(lambda: run.desk.reload(text))
    run.until(lambda: "engine-building" in run.recorder.codes(), "the build")
    assert run.path is not None
    assert run.path.read_text() == text
    run.until_results("a", 20)
    assert not first.done()
    run.path.write_text(run.write(sources={"a": SMALL, "b": SMALL}))
    run.request()
    run.until(lambda: not run.daemon.reloader._reading, "the file to be read")
    builds.go.set()
    run.until(first.done, "the answer")
    assert first.result().ok
    run.until_results("b")
    assert run.do(lambda: run.desk.set_source("c", SMALL, "restart")).ok
    run.until_results("c")
    run.stop()
    assert_untouched(run)


def test_every_order_has_a_report_of_what_was_read_after_it(run: Desked) -> None:
    orders = [run.daemon.reloader.order() for _ in range(3)]
    run.request()
    run.until(lambda: all(order.done() for order in orders), "the reports")
    run.until(lambda: run.daemon.reloader.report.finished == 4, "the last")
    assert {order.result().ok for order in orders} == {True}
    assert [order.result().finished >= number for number, order in enumerate(orders, 1)] == [True] * 3
    assert run.daemon.reloader.report.requested == 4


def test_the_end_of_the_daemon_is_an_answer(run: Desked) -> None:
    asked = run.ask(run.desk.reload)
    run.stop()
    with pytest.raises(TemporaryError, match="the daemon ends"):
        asked.result(60)
    with pytest.raises(TemporaryError, match="the daemon ends"):
        run.desk.reload()


def test_without_a_file(model: str, backends: list[Scripted]) -> None:  # noqa: F811 (fixtures)
    overrides = [("model.path", model), ("backend", "tests.scripted_backend"), ("sources.a", SMALL)]
    run = Desked(None, *overrides)
    run.until_results("a")
    try:
        assert run.do(lambda: run.desk.set_source("b", SMALL, "restart")).ok
        run.until_results("b")
        run.request()
        run.until(
            lambda: run.reports and run.reports[-1].finished == run.daemon.reloader.report.requested, "the reload"
        )
        assert "there is no file to reload" in run.reports[-1].text
        assert run.do(lambda: run.desk.remove_source("b")).ok
    finally:
        run.stop()
