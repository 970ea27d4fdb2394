"""Tensors wherever ONNX may hold one, and bytes that two readers would not read alike."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeinfer.config.card import MODELS, load_model
from edgeinfer.errors import InputError
from edgeinfer.guard.limits import MAX_EXTERNAL_BYTES, MAX_EXTERNAL_FILES, MAX_ONNX_FIELDS
from edgeinfer.models import walk
from edgeinfer.models.onnxfile import check_external, identify, read_model, unchanged
from edgeinfer.models.schema import FIELDS
from tests.engine.test_wire import encoded, varint

onnx = pytest.importorskip("onnx")

LOOKS = (check_external, identify, read_model)


def held(descriptor: Any) -> dict[int, Any]:
    """The messages that a message may hold, by field number."""
    return {field.number: field.message_type for field in descriptor.fields if field.message_type is not None}


def paths(descriptor: Any, seen: tuple[str, ...] = ()) -> Iterator[tuple[int, ...]]:
    """Every way to a tensor, in field numbers, that goes through each kind of message once; through graphs twice."""
    if descriptor.name == "TensorProto":
        yield ()
    elif seen.count(descriptor.name) < 2:
        for number, inner in held(descriptor).items():
            if inner.name not in seen or inner.name == "GraphProto":
                for rest in paths(inner, (*seen, descriptor.name)):
                    yield (number, *rest)


def model_with(path: tuple[int, ...], tensor: bytes) -> bytes:
    """A model in which `tensor` lies at the end of `path`, and nothing else."""
    for number in reversed(path):
        tensor = encoded([(number, tensor)])
    return tensor


def external(location: bytes | str, *entries: tuple[str, str]) -> bytes:
    """A tensor whose bytes lie elsewhere."""
    raw = location.encode() if isinstance(location, str) else location
    pairs = [(b"location", raw), *((key.encode(), value.encode()) for key, value in entries)]
    return encoded([(2, 2), (1, 4), (14, 1), *((13, encoded([(1, key), (2, value)])) for key, value in pairs)])


def initializer(tensor: bytes) -> bytes:
    """A model with an input, an output and this tensor."""
    value = encoded([(1, b"x"), (2, encoded([(1, encoded([(1, 1)]))]))])
    return encoded([(7, encoded([(5, tensor), (11, value), (12, value)]))])


def test_a_tensor_is_found_on_every_way_that_onnx_allows(tmp_path: Path) -> None:
    path, found = tmp_path / "m.onnx", set(paths(onnx.ModelProto.DESCRIPTOR))
    assert {(7, 5), (25, 11, 5), (7, 1, 5, 6, 5), (25, 7, 5, 22, 2), (7, 15, 1)} <= found
    for way in found:
        path.write_bytes(model_with(way, external("../secret")))
        with pytest.raises(InputError, match="outside the model's folder"):
            check_external(path)
        path.write_bytes(model_with(way, encoded([(2, 1), (9, b"1234")])))
        check_external(path)


def test_every_field_of_the_standard_is_known() -> None:
    """Where the library has a newer standard than ours it is time to look what it brings."""
    waiting, seen = [onnx.ModelProto.DESCRIPTOR], set()
    while waiting:
        descriptor = waiting.pop()
        if descriptor.name in seen or descriptor.name not in FIELDS:
            continue
        seen.add(descriptor.name)
        ours = FIELDS[descriptor.name]
        assert {field.number for field in descriptor.fields} <= set(ours) | {20}, descriptor.name
        messages = {number: inner.name for number, inner in held(descriptor).items()}
        waiting += held(descriptor).values()
        for number, inner in messages.items():
            assert ours[number] in {inner, ""}, (descriptor.name, number)
    assert seen == set(FIELDS)


@pytest.mark.parametrize("way", [(7, 77), (77,), (7, 1, 5, 77), (25, 77), (7, 5, 77)])
def test_a_field_that_is_not_known_yet_may_not_name_a_file(tmp_path: Path, way: tuple[int, ...]) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model_with(way, encoded([(3, external("w.bin"))])))
    with pytest.raises(InputError, match=r"field 77 of a .* is newer than this edgeinfer"):
        check_external(path)
    path.write_bytes(model_with(way, encoded([(3, b"harmless")])))
    check_external(path)


@pytest.mark.parametrize(
    ("location", "says"),
    [
        (b"", "is no name"),
        (b"w.bin\0.png", "is no name"),
        (b"..\\secret", "is no name"),
        (b"w\n.bin", "is no name"),
        (b"*/_ORT_MEM_ADDR_/*", "is no name"),
        (b"x" * 2000, "is no name"),
        (b"\xff", "is no text"),
        (b"./..", "outside the model's folder"),
        (b"./../secret", "outside the model's folder"),
        (b"/proc/self/environ", "outside the model's folder"),
        (b"//etc/passwd", "outside the model's folder"),
        (b".", "is no regular file"),
        (b"socket", "is no regular file"),
        (b"below/w.bin/", "bytes, and the network wants"),
    ],
)
@pytest.mark.parametrize("look", LOOKS)
def test_names_that_are_none(tmp_path: Path, location: bytes, says: str, look: Any) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "w.bin").write_bytes(b"1234")
    os.mkfifo(tmp_path / "socket")
    (tmp_path / "m.onnx").write_bytes(initializer(external(location, ("length", "5"))))
    with pytest.raises(InputError, match=says):
        look(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([("offset", "1"), ("length", "4")], "has 4 bytes, and the network wants 5"),
        ([("offset", "5")], "has 4 bytes, and the network wants 5"),
        ([("offset", "-1")], "is no number"),
        ([("length", "-1")], "is no number"),
        ([("length", "9" * 30)], "is no number"),
        ([("length", "0x4")], "is no number"),
        ([("length", " 4")], "is no number"),
        ([("length", "")], "is no number"),
        ([("length", "4"), ("length", "5")], "'length' given twice"),
        ([("location", "w.bin")], "names two external files"),
    ],
)
@pytest.mark.parametrize("look", LOOKS)
def test_places_that_are_none(tmp_path: Path, entries: list[tuple[str, str]], says: str, look: Any) -> None:
    (tmp_path / "w.bin").write_bytes(b"1234")
    (tmp_path / "m.onnx").write_bytes(initializer(external("w.bin", *entries)))
    with pytest.raises(InputError, match=says):
        look(tmp_path / "m.onnx")


ENTRY = encoded([(1, b"location"), (2, b"../secret")])


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        # A number of fixed width in the field of the name: others pass it over, and find the name before it.
        (encoded([(2, 2), (13, ENTRY + varint(2 << 3 | 1) + b"w.bin\0\0\0")]), "outside"),
        (encoded([(2, 2), (13, varint(1 << 3 | 1) + b"harmless" + ENTRY)]), "outside"),
        # A tag of more than 32 bits: others cut it down, and find field 13.
        (
            encoded([(2, 2)]) + varint((13 << 3 | 2) + (1 << 32)) + varint(len(ENTRY)) + ENTRY,
            "a field without a number",
        ),
        (encoded([(2, 2)]) + b"\0\0" + encoded([(13, ENTRY)]), "a field without a number"),
        (encoded([(2, 2), (14, 1)]), "nothing says where"),
        (encoded([(2, 2), (14, 1), (14, 0), (13, ENTRY)]), "written twice"),
        (encoded([(13, encoded([(1, b"location"), (2, b"w.bin"), (2, b"../secret")]))]), "written twice"),
        (encoded([(13, encoded([(1, b"offset"), (2, b"0")]))]), "nothing says where"),
    ],
)
def test_bytes_that_two_readers_read_in_two_ways(tmp_path: Path, tensor: bytes, says: str) -> None:
    (tmp_path / "w.bin").write_bytes(b"1234")
    (tmp_path / "m.onnx").write_bytes(initializer(tensor))
    for look in LOOKS:
        with pytest.raises(InputError, match=says):
            look(tmp_path / "m.onnx")


@pytest.mark.parametrize("number", [5, 6, 22])
def test_what_an_attribute_has_once_is_not_written_twice(tmp_path: Path, number: int) -> None:
    attribute = encoded([(number, b""), (number, b"")])
    (tmp_path / "m.onnx").write_bytes(model_with((7, 1, 5), attribute))
    with pytest.raises(InputError, match=f"field {number} of a AttributeProto is written twice"):
        check_external(tmp_path / "m.onnx")


def test_two_graphs_are_none(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(initializer(b"") + initializer(external("../secret")))
    with pytest.raises(InputError, match="field 7 of a ModelProto is written twice"):
        check_external(tmp_path / "m.onnx")


@pytest.mark.parametrize("way", [(7, 1), (25, 7), (7, 1, 5, 6, 1)])
def test_compiled_parts_are_refused(tmp_path: Path, way: tuple[int, ...]) -> None:
    """ONNX Runtime's TensorRT provider loads a plan, which is native code, from the file that such a node names."""
    (tmp_path / "m.onnx").write_bytes(model_with(way, encoded([(4, b"EPContext"), (7, b"com.microsoft")])))
    with pytest.raises(InputError, match="EPContext"):
        check_external(tmp_path / "m.onnx")


