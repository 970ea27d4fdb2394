"""Errors on their way from one process to another: as plain data, and as what they were."""

from __future__ import annotations

from typing import Any

from edgeinfer.codes import SOURCE_REASONS
from edgeinfer.errors import (
    CameraError,
    ConfigError,
    EdgeinferError,
    InputError,
    StalledError,
    TemporaryError,
    UnavailableError,
)
from edgeinfer.interfaces import UnreadableItem
from edgeinfer.isolation.talk import Nonsense

MAX_TEXT = 2100
"""Characters; errors are cut to 2000 anyway."""
KINDS: dict[str, type[EdgeinferError]] = {
    kind.__name__: kind
    for kind in (ConfigError, InputError, StalledError, TemporaryError, UnavailableError, EdgeinferError)
}
"""What a source may raise, see `Source`; anything else is a bug of it."""


def to_plain(error: BaseException) -> dict[str, Any]:
    """An error as JSON can say it. What is no error of ours is told by its type and text."""
    if isinstance(error, UnreadableItem):
        return {"error": "UnreadableItem", "message": str(error)[:MAX_TEXT]}
    if isinstance(error, CameraError):
        return {**_texts("CameraError", error), "code": error.code[:MAX_TEXT], "lasting": error.lasting}
    if isinstance(error, MemoryError):
        return {"error": "MemoryError"}
    if isinstance(error, EdgeinferError):
        kind = next(name for name, kind in KINDS.items() if isinstance(error, kind))
        return _texts(kind, error)
    return {"error": "EdgeinferError", "message": f"{type(error).__name__}: {error}"[:MAX_TEXT]}


def _texts(kind: str, error: EdgeinferError) -> dict[str, Any]:
    return {"error": kind, "message": error.message[:MAX_TEXT], "hint": error.hint[:MAX_TEXT]}


def from_plain(answer: dict[str, Any], what: str) -> Exception:
    """The error that an answer tells of; `what` is the source, for those that have no text. Raises Nonsense."""
    kind, message, hint = (_text(answer, key) for key in ("error", "message", "hint"))
    if kind == "MemoryError":
        return too_large(what)
    if kind == "UnreadableItem":
        return UnreadableItem(message)
    if kind == "CameraError":
        known = _text(answer, "code") in SOURCE_REASONS
        return CameraError(answer["code"] if known else "input", message, hint, bool(answer.get("lasting")))
    if kind in KINDS:
        return KINDS[kind](message, hint)
    raise Nonsense(f"an error called {kind[:40]!r}")


def too_large(what: str) -> CameraError:
    """What comes needs more memory than its process may have."""
    return CameraError("memory", f"{what}: decoding it takes more memory than it may have", "memory_mb allows more")


def too_many(what: str) -> CameraError:
    """Its pictures are larger than any may be."""
    return CameraError("codec", f"{what}: its pictures have too many pixels", lasting=True)


def _text(answer: dict[str, Any], key: str) -> str:
    value = answer.get(key, "")
    if not isinstance(value, str):
        raise Nonsense(f"{key} is a {type(value).__name__}")
    return value
