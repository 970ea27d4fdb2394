"""Which usual batch was found best for a model here: a line of JSON in the cache, for all who build engines of it."""

from __future__ import annotations

import hashlib
from contextlib import suppress

import msgspec

from edgeinfer.engine.errors import PlanError, UnsafeError
from edgeinfer.engine.store import trust
from edgeinfer.engine.store.cache import Cache
from edgeinfer.engine.store.disk import told
from edgeinfer.engine.store.key import KeyFields
from edgeinfer.guard.limits import MAX_MANIFEST_BYTES

FOLDER = "tuning"


class Choice(msgspec.Struct, frozen=True):
    """The batch that kernels are chosen for, and what led to it: usual batch → "STREAMSxBATCH" → frames per second."""

    opt: int
    fps: dict[str, dict[str, float]] = {}


def remember(cache: Cache, fields: KeyFields, choice: Choice) -> None:
    """Keeps a choice for engines of these fields, whatever their usual batch. Raises CacheError, UnsafeError."""
    path = cache.file(FOLDER, _name(fields))
    part = path.with_name(f"{path.name}.part")
    with told(cache.root):
        part.write_bytes(msgspec.json.encode(choice))
        part.chmod(0o600)
        part.replace(path)


def recall(cache: Cache, fields: KeyFields) -> Choice | None:
    """The choice for engines of these fields; None where none was made, or it can't be trusted."""
    path = cache.root / FOLDER / _name(fields)
    with suppress(OSError, PlanError, UnsafeError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        trust.check_folder(path.parent)
        return msgspec.json.decode(trust.read_private(path, MAX_MANIFEST_BYTES), type=Choice)
    return None


def _name(fields: KeyFields) -> str:
    """Of all that engines with another usual batch have in common."""
    ranges = {name: (low, low, high) for name, (low, _, high) in fields.profiles.items()}
    common = msgspec.structs.replace(fields, cuda=None, profiles=ranges, single={})
    return hashlib.sha256(msgspec.json.encode(common, order="sorted")).hexdigest()[:32]
