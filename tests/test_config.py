"""Configuration: every file in configs/ loads, and everything wrong gets one line with its path."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect as types

from edgeinfer.config import paths, plugins, settings
from edgeinfer.config.card import ModelCard
from edgeinfer.config.overrides import parse_override
from edgeinfer.config.settings import load_config, source_names, writes_to_stdout
from edgeinfer.config.yamlfile import load_yaml, parse_yaml
from edgeinfer.errors import ConfigError, EdgeinferError, InputError, UnavailableError
from edgeinfer.guard.limits import MAX_CONFIG_BYTES
from edgeinfer.sinks import jsonl, zmq

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))
FULL: dict[str, Any] = {
    "model": {"path": "nanodet-g", "card": "x.yaml", "precision": "fp32", "score": 0.5, "iou": 0.5, "max_batch": 2},
    "backend": {"name": "onnxruntime", "providers": ["cpu"], "threads": 2, "streams": 1, "provider_options": {}},
    "sources": {
        "cam": {"uri": "0", "max_fps": 5.0, "width": 640, "height": 480, "fps": 30.0, "fourcc": "MJPG"},
        "clip": {"uri": "clip.mp4", "realtime": True, "loop": True},
        "photos": {"uri": "*.jpg", "fps": 2.0, "loop": True, "max_bytes": 1000},
        "demo": {"uri": "demo:", "width": 640, "height": 480, "fps": 5.0, "realtime": True, "frames": 5},
    },
    "publish": {"bind": "tcp://127.0.0.1:1234", "format": "json", "high_water_mark": 5, "insecure": False},
    "sinks": {"jsonl": {"path": "x", "kinds": ["status"]}, "video": {"path": "x.mp4", "fps": 25.0}},
    "frames": 10,
}
WRONG = {str: 7, int: "seven", float: "fast", bool: "maybe", list: 3, dict: 4}


def load(tmp_path: Path, data: Any) -> Any:
    path = tmp_path / "config.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
    return load_config(path)


def leaves(data: Any, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Any]]:
    found = [(path, data)] if path else []
    if isinstance(data, dict):
        for key, value in data.items():
            found += leaves(value, (*path, key))
    return found


def with_value(path: tuple[str, ...], value: Any) -> Any:
    data = yaml.safe_load(yaml.safe_dump(FULL))
    below = data
    for key in path[:-1]:
        below = below[key]
    below[path[-1]] = value
    return data


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configs_load(path: Path) -> None:
    assert load_config(path).sources


def test_there_are_shipped_configs() -> None:
    assert len(CONFIGS) >= 3


def test_the_full_example_loads(tmp_path: Path) -> None:
    config = load(tmp_path, FULL)
    assert set(config.sources) == {"cam", "clip", "photos", "demo"}
    assert config.sources["cam"].max_fps == 5
    assert config.sinks["publish"].options.high_water_mark == 5


@pytest.mark.parametrize(
    ("path", "value"), leaves(FULL), ids=lambda value: ".".join(value) if isinstance(value, tuple) else ""
)
def test_a_wrong_type_names_its_key_and_value(tmp_path: Path, path: tuple[str, ...], value: Any) -> None:
    wrong = WRONG[type(value)] if path not in {("model",), ("backend",)} else 5
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, with_value(path, wrong))
    assert ".".join(path) in caught.value.message
    assert repr(wrong) in caught.value.message or "parent" in caught.value.message
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("sources", "cam", "max_fps"), 0),
        (("sources", "cam", "max_fps"), -1),
        (("model", "score"), 1.5),
        (("publish", "high_water_mark"), 0),
        (("publish", "format"), "xml"),
        (("frames",), 0),
        (("backend", "threads"), 0),
        (("sources", "cam", "fourcc"), "mjpeg"),
    ],
)
def test_out_of_range_says_what_is_allowed(tmp_path: Path, path: tuple[str, ...], value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, with_value(path, value))
    assert f"{'.'.join(path)}: {value!r} is not allowed: " in caught.value.message


@pytest.mark.parametrize(
    ("path", "near"),
    [
        (("sorces",), "sources"),
        (("publish", "bnd"), "bind"),
        (("sources", "cam", "max_fsp"), "max_fps"),
        (("sources", "cam", "wdith"), "width"),
        (("model", "scroe"), "score"),
        (("backend", "thread"), "threads"),
        (("sinks", "jsonl", "pth"), "path"),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path: Path, path: tuple[str, ...], near: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, with_value(path, 1))
    assert f"{'.'.join(path)}: unknown key" in caught.value.message
    assert near in caught.value.hint


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sources: {a: 'demo:'\n", "not valid YAML"),
        ("sources: {a: 'demo:', a: 'demo:'}\n", "given twice"),
        ("- 1\n", "expected"),
        ("sources: {a b: 'demo:'}\n", "sources.a b"),
        ("sources: {a: 'foo://x'}\n", "no source of the kind 'foo'"),
        ("sources: {a: [1]}\n", "sources.a"),
        ("backend: tensorflow\n", "no backend called 'tensorflow'"),
        ("backend: no.such.module\n", "no module called"),
        ("sinks: {zmqq: {}}\n", "no sink called 'zmqq'"),
        ("x: !!python/object/apply:os.system [id]\n", "not valid YAML"),
        ("\x00", "not valid YAML"),
        ("a: 2001-99-99\n", "not valid YAML"),
    ],
)
def test_bad_files_get_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert says in caught.value.message
    assert "config.yaml" in caught.value.message


def test_a_missing_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        load_config(tmp_path / "none.yaml")


def test_a_yaml_bomb_is_harmless(tmp_path: Path) -> None:
    levels = "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" if i else "a0: &a0 [x]" for i in range(12))
    with pytest.raises(ConfigError):
        load(tmp_path, f"{levels}\nsources: *a11\n")


@pytest.mark.parametrize("backend", ["auto", "tensorrt"])
def test_the_models_precision_is_the_engines(tmp_path: Path, backend: str) -> None:
    data = {"model": {"path": "nanodet-g", "precision": "fp32"}, "backend": backend}
    assert load(tmp_path, data).backend.options.precision == "fp32"
    own = {**data, "backend": {"name": backend, "precision": "best"}}
    assert load(tmp_path, own).backend.options.precision == "best"


def test_overrides_reach_short_forms(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("model: nanodet-g\nsources: {a: 'demo:'}\n")
    config = load_config(path, [parse_override("model.score=0.9"), parse_override("sources.a.fps=5")])
    assert (config.model.path, config.model.score) == ("nanodet-g", 0.9)
    assert config.sources["a"].options.fps == 5  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["x", "=1", ".a=1", "a..b=1", "a.=1", "frames.x.y=1"])
def test_bad_overrides(text: str) -> None:
    with pytest.raises(ConfigError):
        load_config(None, [("frames", 3), parse_override(text)])


def test_the_defaults_are_those_of_the_documentation() -> None:
    config = load_config(None, [("sources", {"a": "demo:"})])
    assert (config.model.path, config.backend.name, config.frames, config.http, config.path) == (
        "nanodet-g", "auto", None, None, None,
    )  # fmt: skip
    assert (config.model.score, config.model.iou, config.model.max_batch, config.model.card) == (None,) * 4
    ladder = config.sources["a"].ladder
    assert (ladder.reconnect, ladder.wait, ladder.stall_s, ladder.timeout_s) == (None, True, 2.5, 5.0)
    assert (ladder.max_age_ms, ladder.frozen_s, config.sources["a"].max_fps) == (500.0, None, None)
    assert (config.batching.mode, config.batching.wait_ms, config.watchdog.deadline_s) == ("balanced", 5.0, 5.0)
    assert list(config.sinks) == ["publish"]
    publish: Any = config.sinks["publish"].options
    assert (publish.bind, publish.format, publish.high_water_mark) == ("tcp://127.0.0.1:5555", "json", 64)
    assert (publish.curve, publish.insecure) == (None, False)
    http = load_config(None, [("http", {})]).http
    assert http is not None
    assert (http.bind, http.ready_min_sources, http.insecure) == ("127.0.0.1:9108", 1, False)


LIMITS: dict[str, tuple[Any, Any]] = {
    "sources.a.stall_s": (0.1, 3601), "sources.a.timeout_s": (3600, 3601), "sources.a.max_age_ms": (1, 0.9),
    "sources.a.frozen_s": (0.1, 0.05), "sources.a.max_fps": (0.001, 0), "sources.a.uri": ("0", ""),
    "publish.high_water_mark": (100_000, 100_001), "model.max_batch": (256, 257), "model.iou": (1, 1.1),
    "model.score": (0, -0.1), "model.sha256": ("0" * 64, "0" * 63), "model.precision": ("tf32", "fp8"),
    "batching.wait_ms": (1000, 1001), "batching.mode": ("throughput", "fast"), "watchdog.deadline_s": (1, 0.9),
    "http.ready_min_sources": (0, -1), "frames": (1, 0), "sources.a.reconnect": (False, "no"),
}  # fmt: skip


@pytest.mark.parametrize("key", LIMITS)
def test_limits(key: str) -> None:
    good, bad = LIMITS[key]
    base = [("sources", {"a": {"uri": "demo:", "stall_s": 1.0}})]
    load_config(None, [*base, (key, good)])
    with pytest.raises(ConfigError, match=re.escape(key)):
        load_config(None, [*base, (key, bad)])


@pytest.mark.parametrize(("stall", "timeout", "good"), [(2.0, 2.1, True), (2.0, 2.0, False), (3.0, 2.0, False)])
def test_a_source_stalls_before_it_times_out(stall: float, timeout: float, good: bool) -> None:
    overrides = [("sources.a", {"uri": "0", "stall_s": stall, "timeout_s": timeout})]
    if good:
        assert load_config(None, overrides).sources["a"].ladder.stall_s == stall
        return
    with pytest.raises(ConfigError, match=rf"sources\.a\.timeout_s: {timeout:g} is not longer than stall_s, {stall:g}"):
        load_config(None, overrides)


def test_a_source_keeps_its_general_keys_and_its_own() -> None:
    table = {
        "uri": "demo:",
        "max_fps": 3,
        "wait": False,
        "reconnect": True,
        "max_age_ms": None,
        "frozen_s": 2,
        "fps": 7,
    }
    source = load_config(None, [("sources.a", table)]).sources["a"]
    demo: Any = source.options
    assert (source.max_fps, demo.fps, source.uri.plugin) == (3, 7, "demo")
    assert (source.ladder.wait, source.ladder.reconnect, source.ladder.max_age_ms) == (False, True, None)
    assert source.ladder.frozen_s == 2


def test_publish_may_be_left_out_empty_or_none() -> None:
    assert load_config(None).sinks["publish"].options == load_config(None, [("publish", {})]).sinks["publish"].options
    assert load_config(None, [("publish", None)]).sinks == {}
    sinks = load_config(None, [("publish.format", "msgpack"), ("sinks.jsonl.path", "x")]).sinks
    assert {key: sink.name for key, sink in sinks.items()} == {"publish": "zmq", "sinks.jsonl": "jsonl"}


@pytest.mark.parametrize(
    ("sinks", "expected"), [({"jsonl": {"path": "-"}}, True), ({"jsonl": {"path": "x"}}, False), ({}, False)]
)
def test_who_has_standard_output(sinks: Any, expected: bool) -> None:
    assert writes_to_stdout(load_config(None, [("sinks", sinks)])) == expected


def test_each_key_of_auto_goes_to_the_backends_that_know_it() -> None:
    config = load_config(None, [("backend", {"threads": 3}), ("model", {"path": "m", "precision": "fp32"})])
    options, fallback = config.backend.options, config.backend.fallback
    assert (options.precision, fallback.threads) == ("fp32", 3)  # type: ignore[attr-defined, union-attr]
    with pytest.raises(ConfigError, match=r"backend\.thread: unknown key; did you mean threads"):
        load_config(None, [("backend", {"thread": 3})])
    with pytest.raises(ConfigError, match=r"backend\.name: 3 is not allowed: expected a name; one of: auto, onn"):
        load_config(None, [("backend", {"name": 3})])
    assert load_config(None, [("backend", {})]).backend.name == "auto"
    only = load_config(None, [("backend", {"name": "onnxruntime", "threads": 2}), ("model.precision", "fp32")]).backend
    assert (only.name, only.fallback) == ("onnxruntime", None)


@pytest.mark.parametrize(
    ("overrides", "key", "expected"),
    [
        ([("model", "a"), ("model.score", 0.5)], "model.path", "a"),
        ([("batching", "latency"), ("batching.wait_ms", 2)], "batching.mode", "latency"),
        ([("batching", "latency")], "batching.wait_ms", 5.0),
        ([("frames", 3), ("frames", 4)], "frames", 4),
        ([("http.bind", "127.0.0.1:1")], "http.bind", "127.0.0.1:1"),
        ([("http", None), ("http.ready_min_sources", 2)], "http.ready_min_sources", 2),
    ],
)
def test_overrides_in_their_order(overrides: list[tuple[str, Any]], key: str, expected: Any) -> None:
    found: Any = load_config(None, overrides)
    for part in key.split("."):
        found = getattr(found, part)
    assert found == expected


def test_an_override_leaves_what_it_was_made_of_alone() -> None:
    table: dict[str, Any] = {"a": {"uri": "demo:"}}
    load_config(None, [("sources", table), ("sources.a.fps", 5), ("sources.b", "demo:")])
    assert table == {"a": {"uri": "demo:"}}, "it is applied again at every reload"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a.b=3", ("a.b", 3)), ("a=x=y", ("a", "x=y")), ("a=", ("a", None)), ("a={b: [1]}", ("a", {"b": [1]}))],
)
def test_an_override_holds_yaml(text: str, expected: tuple[str, Any]) -> None:
    assert parse_override(text) == expected


def test_an_override_that_is_none_says_how_one_looks_without_its_secrets() -> None:
    with pytest.raises(ConfigError, match=r"for instance --set publish\.format=msgpack") as caught:
        parse_override("rtsp://u:hunter2@host")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"^--set a\.b, line 1: not valid YAML"):
        parse_override("a.b={")


def test_the_names_in_a_file_as_far_as_it_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    for text, names in (
        ("sources: {a: 1, 5: 'x'}", {"a", "5"}), ("sources: []", set()), ("[", set()), ("", set()), ("- 1", set())
    ):  # fmt: skip
        path.write_text(text)
        assert source_names(path) == names
    assert source_names(tmp_path / "none") == source_names(None) == set()


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("")
    config = load_config(tmp_path / "c.yaml")
    assert (config.path, config.sources) == (str(tmp_path / "c.yaml"), {})


# --- YAML ---


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: [\n", "c, line 3: not valid YAML"),
        ("a: 1\na: 2\n", "c, line 2: not valid YAML: a key is given twice"),
        ("x: {a: 1,\n a: 2}\n", "c, line 2: not valid YAML: a key is given twice"),
        ("1: a\n1: b\n", "a key is given twice"),
        ("a: 1\n? [a]\n: b\n", "c, line 2: not valid YAML: found unhashable key"),
    ],
)
def test_a_mistake_in_yaml_has_its_line(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        parse_yaml(text, "c")


def test_two_keys_that_are_merged_are_not_given_twice() -> None:
    assert parse_yaml("a: &a {x: 1}\nb: &b {y: 2}\nc: {<<: *a, <<: *b, x: 3}", "c")["c"]["x"] == 3


def test_the_largest_file_that_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"#" * MAX_CONFIG_BYTES)
    assert load_yaml(path) is None
    path.write_bytes(b"#" * (MAX_CONFIG_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than 256 KiB"):
        load_yaml(path)
    path.write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match="not a text file in UTF-8"):
        load_yaml(path)


# --- paths ---


def test_questions_about_paths_are_answered_whatever_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "gone").symlink_to("none")
    for name, there, folder, file in (
        ("file", True, False, True), ("link", True, False, True), (".", True, True, False),
        ("gone", False, False, False),
        ("none", False, False, False), ("file/x", False, False, False), ("a\0b", False, False, False),
        ("x" * 5000, False, False, False),
    ):  # fmt: skip
        path = f"{tmp_path}/{name}"
        assert (paths.exists(path), paths.is_dir(path), paths.is_file(path)) == (there, folder, file), name[:9]
    paths.check_readable(tmp_path / "file")
    for name, says in (
        ("none", "no such file"),
        ("a\0b", "not valid text"),
        ("bad\udcff", "not valid text"),
    ):
        with pytest.raises(InputError, match=says):
            paths.check_readable(tmp_path / name)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.R_OK)  # the tests may run as root
    with pytest.raises(InputError, match="file: permission denied"):
        paths.check_readable(tmp_path / "file")


# --- plugins ---


def test_the_plugins_that_ship_and_what_each_needs() -> None:
    assert plugins.names("sinks") == ["jsonl", "video", "zmq"]
    assert {"onnxruntime", "tensorrt"} <= set(plugins.names("backends"))
    assert not [name for name in plugins.names("sources") if name.startswith("_")]


@pytest.mark.parametrize(
    ("missing", "hint"),
    [("av", "pip install 'edgeinfer[rtsp]'"), ("onnxruntime", "pip install 'edgeinfer[cpu]'"), ("x", "install x into")],
)
def test_a_plugin_whose_library_is_missing(monkeypatch: pytest.MonkeyPatch, missing: str, hint: str) -> None:
    def fail(name: str) -> Any:
        raise ModuleNotFoundError("no", name=missing)

    names = plugins.names("sources")
    monkeypatch.setattr(plugins, "names", lambda kind: names)
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(
        UnavailableError, match=rf"^p: source 'demo' needs '{missing}', which is not installed; "
    ) as found:
        plugins.load("sources", "demo", "p")
    assert hint in found.value.hint


def test_a_plugin_whose_library_is_broken_or_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise ImportError("libx.so: no")

    with pytest.raises(ConfigError, match=r"json\.decoder is not a source; a plugin module has an Options struct"):
        plugins.load("sources", "json.decoder")
    with pytest.raises(ConfigError, match=r"p: no module called 'no.such' for a source; is it on PYTHONPATH"):
        plugins.load("sources", "no.such", "p")
    names = plugins.names("sources")
    monkeypatch.setattr(plugins, "names", lambda kind: names)
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(UnavailableError, match=r"source 'demo' can't be loaded: libx\.so: no; install it again"):
        plugins.load("sources", "demo")


@pytest.mark.slow
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    ),
    st.sampled_from([".".join(path) for path, _ in leaves(FULL)]),
)
def test_any_value_anywhere_loads_or_fails_cleanly(value: Any, key: str) -> None:
    base = [(top, yaml.safe_load(yaml.safe_dump(table))) for top, table in FULL.items()]
    failure: EdgeinferError | None = None
    try:
        load_config(None, [*base, (key, value)])
    except EdgeinferError as error:
        failure = error
    assert failure is None or failure.exit_code in {66, 69, 78}
    assert "\n" not in str(failure)


# --- names ---


def patterns(kind: Any) -> set[str]:
    """Every pattern in a type of msgspec's and in what it is made of."""
    found = {kind.pattern} if getattr(kind, "pattern", None) else set()
    fields = [field.type for field in getattr(kind, "fields", ())]
    inner = [getattr(kind, name, None) for name in ("type", "key_type", "value_type", "item_type")]
    parts = [*fields, *inner, *getattr(kind, "types", ()), *getattr(kind, "item_types", ())]
    return found.union(*(patterns(part) for part in parts if isinstance(part, types.Type)))


