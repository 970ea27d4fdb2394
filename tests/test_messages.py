"""The wire: what goes in comes out, any payload is safe to decode, and the published schema is current."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.messages import (
    KINDS,
    DetectionsMessage,
    Encoding,
    InfoMessage,
    Message,
    StatusMessage,
    decode,
    encode,
    json_schema,
    kind_of,
    topic,
)

SCHEMAS = Path(__file__).parent.parent / "docs" / "schema"


def example(kind: str, number: int = 0, text: str = "x") -> Message:
    base = {"kind": kind, "source": "front", "session": text, "t_publish_ns": number, "t_publish_mono_ns": number}
    extra = {
        "detections": {
            "seq": number,
            "frame_id": number,
            "t_capture_ns": number,
            "t_capture_mono_ns": number,
            "capture_clock": "driver",
            "width": 1280,
            "height": 720,
            "model": text,
            "backend": text,
            "timing_ms": {"queue": 0.4, "preprocess": 0.6, "infer": 9.8, "decode": 0.3, "total": 11.9},
            "dropped": number,
            "detections": [
                {"class_id": 0, "label": text, "score": 0.83, "box": [12.5, 40.0, 220.1, 701.9], "track_id": 7}
            ],
        },
        "status": {
            "state": "stalled",
            "reason": {"code": "timeout", "text": text},
            "captured": number,
            "inferred": number,
            "in_flight": 0,
            "dropped": 0,
            "dropped_by_reason": {"overload": number},
            "fps": 29.97,
        },
        "info": {
            "version": text,
            "host": text,
            "boot_id": text,
            "pid": 1,
            "t_start_ns": number,
            "model": {
                "id": "m@1",
                "name": "m",
                "sha256": text,
                "task": "detection",
                "input_size": [1, 2],
                "labels": [text],
            },
            "backend": None,
            "versions": {"edgeinfer": text},
            "sources": ["front"],
        },
    }
    return msgspec.convert({**base, **extra[kind]}, DetectionsMessage | StatusMessage | InfoMessage)


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
@given(kind=st.sampled_from(sorted(KINDS)), number=st.integers(0, 2**62), text=st.text(max_size=20))
def test_there_and_back(encoding: Encoding, kind: str, number: int, text: str) -> None:
    message = example(kind, number, text)
    assert decode(encode(message, encoding)) == message


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_both_encodings_carry_the_same_fields(kind: str) -> None:
    message = example(kind)
    plain = json.loads(encode(message))
    assert msgspec.msgpack.decode(encode(message, "msgpack")) == plain
    assert plain["v"] == 1
    assert plain["kind"] == kind_of(message) == kind


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_published_schema_is_current(kind: str) -> None:
    assert (SCHEMAS / f"{kind}.json").read_bytes() == json_schema(kind), "run scripts/generate"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_published_schema_is_true(kind: str) -> None:
    schema = json.loads((SCHEMAS / f"{kind}.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(json.loads(encode(example(kind))))
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({**json.loads(encode(example(kind))), "v": 2})


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_unknown_fields_are_ignored(kind: str) -> None:
    plain = json.loads(encode(example(kind)))
    assert decode(json.dumps({**plain, "later": [1]}).encode()) == example(kind)


@st.composite
def changed(draw: st.DrawFn) -> bytes:
    """A message of ours with a byte changed, or its end cut off."""
    data = bytearray(encode(example(draw(st.sampled_from(sorted(KINDS)))), draw(st.sampled_from(["json", "msgpack"]))))
    data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(len(data) - 2, len(data)))])


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda tail: b"{" + tail) | changed())
def test_any_payload_is_a_message_or_a_clean_error(payload: bytes) -> None:
    """What is taken for a message is one: it has a kind and survives the way there and back."""
    message: Message | None = None
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
        message = decode(payload)
    if message is not None:
        assert kind_of(message) in KINDS
        assert decode(encode(message, "msgpack")) == decode(encode(message)) == message


@pytest.mark.parametrize(
    "payload", [b"", b"{}", b"null", b"[]", b"\x80", b"\xc0", b'{"kind":"status"}', b'{"kind":"other","v":1}']
)
def test_what_is_no_message(payload: bytes) -> None:
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
        decode(payload)


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_field_but_those_with_a_default_is_needed(kind: str, encoding: Encoding) -> None:
    whole = json.loads(encode(example(kind)))
    pack = msgspec.json.encode if encoding == "json" else msgspec.msgpack.encode
    optional = {field.encode_name for field in msgspec.structs.fields(KINDS[kind]) if not field.required}
    for name in whole.keys() - optional - {"v"}:
        with pytest.raises(msgspec.ValidationError):
            decode(pack({key: value for key, value in whole.items() if key != name}))
    for name in optional & whole.keys():
        decode(pack({key: value for key, value in whole.items() if key != name}))


def test_topics_do_not_catch_each_other() -> None:
    assert topic("detections", "cam1") == b"edgeinfer/1/detections/cam1/"
    assert not topic("detections", "cam10").startswith(topic("detections", "cam1"))
    assert topic("detections", "cam1").startswith(topic("detections"))
