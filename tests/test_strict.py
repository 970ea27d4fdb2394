"""Plain data → structs: what is taken, what is refused, and in which words."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Struct

from edgeinfer.config.strict import convert, field_names, nearest, shown
from edgeinfer.errors import ConfigError


class Inner(Struct, frozen=True, kw_only=True):
    size: Annotated[int, Meta(ge=1, le=9)]
    mode: Literal["fast", "slow"] = "fast"


class Outer(Struct, frozen=True, kw_only=True, rename={"kind": "type"}):
    name: str
    inner: Inner | str | None = None
    many: dict[Annotated[str, Meta(pattern="^[a-z]+$")], Inner] = {}
    kind: str = "x"


GOOD = {"name": "n", "inner": {"size": 3, "mode": "slow"}, "many": {"a": {"size": 1}, "b": {"size": 9}}, "type": "y"}


def test_what_fits_is_taken() -> None:
    assert convert(GOOD, Outer) == Outer(
        name="n", inner=Inner(size=3, mode="slow"), many={"a": Inner(size=1), "b": Inner(size=9)}, kind="y"
    )
    assert convert({"name": "n", "inner": "short"}, Outer).inner == "short"
    assert convert({"name": "n"}, Outer) == Outer(name="n")
    assert field_names(Outer) == ("name", "inner", "many", "type")


@pytest.mark.parametrize(
    ("value", "message", "hint"),
    [
        ([], "config: [] is not allowed: expected keys with values", "one of: name, inner, many, type"),
        ({}, "name: missing, and there is no default", ""),
        ({"name": 3}, "name: 3 is not allowed: expected `str`, got `int`", ""),
        ({"name": "n", "nam": 1}, "nam: unknown key", "did you mean name?"),
        ({"name": "n", "zzz": 1}, "zzz: unknown key", "one of: inner, many, name, type"),
        ({"name": "n", "kind": "y"}, "kind: unknown key", "one of: inner, many, name, type"),
        ({"name": "n", 5: 1}, "5: unknown key", "one of: inner, many, name, type"),
        ({"name": "n", "inner": {}}, "inner.size: missing, and there is no default", ""),
        ({"name": "n", "inner": {"size": 1, "mod": 1}}, "inner.mod: unknown key", "did you mean mode?"),
        ({"name": "n", "inner": {"size": 0}}, "inner.size: 0 is not allowed: expected `int` >= 1", ""),
        ({"name": "n", "inner": {"size": True}}, "inner.size: True is not allowed: expected `int`, got `bool`", ""),
        ({"name": "n", "inner": {"size": 2.5}}, "inner.size: 2.5 is not allowed: expected `int`, got `float`", ""),
        ({"name": "n", "inner": {"size": "3"}}, "inner.size: '3' is not allowed: expected `int`, got `str`", ""),
        ({"name": "n", "many": {"a": {"size": 10}}}, "many.a.size: 10 is not allowed: expected `int` <= 9", ""),
        ({"name": "n", "many": {"A": {"size": 1}}}, "many.A: 'A' is not allowed", ""),
        ({"name": "n", "many": {"a": 3}}, "many.a: 3 is not allowed: expected keys with values", "one of: size, mode"),
    ],
)
def test_what_does_not_is_refused_with_its_path(value: Any, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        convert(value, Outer)
    assert caught.value.message.startswith(message)
    assert caught.value.hint == hint
    if "name" not in message:
        with pytest.raises(ConfigError) as caught:
            convert(value, Outer, "top")
        assert caught.value.message.startswith(f"top.{message}".replace("top.config", "top"))


def test_the_nearest_name() -> None:
    assert nearest("scroe", ["iou", "score", "path"]) == "did you mean score?"
    assert nearest("zzz", ["iou", "path", "a"]) == "one of: a, iou, path"
    assert nearest("zzz", []) == ""


@pytest.mark.parametrize(
    "key", ["pass", "password", "PassWord", "pwd", "token", "client_secret", "credentials", "api_key", "apikey"]
)
def test_the_value_of_a_secret_key_is_not_shown(key: str) -> None:
    for path in (key, f"backend.{key}", f"a.b.my_{key}"):
        assert shown(path, "hunter2") == shown(path, ["hunter2"]) == "***"
    assert shown(f"{key}.width", "plain") == "'plain'", "the last part of the path counts"


def test_a_value_is_shown_short_and_without_credentials() -> None:
    assert shown("uri", "rtsp://u:secret@h/x") == "'rtsp://***@h/x'"
    assert shown("uri", ["rtsp://u:secret@h/x"]) == "a list", "of what holds others nothing is shown"
    assert shown("uri", {"a": "b"}) == "a mapping"
    assert len(shown("x", "y" * 1000)) <= 62
    assert shown("x", 10**5000) == "a number"
    assert shown("uri", "rtsp://u:" + "s3cret" * 30 + "@h/x") == "'rtsp://***@h/x'", "it goes before the text is cut"


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 12) | st.floats(allow_nan=False) | st.sampled_from(["fast", "a", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "inner", "many", "type", "size", "mode", "a"]), inner, max_size=4)
    ),
)


@pytest.mark.slow
@given(plain)
def test_whatever_is_taken_says_what_was_given(value: Any) -> None:
    """No silent change: what comes out holds each value that went in, of the same type."""
    try:
        found = convert(value, Outer)
    except ConfigError:
        return
    assert found.name == value["name"]
    assert found.kind == value.get("type", "x")
    assert set(found.many) == set(value.get("many", {}))
    for name, inner in found.many.items():
        assert type(inner.size) is type(value["many"][name]["size"]) is int
        assert 1 <= inner.size == value["many"][name]["size"] <= 9
