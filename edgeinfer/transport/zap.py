"""libzmq's questions about who may come in, as messages (ZAP, ZeroMQ RFC 27)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zmq.utils import z85

_VERSION = b"1.0"


@dataclass(frozen=True, slots=True)
class Question:
    """`key` is the client's public key in Z85, empty without CURVE; `address` where it comes from."""

    envelope: tuple[bytes, ...]
    number: bytes
    domain: str
    address: str
    mechanism: str
    key: str


def read_question(frames: Sequence[bytes]) -> Question | None:
    """None for what is none."""
    if b"" not in frames:
        return None
    start = list(frames).index(b"") + 1
    if len(frames) < start + 6 or frames[start] != _VERSION:
        return None
    number, domain, address, _, mechanism, *credentials = frames[start + 1 :]
    key = ""
    if mechanism == b"CURVE":
        if not credentials or len(credentials[0]) != 32:
            return None
        key = z85.encode(credentials[0]).decode("ascii")
    return Question(tuple(frames[:start]), number, _text(domain), _text(address), _text(mechanism), key)


def answer(question: Question, status: str, user: str) -> list[bytes]:
    """The frames to send. `status` is 200 for those that may come in, 400 for others."""
    return [*question.envelope, _VERSION, question.number, status.encode(), b"", user.encode(), b""]


def _text(part: bytes) -> str:
    return part.decode("utf-8", "replace")
