"""Inputs from outside, at random: whatever comes, there is an answer or an EdgeinferError of one line, and no hang.

The normal run takes a few dozen examples each; `scripts/fuzz` as many as it is told, from a seed.
"""

from __future__ import annotations

import io
import os
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeinfer.client import Subscriber
from edgeinfer.commands.listen import describe, raw_line
from edgeinfer.config.card import load_card
from edgeinfer.config.overrides import parse_override
from edgeinfer.config.settings import load_config
from edgeinfer.config.uri import parse_uri
from edgeinfer.engine.store.plan import parse_header
from edgeinfer.errors import EdgeinferError
from edgeinfer.guard import redaction
from edgeinfer.guard.redaction import redact
from edgeinfer.interfaces import UnreadableItem
from edgeinfer.messages import decode, encode
from edgeinfer.models.onnxfile import check_external, read_model
from edgeinfer.sinks.zmq import Curve, Options, ZmqPublisher
from edgeinfer.sinks.zmq import open as open_publisher
from edgeinfer.sources import images
from edgeinfer.transport import keys
from edgeinfer.transport.endpoint import check_endpoint
from edgeinfer.web.request import Answer
from edgeinfer.web.server import Server, parse_bind
from edgeinfer.web.site.server import Site
from tests.engine.plans import make_plan
from tests.test_messages import example
from tests.test_zmq import Peer, serve_until
from tests.web.serving import ask, serving

EXAMPLES = int(os.environ.get("EDGEINFER_FUZZ_EXAMPLES", "0"))
"""Of each kind of input; 0 is the short form."""


def fuzz(share: float = 1.0, short: int = 30, seconds: int = 60) -> settings:
    """How many examples this test takes. `share`: of those asked for, where one costs more than most."""
    return settings(
        max_examples=max(1, round(EXAMPLES * share)) if EXAMPLES else short,
        deadline=seconds * 1000,  # for one input: what takes longer hangs
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def answered() -> Iterator[None]:
    """It goes well, or there is an error of ours in one line that can be shown."""
    text = ""
    try:
        yield
    except (EdgeinferError, UnreadableItem) as error:
        text = str(error)
    assert "\n" not in text
    assert len(text.encode()) < 10_000


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, 6))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))])


# --- configuration ---

words = st.sampled_from(
    ["model", "backend", "sources", "publish", "sinks", "frames", "http", "uri", "max_fps", "bind", "curve", "path",
     "name", "demo:", "nanodet-g", "onnxruntime", "tcp://127.0.0.1:5555", "rtsp://u:p@h/x", "0", "jsonl", "zmq"]
)  # fmt: skip
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | words
tables = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | st.text(max_size=8), inner, max_size=5)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def config_is_taken_or_refused(folder: Path, text: bytes) -> None:
    path = folder / "c.yaml"
    path.write_bytes(text)
    with answered():
        load_config(path)


@given(tables)
@fuzz()
def test_config_of_any_shape(folder: Path, table: object) -> None:
    config_is_taken_or_refused(folder, yaml.safe_dump(table).encode())


@given(st.binary(max_size=300) | st.text(alphabet="{}[]:,&*!|>-'\"#% \n\tab01", max_size=120).map(str.encode))
@fuzz()
def test_config_of_any_bytes(folder: Path, text: bytes) -> None:
    config_is_taken_or_refused(folder, text)


@given(st.text(max_size=60))
@fuzz()
def test_overrides(text: str) -> None:
    with answered():
        load_config(None, [parse_override(text)])


@given(tables)
@fuzz(0.5)
def test_model_cards(folder: Path, table: object) -> None:
    path = folder / "card.yaml"
    path.write_text(yaml.safe_dump(table))
    with answered():
        load_card(path)


# --- addresses ---

hosts = st.sampled_from(["127.0.0.1", "[::1]", "*", "192.0.2.1", "localhost", "cam", "[::]", "a b", "ÿ", ""])
ports = st.integers(-1, 99999).map(str) | st.sampled_from(["*", "", "x"])
endpoints = st.text(max_size=40) | st.builds(
    "{}{}:{}".format, st.sampled_from(["tcp://", "ipc://", "", "x:"]), hosts, ports
)