def test_no_pattern_of_a_setting_overlooks_a_line_feed_at_the_end() -> None:
    """`$` is also before one, and msgspec searches."""
    modules = [plugins.load("sources", name) for name in ("v4l2", "video", "images", "rtsp", "gst", "csi", "demo")]
    structs = [settings._File, ModelCard, *(module.Options for module in modules), zmq.Options, jsonl.Options]
    found = set().union(*(patterns(types.type_info(struct)) for struct in structs))
    assert len(found) >= 4
    for pattern in found:
        good = next(text for text in ("front", "a" * 64, "MJPG") if re.search(pattern, text))
        assert not re.search(pattern, f"{good}\n")
        assert not re.search(pattern, f"{good}\nx")


@pytest.mark.parametrize(
    "name", ["front\n", "\nfront", "fr\nont", "front\r", "front\u2028", "front ", "fr\u043ent", "-front", ""]
)
def test_a_sources_name_is_plain(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="sources"):
        load(tmp_path, {"sources": {name: "demo:"}})


@pytest.mark.parametrize(
    ("table", "isolated"),
    [
        ({"uri": "rtsp://cam/x"}, True),
        ({"uri": "http://cam/x"}, True),
        ({"uri": "rtsp://cam/x", "isolated": False}, False),
        ({"uri": "rtsp://cam/x", "decoder": "gstreamer"}, False),
        ({"uri": "rtsp://cam/x", "decoder": "gstreamer", "isolated": True}, False),
        ({"uri": "gst:videotestsrc", "isolated": True}, False),
        ({"uri": "csi://0"}, False),
        ({"uri": "demo:"}, False),
        ({"uri": "demo:", "isolated": True, "memory_mb": 64}, True),
        ({"uri": "clip.mp4"}, False),
    ],
)
def test_which_sources_have_a_process_of_their_own(table: dict[str, Any], isolated: bool) -> None:
    isolation = load_config(None, [("sources", {"cam": table})]).sources["cam"].isolation
    assert (isolation.isolated, isolation.memory_mb) == (isolated, table.get("memory_mb"))


@pytest.mark.parametrize(
    ("table", "hint"),
    [
        ({"uri": "demo:", "memory_mb": 64}, "isolated: true"),
        ({"uri": "rtsp://cam/x", "isolated": False, "memory_mb": 64}, "isolated: true"),
        ({"uri": "gst:videotestsrc", "memory_mb": 64}, "a bound of their own"),
    ],
)
def test_memory_of_a_process_that_there_is_not_is_refused(table: dict[str, Any], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint) as caught:
        load_config(None, [("sources", {"cam": table})])
    assert "sources.cam.memory_mb" in str(caught.value)
