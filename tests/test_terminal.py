"""The terminal's edge: whatever text comes in, nothing comes out that a terminal obeys or nobody sees."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from edgeinfer.commands import _doctor_page, _drawing, _overview, _report, _terminal
from edgeinfer.commands._remote import RemoteDaemon
from edgeinfer.commands._streams import Window
from edgeinfer.commands.listen import describe, raw_line
from edgeinfer.commands.status import as_data
from edgeinfer.environment.diagnosis import Diagnosis, Problem
from edgeinfer.errors import EdgeinferError
from edgeinfer.guard.printable import PrintableFormatter, visible
from edgeinfer.messages import DAEMON, DetectionsMessage, InfoMessage, MachineVitals, Reason, StatusMessage, Vitals
from tests.conftest import Cli
from tests.test_messages import example

CONTROLS = "\x1b\x9b\x07\x08\r\t\n\x7f\x85"
UNSEEN = "\u202e\u2066\u2069\u200e\u200f\u061c\u200b\u200d\ufeff\xad\u2028\u2029\U000e0041"
MARKUP = "[]ab/link=red\\:smile:"
hostile = st.lists(st.sampled_from(CONTROLS + UNSEEN + MARKUP) | st.characters(codec="utf-8"), max_size=24).map("".join)
typed = st.lists(st.sampled_from(CONTROLS + UNSEEN + MARKUP + "\ud83d") | st.characters(), max_size=24).map("".join)
ATTACKS = {
    "title": "\x1b]0;owned\x07",
    "screen": "\x1b[2J\x1b[31m",
    "8 bits": "\x9b31m\x9d0;owned\x9c",
    "line": "a\nedgeinfer: error: forged",
    "return": "a\redgeinfer",
    "bidi": "a\u202egpj.exe\u2066x\u2069",
    "zero width": "a\u200bb\ufeff",
    "separator": "a\u2028b\u2029c",
    "colour": "[red]a[/red]",
    "link": "[link=https://evil.example]a[/link]",
    "end": "[/]",
    "emoji": ":smile:",
    "hyperlink": "\x1b]8;;https://evil.example\x07a",
}


def drawn(*renderables: Any) -> str:
    """What our consoles draw, on no terminal, so without commands of their own."""
    out = io.StringIO()
    console = _drawing.SafeConsole(file=out, width=400, markup=False, emoji=False, highlight=False)
    for renderable in renderables:
        console.print(renderable)
    return out.getvalue()


def assert_shown(text: str, lines: int | None = None) -> None:
    assert visible(text) == text
    text.encode()
    if lines is not None:
        assert len(text.splitlines()) == lines


def overview(text: str) -> RemoteDaemon:
    """A daemon that says `text` wherever it can."""
    found = RemoteDaemon()
    info, source = example("info", text=text), example("status", text=text)
    assert isinstance(info, InfoMessage)
    assert isinstance(source, StatusMessage)
    found.add(structs.replace(info, sources=[text], backend=text, versions={text: text}))
    found.add(structs.replace(source, source=text, dropped_by_reason={text: 1}))
    vitals = Vitals(
        latency_ms={text: {"p50": 1.0}},
        machine=MachineVitals(throttled=[text], temperatures_c={text: 1.0}, power_mode=text),
    )
    found.add(structs.replace(source, source=DAEMON, reason=Reason(text, text), vitals=vitals))
    return found


def window(out: io.BytesIO, encoding: str = "utf-8") -> Window:
    made = Window(out, encoding=encoding, errors="backslashreplace")
    made.clean = visible
    return made


def written(show: Callable[[], object]) -> str:
    """What comes out behind the edge of what `show` writes to the standard streams."""
    before = sys.stdout, sys.stderr
    out = io.BytesIO()
    sys.stdout = sys.stderr = edge = window(out)
    try:
        show()
    finally:
        sys.stdout, sys.stderr = before
        edge.detach()  # flushed, and `out` stays open
    return out.getvalue().decode()


@pytest.mark.slow
@given(hostile)
@settings(deadline=None)
def test_what_a_daemon_says_is_shown_and_not_obeyed(text: str) -> None:
    """`status`, `top` and `listen`: as many lines as of a daemon that says nothing odd."""
    assert_shown(drawn(_overview.page(overview(text))), len(drawn(_overview.page(overview("x"))).splitlines()))
    for kind in ("status", "info", "detections"):
        assert_shown(describe(example(kind, text=text)), 1)


@given(typed)
@settings(deadline=None)
def test_what_the_machine_says_is_shown_and_not_obeyed(text: str) -> None:
    """`doctor`."""
    problem = Problem(severity="error", code="x", message=text, remedy=text)
    assert_shown(drawn(_doctor_page._problem(problem)), 2)
    assert_shown(drawn(_doctor_page._verdict(Diagnosis(backend=None, reason=text))), 1)


@pytest.mark.slow
@given(typed)
@settings(deadline=None)
def test_a_runs_own_lines(text: str) -> None:
    """`run`: a scene, and the summary."""
    message = structs.replace(example("detections", text="x"), source=f"x{text}", detections=[])
    books = SimpleNamespace(state=text, captured=1, inferred=1, dropped={text: 1})
    summary: Any = SimpleNamespace(
        model=text,
        backend=text,
        serving_s=1.0,
        detail=f"x{text}",
        unused=Reason("tensorrt-unused", f"x{text}"),
        sources={text: books},
        latency_ms={text: {"p50": 1.0, "p95": 1.0, "p99": 1.0}},
    )
    assert isinstance(message, DetectionsMessage)
    assert_shown(written(lambda: _terminal.echo(_report.scene_line(message))), 1)
    assert_shown(written(lambda: _report.print_summary(summary)), 7)


@given(typed)
def test_errors_and_log_lines(text: str) -> None:
    assert_shown(str(EdgeinferError(f"x{text}", f"x{text}")), 1)
    record = logging.makeLogRecord({"msg": "x%s", "args": (text,), "levelname": "info"})
    assert_shown(PrintableFormatter("edgeinfer: %(message)s").format(record), 1)
    try:
        raise ValueError(f"x{text}\nedgeinfer: error: forged")
    except ValueError:
        record.exc_info = sys.exc_info()
    lines = PrintableFormatter("edgeinfer: %(message)s").format(record)
    assert_shown(lines)
    assert all(line.startswith("  ") for line in lines.split("\n")[1:]), "none of them looks like a record"


@pytest.mark.slow
@given(typed)
def test_the_edge(text: str) -> None:
    assert_shown(written(lambda: _terminal.echo(text)), 1)
    assert_shown(written(lambda: _terminal.echo_lines(text)))
    assert_shown(written(lambda: print(text)))  # whoever says it


@pytest.mark.slow
@given(st.recursive(hostile, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(hostile, inner, max_size=3)))
def test_json_means_the_same(value: object) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        shown = written(lambda text=text: _terminal.echo_json(text))  # type: ignore[misc] # (bound at once)
        assert_shown(shown)
        assert json.loads(shown) == value


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)
def test_attacks_on_a_terminal(text: str) -> None:
    assert_shown(drawn(_overview.page(overview(text))))
    shown = written(lambda: _terminal.echo_json(msgspec.json.encode(as_data(overview(text)))))
    assert json.loads(shown)["info"]["sources"] == [text]
    payload = json.dumps({"label": text}, ensure_ascii=False).encode()
    assert json.loads(raw_line(payload)) == {"label": text}
    assert_shown(raw_line(payload), 1)


@pytest.mark.parametrize("name", ["colour", "link", "end", "emoji"])
def test_markup_is_text(name: str) -> None:
    text = ATTACKS[name]
    assert text in drawn(_overview.page(overview(text)))
    assert text in written(lambda: _drawing.console().print(_drawing.cell(text)))
    assert text in written(lambda: _drawing.console().print(text))


def test_a_link_is_not_drawn() -> None:
    out = io.StringIO()
    _drawing.SafeConsole(file=out, force_terminal=True, width=80).print("[link=https://evil.example]a[/link]")
    assert "evil" not in out.getvalue()


def test_what_draws_goes_past_the_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[1ma" in written(lambda: _drawing.console().print("a", style="bold"))
    assert "\x1b[1m�[2J" in written(lambda: _drawing.console().print("\x1b[2J", style="bold"))


def test_standard_error_shows_no_secret_whoever_writes_there() -> None:
    code = (
        "import sys\nfrom edgeinfer.commands import _streams\nfrom edgeinfer.guard.redaction import remember_secrets\n"
        "_streams.prepare()\nremember_secrets(['hunter2'])\nprint('it is hunter2 \\x1b[2J', file=sys.stderr)\n"
        "print('\\x1b]0;x\\x07 \\ud83d')\nraise ValueError('hunter2 \\u202e')"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.stderr.startswith("it is *** �[2J\nTraceback")
    assert process.stderr.endswith("ValueError: *** �\n")
    assert process.stdout == "�]0;x� �\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_encoding_ends_a_command(encoding: str) -> None:
    out = io.BytesIO()
    stream = window(out, encoding)
    stream.write("416 × 416 \ud83d …\n")
    stream.flush()
    assert out.getvalue().startswith(b"416 ")


COMMANDS = ("check", "models inspect", "models show", "keys show", "keys ls", "run --config", "engines verify")


@pytest.mark.parametrize("command", COMMANDS)
def test_names_of_files(cli: Cli, tmp_path: Path, command: str) -> None:
    for name in ("title", "line", "bidi", "colour"):
        path = f"{ATTACKS[name].replace('/', '')}.yaml"
        (tmp_path / path).write_bytes(b"x: 1")
        process = cli(*command.split(), path)
        assert process.returncode
        assert_shown(process.stdout + process.stderr)
        assert not [line for line in process.stderr.splitlines() if line.startswith("edgeinfer: error: forged")]


def test_every_command_shows_through_the_edge() -> None:
    """None draws with a console of rich's own, and none writes past the streams."""
    for path in Path(_terminal.__file__).parent.glob("*.py"):
        text = path.read_text()
        assert path.name == "_drawing.py" or "Console(" not in text, path.name
        assert "sys.__std" not in text or path.name == "_streams.py", path.name