def test_onnx_runtimes_own_format_is_refused(tmp_path: Path) -> None:
    good = initializer(encoded([(2, 1), (9, b"1234")]))
    (tmp_path / "m.onnx").write_bytes(good)
    check_external(tmp_path / "m.onnx")
    (tmp_path / "m.ORT").write_bytes(good)
    (tmp_path / "n.onnx").write_bytes(encoded([(2, b"\x10\0ORTM")]) + good)
    for name in ("m.ORT", "n.onnx"):
        with pytest.raises(InputError, match="ONNX Runtime's own format"):
            check_external(tmp_path / name)


@pytest.mark.slow
def test_weights_that_never_end(tmp_path: Path) -> None:
    with (tmp_path / "w.bin").open("wb") as file:
        file.truncate(MAX_EXTERNAL_BYTES + 1)  # takes no room on the disk
    (tmp_path / "m.onnx").write_bytes(initializer(external("w.bin")))
    with pytest.raises(InputError, match="16 GiB of weights, and 16 are allowed"):
        identify(tmp_path / "m.onnx")
    many = encoded([(7, encoded([(5, external(f"{number}")) for number in range(MAX_EXTERNAL_FILES + 1)]))])
    (tmp_path / "m.onnx").write_bytes(many)
    with pytest.raises(InputError, match="weights in 4097 files"):
        identify(tmp_path / "m.onnx")