@given(endpoints)
@fuzz()
def test_endpoints(text: str) -> None:
    for check in (lambda: check_endpoint(text, secured=False), lambda: parse_bind(text, insecure=False)):
        with answered():
            check()


secrets = st.text(st.characters(exclude_categories=("Cs", "Cc", "Z")), min_size=4, max_size=20).map(lambda t: f"S3{t}Q")
schemes = st.sampled_from(["rtsp", "rtsps", "http", "https", "RTSP", "tcp"])


@given(schemes, secrets, secrets, st.text("/?&=abc:", max_size=20), st.text(max_size=20))
@fuzz()
def test_credentials_in_urls_are_not_shown(scheme: str, user: str, password: str, tail: str, around: str) -> None:
    redaction._known = {}  # what another example has told would hide parts of this one, in another way
    url = f"{scheme}://{user}:{password}@camera.example/{tail}"
    for text in (url, f"{around} {url} {around}", f"can't open '{url}'", repr(url)):
        shown = redact(text)
        assert password not in shown.replace("***", "")
        assert user not in shown.replace("***", "")
    told: object
    try:
        told = parse_uri(url)
    except EdgeinferError as error:
        told = error
    assert password not in f"{told} {told!r}"


@given(st.text(max_size=80) | st.builds("{}:{}".format, words, st.text(max_size=30)))
@fuzz()
def test_source_uris(text: str) -> None:
    with answered():
        assert parse_uri(text).plugin


# --- peers ---

kinds = st.sampled_from(["info", "status", "detections"]).map(example)


@st.composite
def damaged_messages(draw: st.DrawFn) -> bytes:
    """A real message with some bytes changed, cut or added."""
    data = bytearray(encode(draw(kinds), draw(st.sampled_from(["json", "msgpack"]))))
    for _ in range(draw(st.integers(0, 4))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data[: draw(st.integers(0, len(data)))]) + draw(st.binary(max_size=8))


nested = st.builds(
    lambda open_, depth: open_ * depth, st.sampled_from([b"[", b'{"a":', b"\x91", b"\x81\xa1a"]), st.integers(1, 20_000)
)
ODD = [b"\x81\x91\x01\x02", b"\x92\xd6\0\0\0\0\0\0", encode(example("status"))[:-1] + b',"x":' + b"[" * 9999]
"""A list as a key; an extension type; a message with an unknown field that is nested too deep."""


@given(st.binary(max_size=200) | damaged_messages() | nested | st.sampled_from(ODD))
@fuzz()
def test_messages_from_peers(payload: bytes) -> None:
    with suppress(msgspec.MsgspecError, UnicodeDecodeError):
        message = decode(payload)
        assert "\x1b" not in describe(message)
    with suppress(msgspec.MsgspecError, UnicodeDecodeError):
        raw_line(payload)


@given(st.lists(st.binary(max_size=60) | damaged_messages(), min_size=1, max_size=4))
@fuzz(0.1, short=20)
def test_messages_from_peers_over_a_socket(wire: tuple[Any, Subscriber], parts: list[bytes]) -> None:
    peer, subscriber = wire
    peer.send_multipart([b"edgeinfer/1/detections/x/", *parts[1:]])
    peer.send_multipart([b"edgeinfer/1/detections/x/", encode(example("detections"))])
    deadline = time.monotonic() + 20
    while subscriber.receive(0.05) is None:
        assert time.monotonic() < deadline


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Subscriber]]:
    """A publisher of anything, and a subscriber to it that is connected."""
    import zmq  # noqa: PLC0415 (the fixture alone speaks it)

    endpoint = f"ipc://{tmp_path_factory.mktemp('wire')}/s"
    with zmq.Context() as context, context.socket(zmq.PUB) as peer, Subscriber(endpoint) as subscriber:
        peer.setsockopt(zmq.LINGER, 0)
        peer.bind(endpoint)
        end = time.monotonic() + 20
        while subscriber.receive(0.05) is None and time.monotonic() < end:
            peer.send_multipart([b"edgeinfer/1/detections/x/", encode(example("detections"))])
        yield peer, subscriber


