"""Configuration: every file in configs/ loads, and everything wrong gets one line with its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.config.settings import load_config, parse_override
from edgeinfer.errors import ConfigError, EdgeinferError, InputError

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
