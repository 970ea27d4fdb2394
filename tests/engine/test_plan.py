"""The header reader: real layouts, and nothing that makes it fail in an unplanned way."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeinfer.engine.errors import PlanError
from edgeinfer.engine.store.plan import PlanHeader, parse_header, read_header
from tests.engine.plans import make_plan

versions = st.tuples(*[st.integers(0, 255)] * 4)
# The first 36 bytes of a plan that TensorRT-RTX 1.7.1.116 wrote, with its size field set to 36.
RTX = bytes.fromhex("76747274000000000200000000000000240000000000000001070174747274767e000000")


def parse(data: bytes) -> PlanHeader:
    return parse_header(io.BytesIO(data), len(data), "x.plan")


@given(versions, st.binary(max_size=200))
def test_reads_the_version_that_was_written(version: tuple[int, int, int, int], body: bytes) -> None:
    plan = make_plan(version, body)
    header = parse(plan)
    assert (header.flavour, header.version, header.size, header.offset) == ("tensorrt", version, len(plan), 0)


def test_reads_a_real_rtx_header() -> None:
    header = parse(RTX)
    assert (header.flavour, header.version) == ("tensorrt_rtx", (1, 7, 1, 116))
    # 0x7e: everything but 7.5, and a bit (0x40) that has no known name.
    assert header.capabilities == ("8.0", "8.6", "8.9", "12.0", "12.1")


def test_a_plan_up_to_8_5_has_no_version_and_fits_any() -> None:
    header = parse(b"ptrt" + bytes(60))
    assert header.version is None
    assert header.built_by((8, 5, 2, 2))


@given(versions, st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=8), max_size=4))
def test_skips_the_metadata_in_front(version: tuple[int, int, int, int], metadata: dict[str, object]) -> None:
    text = json.dumps(metadata).encode()
    header = parse(struct.pack("<i", len(text)) + text + make_plan(version, b"body"))
    assert (header.version, dict(header.metadata), header.offset) == (version, metadata, 4 + len(text))


@given(versions, st.binary(min_size=1, max_size=50), st.data())
def test_refuses_every_truncation(version: tuple[int, int, int, int], body: bytes, data: st.DataObject) -> None:
    plan = make_plan(version, body)
    cut = data.draw(st.integers(0, len(plan) - 1))
    with pytest.raises(PlanError):
        parse(plan[:cut])


@given(versions, st.binary(min_size=1, max_size=9))
def test_refuses_appended_bytes(version: tuple[int, int, int, int], extra: bytes) -> None:
    with pytest.raises(PlanError, match="should hold"):
        parse(make_plan(version, b"") + extra)


@given(st.binary(max_size=100) | st.binary(max_size=60).map(lambda tail: b"\x20\0\0\0{" + tail))
def test_any_bytes_give_a_header_or_a_plan_error(data: bytes) -> None:
    try:
        header = parse(data)
    except PlanError:
        return
    assert data[header.offset : header.offset + 4] in {b"ptrt", b"ftrt", b"vtrt"}


def test_the_build_number_is_compared_modulo_256() -> None:
    header = parse(make_plan((10, 3, 0, 300 % 256), b""))
    assert header.built_by((10, 3, 0, 300))
    assert not header.built_by((10, 3, 0, 301))
    assert not header.built_by((10, 3, 1, 300))


def test_a_missing_file_is_a_plan_error(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"none\.plan: can't be read"):
        read_header(tmp_path / "none.plan")
