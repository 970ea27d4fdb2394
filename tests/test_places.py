"""Where a mistake stands: every error about a file names the line and the column that a person has to look at."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer import cli
from edgeinfer.config.places import located
from edgeinfer.config.settings import load_config, read_config
from edgeinfer.config.yamlfile import parse_document
from edgeinfer.errors import ConfigError, EdgeinferError, Place
from tests.test_config import FULL, WRONG, leaves

SHARED: dict[str, Any] = {"uri": "demo:", "width": 640, "max_fps": 2.0}
WHOLE: dict[str, Any] = {
    **FULL,
    "sources": {**FULL["sources"], "one": SHARED, "other": SHARED},
    "batching": {"mode": "latency", "wait_ms": 3.0},
    "http": {"bind": "127.0.0.1:9108", "ready_min_sources": 1, "insecure": False},
    "watchdog": {"deadline_s": 5.0},
}
LEAVES = [(path, value) for path, value in leaves(WHOLE) if path not in {("model",), ("backend",), ("batching",)}]
MARK = "SPOILTVALUE"


def spoilt(path: tuple[str, ...], value: Any, **style: Any) -> tuple[str, int, int]:
    """The text of the whole configuration with a wrong value at `path`, and the line and column of that."""
    data = copy.deepcopy(WHOLE)  # which keeps what is shared shared
    below = data
    for key in path[:-1]:
        below = below[key]
    below[path[-1]] = MARK
    before, _, after = yaml.safe_dump(data, **style).partition(MARK)
    wrong = WRONG[type(value)]
    return f"{before}{wrong}{after}", before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1


def refused(text: str, file: str = "site.yaml") -> EdgeinferError:
    with pytest.raises(EdgeinferError) as caught:
        read_config(Path(file), text=text)
    return caught.value


@pytest.mark.slow
@given(
    st.sampled_from(LEAVES),
    st.sampled_from([True, False, None]),
    st.integers(2, 6),
    st.sampled_from([20, 1000]),
    st.integers(0, 3),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\ufeff"]),
)
def test_the_place_of_any_spoilt_value_is_found(
    leaf: tuple[tuple[str, ...], Any], flow: bool | None, indent: int, width: int, above: int, end: str, start: str
) -> None:
    text, line, column = spoilt(*leaf, default_flow_style=flow, indent=indent, width=width)
    text = start + ("# a comment\n" * above + text).replace("\n", end)
    error = refused(text)
    wrong = WRONG[type(leaf[1])]
    assert error.place == Place("site.yaml", line + above, column, column + len(str(wrong)))
    assert error.message == f"site.yaml:{line + above}:{column}: {error.said}"
    names = [".".join(leaf[0]), ".".join(leaf[0]).replace("sources.other", "sources.one")]
    assert any(error.said.startswith(f"{name}: ") for name in names)


@pytest.mark.parametrize(
    ("text", "line", "column", "said"),
    [
        ("sources:\n  yard:\n    uri: 'demo:'\n    max_fsp: 5\n", 4, 5, "sources.yard.max_fsp: unknown key"),
        ("frames: 5\nsorces: {}\n", 2, 1, "sorces: unknown key"),
        ("backend: {thread: 3}\n", 1, 11, "backend.thread: unknown key"),
        ("sources:\n  yard: {max_fps: 5}\n", 2, 3, "sources.yard.uri: missing"),
        ("sources: {a: 'foo://x'}\n", 1, 14, "sources.a.uri: 'foo://x': no source of the kind 'foo'"),
        ("sources: {a: {uri: 'foo://x'}}\n", 1, 20, "sources.a.uri: 'foo://x': no source"),
        ("sources: {a: {uri: '0', fps: x}}\n", 1, 30, "sources.a.fps: 'x' is not allowed"),
        ("sources: {a b: 'demo:'}\n", 1, 11, "sources.a b: 'a b' is not allowed"),
        ("sources: {5: 'demo:'}\n", 1, 11, "sources.5: 5 is not allowed"),
        ("sources: {a: {uri: '0', stall_s: 9}}\n", 1, 34, "sources.a.stall_s: 9 is not shorter than timeout_s, 5"),
        ("sources: {a: {uri: '0', timeout_s: 1}}\n", 1, 36, "sources.a.timeout_s: 1 is not longer than stall_s"),
        ("sources: {a: {uri: '0', memory_mb: 99}}\n", 1, 36, "sources.a.memory_mb: this source has no process"),
        ("backend: tensorflow\n", 1, 10, "backend: no backend called"),
        ("backend:\n  name: tensorflow\n", 2, 9, "backend.name: no backend called"),
        ("backend:\n  name: [1]\n", 2, 9, "backend.name: a list is not allowed"),
        ("sinks: {zmqq: {}}\n", 1, 15, "sinks.zmqq: no sink called"),
        ("sources: {a: }\n", 1, 13, "sources.a: None is not allowed"),
        ("- 1\n", 1, 1, "config: a list is not allowed"),
        ("x: &b {max_fps: 0}\n", 1, 1, "x: unknown key"),
        ("sources:\n  a: &b {uri: '0', max_fps: 0}\n  c: *b\n", 2, 29, "sources.a.max_fps: 0 is not allowed"),
        ("sources:\n  a: &b {uri: '0'}\n  c: {<<: *b, max_fps: 0}\n", 3, 24, "sources.c.max_fps: 0"),
        (
            "sources:\n  a: &b {uri: '0', stall_s: 2}\n  c:\n    <<: [*b]\n    stall_s: 0\n",
            5,
            14,
            "sources.c.stall_s: 0",
        ),
        ("sources:\n  a: {uri: '0'}\n  c: {<<: {uri: '0', max_fps: 0}}\n", 3, 31, "sources.c.max_fps: 0"),
        ("sources: {a: {uri: '0', a.b.c: 1}}\n", 1, 25, "sources.a.a.b.c: unknown key"),
        ("a.b: 1\n", 1, 1, "a.b: unknown key"),
        ("a: 1\nb: [\n", 3, 1, "not valid YAML: "),
        ("a: 1\n a: 2\n", 2, 3, "not valid YAML: "),
        ("a: 1\na: 2\n", 2, 1, "not valid YAML: a key is given twice"),
        ("a: 5\nb: [1, 2001-99-99]\n", 2, 8, "not valid YAML: it holds a value that is none"),
        ("a: 5\r\nb: \x01\r\n", 2, 4, "not valid YAML: the character U+0001 is not allowed"),
    ],
)
def test_where_mistakes_stand(text: str, line: int, column: int, said: str) -> None:
    error = refused(text)
    assert error.message.startswith(f"site.yaml:{line}:{column}: {said}"), error.message
    assert error.place is not None
    assert error.place.column < error.place.end_column


def test_a_value_of_several_lines_is_marked_to_the_end_of_the_first() -> None:
    error = refused("sources:\n  a:\n    uri: 'demo:'\n    fps:\n      - 1\n      - 2\nframes: 3\n")
    assert error.place == Place("site.yaml", 5, 7, 10)


def test_what_the_command_line_says_stands_in_no_file(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("sources: {a: 'demo:'}\npublish: {format: json}\n")
    for key, value in (("publish.format", "xml"), ("publish", {"format": "xml"})):
        with pytest.raises(ConfigError, match=r"^publish\.format: 'xml' is not allowed") as caught:
            load_config(path, [(key, value)])
        assert caught.value.place is None
    path.write_text("frames: 5\nsources: 4\n")
    with pytest.raises(ConfigError, match=r"site\.yaml:2:10: --set sources\.a: there is nothing to set below"):
        load_config(path, [("sources.a", "demo:")])
    path.write_text("sources: {a: 'x://y'}\n")
    with pytest.raises(ConfigError, match=r"site\.yaml:1:14: sources\.a\.uri: "):
        load_config(path, [("sources.a.max_fps", 3)])


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("sources: {a: 'demo:'}\npublish: {bind: 'tcp://0.0.0.0:1'}\n", "2:17: publish.bind: "),
        ("http:\n  bind: '0.0.0.0:1'\n", "2:9: http.bind: "),
        ("model: nanodet\n", "1:8: no model called 'nanodet'"),
        ("model:\n  path: none.onnx\n", "2:9: model none.onnx: no such file"),
        ("http:\n  web: true\n  token: no/site.tokens\n", "3:10: no/site.tokens: No such file"),
        ("publish: {curve: {secret_key: none.key, allow: none}}\n", "1:18: none.key: No such file"),
    ],
)
def test_check_names_the_place_of_what_the_file_is_wrong_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("site.yaml").write_text(text)
    with pytest.raises(EdgeinferError, match=f"^site.yaml:{re.escape(place)}"):
        cli.run(["check", "site.yaml"])


def test_an_error_that_only_looks_like_one_of_a_key_has_no_place() -> None:
    places = parse_document("model: x\nsources: {a.yaml: 1}\n", "site.yaml").places
    for message in ("model of mine: wrong", "sources.a: wrong", "sources.a.yaml.b: wrong", "no sources", "x: y"):
        assert located(ConfigError(message), places).message == f"site.yaml: {message}"
    assert str(located(ConfigError("sources.a.yaml: wrong"), places)).startswith("site.yaml:2:19: ")


deep = st.recursive(
    st.integers() | st.text("a.<", max_size=3),
    lambda inner: st.dictionaries(st.text("ab.", max_size=3), inner) | st.lists(inner),
)


@pytest.mark.slow
@given(deep, st.text("ab.", max_size=9), st.booleans())
def test_any_key_is_looked_for_in_any_text(data: Any, key: str, of_name: bool) -> None:
    """Names with dots, none, empty ones: what is found lies within the text, and nothing is raised."""
    text = yaml.safe_dump(data)
    depth, place = parse_document(text, "c").places.find(key, of_name)
    assert 0 <= depth <= len(key)
    if place is not None:
        line = text.splitlines()[place.line - 1]
        assert 1 <= place.column < place.end_column <= len(line) + 2