def test_a_network_of_endless_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walk, "MAX_ONNX_FIELDS", 1000)
    assert MAX_ONNX_FIELDS > 1000
    for model in (initializer(b"\x08\x01" * 1000), encoded([(7, encoded([(1, b"")]) * 1000)])):
        (tmp_path / "m.onnx").write_bytes(model)
        with pytest.raises(InputError, match="more than 1 000 fields"):
            check_external(tmp_path / "m.onnx")


# --- what a network is ---


def network(folder: Path, weights: bytes = b"1234", location: str = "w.bin") -> Path:
    """A network with weights beside it, and a card."""
    (folder / "w.bin").write_bytes(weights)
    (folder / "m.onnx").write_bytes(initializer(external(location, ("length", "4"))))
    vendored = (MODELS / "nanodet-g.yaml").read_text()
    lines = [line for line in vendored.splitlines() if not line.startswith(("sha256:", "file:"))]
    (folder / "m.yaml").write_text("\n".join([*lines, "file: m.onnx"]))
    return folder / "m.onnx"


def test_other_weights_are_another_model(tmp_path: Path) -> None:
    before = load_model(str(network(tmp_path)))
    after = load_model(str(network(tmp_path, b"1235")))
    assert before.id != after.id
    assert before != after
    assert load_model(str(network(tmp_path))) == before, "its files were written anew, with the same bytes"
    assert identify(network(tmp_path, location="./w.bin")).sha256 != before.sha256, "another file of the network itself"


def test_the_digest_of_a_network_with_weights_is_that_of_sha256sums_list(tmp_path: Path) -> None:
    import subprocess  # noqa: PLC0415 (here alone)

    path = network(tmp_path)
    command = "(sha256sum < m.onnx; sha256sum w.bin) | sha256sum"
    said = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)  # noqa: S607
    assert said.stdout.split()[0] == identify(path).sha256 == read_model(path).sha256


def test_files_that_change_while_they_are_loaded_are_noticed(tmp_path: Path) -> None:
    path = network(tmp_path)
    marks = identify(path).marks
    assert unchanged(marks)
    status = (tmp_path / "w.bin").stat()
    (tmp_path / "w.bin").write_bytes(b"1235")
    os.utime(tmp_path / "w.bin", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not unchanged(marks), "setting its time back does not help"
    (tmp_path / "w.bin").unlink()
    assert not unchanged(marks)