@pytest.fixture(scope="module")
def publisher() -> Iterator[ZmqPublisher]:
    sink = open_publisher(Options(bind="tcp://127.0.0.1:*"))
    sink.write(example("info"), None)
    yield sink
    sink.close()


frames = st.builds(
    lambda flags, size, body: bytes([flags]) + (struct.pack(">Q", size) if flags & 2 else bytes([size % 256])) + body,
    st.integers(0, 255), st.integers(0, 2**64 - 1), st.binary(max_size=60),
)  # fmt: skip


@pytest.mark.slow
@given(st.binary(max_size=400), st.lists(frames, max_size=5), st.booleans())
@fuzz(0.005, short=8)
def test_bytes_on_the_publishers_port(
    publisher: ZmqPublisher, start: bytes, rest: list[bytes], handshake: bool
) -> None:
    peer = Peer(publisher.endpoint).socket if handshake else connect(int(publisher.endpoint.rpartition(":")[2]))
    with peer, suppress(OSError):
        peer.sendall(b"".join(rest) if handshake else start)
    with Subscriber(publisher.endpoint, kinds=("info",)) as subscriber:  # beside and after that it serves others
        serve_until(publisher, lambda: subscriber.receive(0) is not None, "info")
    serve_until(publisher, lambda: publisher.subscribers == 0, "the end of all of them")


GREETING = b"\xff" + bytes(8) + b"\x7f\3\1" + b"CURVE".ljust(20, b"\0") + bytes(32)
HELLO = b"\5HELLO\1\0" + bytes(72) + bytes(range(32)) + bytes(8) + bytes(80)
"""The beginning of CurveZMQ (ZeroMQ RFC 26), up to where a client that has no key is found out."""


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ZmqPublisher, Path]]:
    """A publisher with CURVE, and the folder that holds the keys of one client."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("server", "client"):
        keys.write_pair(keys.generate(), folder / name)
    keys.allow(folder / "allowed", keys.read_public(str(folder / "client.pub")))
    curve = Curve(secret_key=str(folder / "server.key"), allow=str(folder / "allowed"))
    sink = open_publisher(Options(bind="tcp://127.0.0.1:*", curve=curve))
    sink.write(example("info"), None)
    yield sink, folder
    sink.close()


@pytest.mark.slow
@given(
    st.deferred(lambda: damaged(GREETING + bytes([4, len(HELLO)]) + HELLO))
    | st.lists(frames, max_size=4).map(lambda parts: GREETING + b"".join(parts))
)
@fuzz(0.005, short=6)
def test_greetings_of_strangers_with_keys(secured: tuple[ZmqPublisher, Path], start: bytes) -> None:
    publisher, folder = secured
    with connect(int(publisher.endpoint.rpartition(":")[2])) as peer, suppress(OSError):
        peer.sendall(start)
    server, ours = folder / "server.pub", folder / "client.key"
    with Subscriber(publisher.endpoint, kinds=("info",), server_key=server, key=ours) as subscriber:
        serve_until(publisher, lambda: subscriber.receive(0) is not None, "info")
    serve_until(publisher, lambda: publisher.subscribers == 0, "the end of all of them")


def connect(port: int) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", port), timeout=10)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


@pytest.fixture(scope="module")
def web() -> Iterator[Server]:
    server = Server("127.0.0.1", 0, {"/healthz": lambda _: Answer(200, b"{}")})
    server.start()
    yield server
    server.stop()


lines = st.binary(max_size=80) | st.sampled_from([b"GET /healthz HTTP/1.0", b"Host: x", b"HEAD / HTTP/1.1", b""])


@given(st.lists(lines, max_size=6))
@fuzz(0.1, short=25)
def test_bytes_on_the_http_port(web: Server, parts: list[bytes]) -> None:
    with connect(web.port) as peer, suppress(OSError):
        peer.sendall(b"\r\n".join(parts) + b"\r\n\r\n")
        peer.shutdown(socket.SHUT_WR)
        answer = b""
        while block := peer.recv(4096):
            answer += block
        first = b"\r\n".join(parts).partition(b"\n")[0].decode("iso-8859-1")
        assert answer.startswith(b"HTTP/1.0 ") or not first.split(), "only where nothing was asked there is no answer"


@pytest.fixture(scope="module")
def page() -> Iterator[Site]:
    with serving() as site:
        yield site


@given(
    st.lists(lines | st.sampled_from([b"Upgrade: websocket", b"Connection: Upgrade", b"Content-Length: 9"]), max_size=8)
)
@fuzz(0.1, short=25)
def test_bytes_on_the_port_of_the_page(page: Site, parts: list[bytes]) -> None:
    with connect(page.port) as peer, suppress(OSError):
        peer.sendall(b"\r\n".join(parts) + b"\r\n\r\n")
        peer.shutdown(socket.SHUT_WR)
        answer = b""
        while block := peer.recv(4096):
            answer += block
        assert answer == b"" or answer.startswith(b"HTTP/1.1 ")
    assert ask(page, "/healthz").status == 200


# --- files ---


plans = st.builds(make_plan, st.tuples(*[st.integers(0, 255)] * 4), st.binary(max_size=60))


@given(st.binary(max_size=200) | plans.flatmap(damaged))
@fuzz()
def test_plan_files(data: bytes) -> None:
    with answered():
        header = parse_header(io.BytesIO(data), len(data), "x.plan")
        assert header.size <= len(data)


def a_network() -> bytes:
    from tests.engine.test_onnxfile import _network  # noqa: PLC0415 (needs onnx, which is optional)

    return bytes(_network(pytest.importorskip("onnx")).SerializeToString())


@given(st.binary(max_size=300) | st.deferred(lambda: damaged(a_network())))
@fuzz()
def test_networks(folder: Path, data: bytes) -> None:
    path = folder / "m.onnx"
    path.write_bytes(data)
    for look in (read_model, check_external):
        with answered():
            look(path)


def encoded(suffix: str) -> bytes:
    picture = np.arange(12 * 16 * 3, dtype=np.uint8).reshape(12, 16, 3)
    return bytes(cv2.imencode(suffix, picture)[1])


PICTURES = {suffix: encoded(suffix) for suffix in (".png", ".jpg", ".bmp", ".webp", ".tiff")}


@st.composite
def pictures(draw: st.DrawFn) -> bytes:
    """A picture with a damaged header; of a PNG also with the sum over it put right again."""
    data = bytearray(PICTURES[draw(st.sampled_from(sorted(PICTURES)))])
    for _ in range(draw(st.integers(1, 4))):
        data[draw(st.integers(0, min(48, len(data) - 1)))] = draw(st.integers(0, 255))
    if data[:4] == b"\x89PNG" and draw(st.booleans()):
        data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


@given(st.binary(max_size=100) | pictures())
@fuzz(0.3)
def test_image_headers(folder: Path, data: bytes) -> None:
    path = folder / "x.png"
    path.write_bytes(data)
    source = images.open(str(path), images.Options())
    with answered():
        capture = source.read()
        assert capture is not None
        assert capture.image.dtype == np.uint8
        assert capture.image.ndim == 3


@given(st.binary(max_size=120) | st.text(max_size=60).map(lambda t: f"{'a' * 40} {t}\n".encode()))
@fuzz()
def test_key_files(folder: Path, data: bytes) -> None:
    path = folder / "x.key"
    path.write_bytes(data)
    path.chmod(0o600)
    for read in (keys.read_list, keys.read_pair, lambda p: keys.read_public(str(p))):
        with answered():
            read(path)
