"""The engine cache: a folder per engine, put there whole or not at all.

CACHEDIR.TAG                 says that this is the cache: nothing is written or removed in a folder without it
engines/KEY/engine.plan      the plan as TensorRT wrote it
engines/KEY/manifest.json    its side-car; its modification time is the last use
engines/KEY/strikes          one byte per start that has not ended well so far
quarantine/KEY/              engines that crashed their process three times
tmp/                         builds in progress and folders being removed; whoever holds the lock may empty it
timing/, calibration/        what makes the next build faster
tuning/                      what `build --tune` found
build.lock
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgeinfer.config.folders import own_folder
from edgeinfer.engine.errors import CrashLoopError, PlanError
from edgeinfer.engine.store import lock, manifest, marker, strikes, trust
from edgeinfer.engine.store.disk import delete, folder_bytes, sync, told
from edgeinfer.engine.store.key import engine_key, renewed
from edgeinfer.engine.store.manifest import Manifest
from edgeinfer.engine.store.plan import parse_header
from edgeinfer.engine.store.strikes import MAX_STRIKES
from edgeinfer.errors import EdgeinferError, UsageError
from edgeinfer.guard.limits import MAX_MANIFEST_BYTES

log = logging.getLogger(__name__)

PLAN, MANIFEST = "engine.plan", "manifest.json"


def default_root(environ: Mapping[str, str]) -> Path:
    """Where the cache lives: systemd's $CACHE_DIRECTORY, else $XDG_CACHE_HOME/edgeinfer, else ~/.cache/edgeinfer."""
    return own_folder(environ, "CACHE_DIRECTORY", "XDG_CACHE_HOME", ".cache")


@dataclass(frozen=True, slots=True)
class CachedEngine:
    """A complete engine in the cache."""

    folder: Path
    manifest: Manifest

    @property
    def key(self) -> str:
        """The 64 hex digits that name it."""
        return self.manifest.key

    def serves(self, key: str) -> bool:
        """Whether it would have this key if it were built today."""
        return engine_key(renewed(self.manifest.fields)) == key

    @property
    def strikes(self) -> int:
        """Starts on this engine that have not ended well so far."""
        return strikes.count(self.folder)

    @property
    def used_at(self) -> float:
        """Last use, in seconds since 1970."""
        return (self.folder / MANIFEST).stat().st_mtime

    def read(self, mark: bool = True) -> bytes:
        """The plan, after its owner, mode, checksum and header were checked. Raises PlanError or UnsafeError.

        `mark`: this is a use, which keeps the engine from being pruned for longer.
        """
        path = self.folder / PLAN
        plan = trust.read_private(path)
        check_plan(plan, self.manifest, path)
        if mark:
            with suppress(OSError):
                os.utime(self.folder / MANIFEST)
        return plan


@dataclass(frozen=True, slots=True)
class BrokenEngine:
    """A folder in the cache that holds no engine fit for use, and why."""

    folder: Path
    error: EdgeinferError

    @property
    def key(self) -> str:
        """The name of its folder."""
        return self.folder.name


def check_plan(plan: bytes, record: Manifest, path: Path) -> None:
    """Raises PlanError where the plan is not the one that the manifest describes."""
    if hashlib.sha256(plan).hexdigest() != record.plan_sha256:
        raise PlanError(f"{path}: its checksum is not the one in its manifest", "build the engine again")
    header = parse_header(io.BytesIO(plan), len(plan), str(path))
    if header.flavour != record.fields.flavour or not header.built_by(record.fields.tensorrt):
        raise PlanError(f"{path}: its header names another TensorRT than its manifest", "build the engine again")


def damaged(error: PlanError) -> str:
    """Why an engine was taken out, in words."""
    return f"its engine is damaged: {error.message}"


class Cache:
    """The cache in the folder `root`. Raises UnsafeError, or CacheError where that is somebody's folder and no cache.

    `taken_out` says why, in words, of every key whose engine this object found unfit.
    """

    def __init__(self, root: Path, writing: bool = True) -> None:
        """Made where it is missing. Without `writing` it is only looked at: call nothing then that changes it."""
        self.root = root
        self.taken_out: dict[str, str] = {}
        self.engines, self.tmp, self.quarantined = (root / name for name in marker.FOLDERS)
        with told(root):
            if writing:
                root.mkdir(parents=True, exist_ok=True, mode=0o700)
            if writing or os.path.lexists(root):
                trust.check_folder(root.resolve())
            if writing:
                marker.claim(root)
            elif os.path.lexists(root):
                marker.check(root)
            for folder in (self.engines, self.tmp, self.quarantined):
                if writing:
                    folder.mkdir(exist_ok=True, mode=0o700)
                if writing or os.path.lexists(folder):
                    trust.check_folder(folder)

    def lock(self, waiting: Callable[[float], None]) -> AbstractContextManager[int]:
        """Held while building; see `build_lock`."""
        return lock.build_lock(self.root / "build.lock", waiting)

    def get(self, key: str) -> CachedEngine | None:
        """The engine of this key, or None. Its plan is checked by `read`. Raises PlanError or UnsafeError.

        One that an older edgeinfer built does as well, if it would have this key today; it keeps its own.
        """
        own = self._own(key)
        if own is not None:
            return own
        return next((e for e in self.entries() if isinstance(e, CachedEngine) and e.serves(key)), None)

    def _own(self, key: str) -> CachedEngine | None:
        """The engine in the folder of this key."""
        folder = self.engines / key
        if not folder.is_dir():
            return None
        trust.check_folder(folder)
        path = folder / MANIFEST
        record = manifest.decode(trust.read_private(path, MAX_MANIFEST_BYTES), str(path))
        if record.key != key:
            raise PlanError(f"{path}: describes engine {record.key[:12]}", "build the engine again")
        return CachedEngine(folder, record)

    def usable(self, key: str) -> CachedEngine | None:
        """Like `get`, but takes what is damaged or crashed its process too often out of the way first.

        Raises CrashLoopError where what was built in its place has crashed as often.
        """
        engine = None
        try:
            engine = self.get(key)
            if engine is not None:
                engine.read()
        except PlanError as error:
            self.taken_out[key] = damaged(error)
            self.remove(engine.key if engine is not None else key)
            return None
        if engine is not None and engine.strikes >= MAX_STRIKES:
            if (self.quarantined / engine.key).exists():
                raise CrashLoopError(
                    f"engine {key[:12]} has ended its process {MAX_STRIKES} times, was built again, and did so again",
                    f"update the driver or TensorRT; to try again remove {self.quarantined / key}",
                )
            self.taken_out[key] = why = strikes.crashing(engine.key, engine.strikes)
            self.quarantine(engine.key, why)
            return None
        return engine

    def find(self, prefix: str) -> CachedEngine | BrokenEngine:
        """The one engine whose key begins like this. Raises UsageError."""
        found = [item for item in self.entries() if item.key.startswith(prefix.lower())]
        if len(found) == 1 and prefix:
            return found[0]
        if found and prefix:
            raise UsageError(f"{prefix!r} names {len(found)} engines", "give more digits of the key")
        raise UsageError(f"no engine {prefix!r} in {self.root}", "see `edgeinfer engines ls`")

    def entries(self) -> list[CachedEngine | BrokenEngine]:
        """Every engine in the cache, last used first, broken ones at the end. Other names are somebody else's."""
        found = sorted(self.engines.iterdir()) if self.engines.is_dir() else []
        folders = [folder for folder in found if marker.KEY.fullmatch(folder.name)]
        items = [self._item(folder) for folder in folders]
        return sorted(items, key=lambda item: -item.used_at if isinstance(item, CachedEngine) else 1.0)

    def _item(self, folder: Path) -> CachedEngine | BrokenEngine:
        try:
            return self._own(folder.name) or BrokenEngine(folder, PlanError(f"{folder}: no folder", "remove it"))
        except EdgeinferError as error:
            return BrokenEngine(folder, error)

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """A fresh folder for one build, gone afterwards. Call with the lock held: it sweeps up after killed builds."""
        self._sweep()
        with told(self.root):
            folder = Path(tempfile.mkdtemp(dir=self.tmp, prefix=marker.WORKSPACE))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def tidy(self) -> None:
        """Removes what killed builds left, unless one is running."""
        with lock.build_lock_if_free(self.root / "build.lock") as free:
            if free:
                self._sweep()

    def store(self, work: Path, record: Manifest) -> CachedEngine:
        """Puts the plan in the workspace `work` into the cache. Durable when it returns; raises CacheError."""
        target = self.engines / record.key
        with told(self.root):
            folder = work / "entry"
            folder.mkdir(mode=0o700)
            (work / PLAN).rename(folder / PLAN)
            (folder / MANIFEST).write_bytes(manifest.encode(record))
            for name in (PLAN, MANIFEST):
                (folder / name).chmod(0o600)
                sync(folder / name)
            sync(folder)
            self.remove(record.key)
            folder.rename(target)
            sync(self.engines)
        self.taken_out.pop(record.key, None)
        return CachedEngine(target, record)

    def remove(self, key: str) -> None:
        """Takes an engine out, at once for every reader. Nothing happens where there is none."""
        self._discard(self.engines / key)

    def quarantine(self, key: str, why: str) -> None:
        """Takes an engine out of use and keeps it for a look, in place of an earlier one of the same key."""
        self.taken_out[key] = why
        self._discard(self.quarantined / key)
        with told(self.root):
            (self.engines / key).rename(self.quarantined / key)

    def strike(self, key: str) -> None:
        """Call before an engine is first run. Three strikes that nobody took back put it into quarantine."""
        strikes.add(self.engines / key)

    def absolve(self, key: str) -> None:
        """Takes the strikes back: the engine has run well, or its process ended as it should."""
        strikes.clear(self.engines / key)
        self._discard(self.quarantined / key)  # what was built in its place is sound

    def file(self, folder: str, name: str) -> Path:
        """Path of a helper file (timing, calibration) that may be lost any time. Raises UnsafeError or CacheError."""
        place = self.root / folder
        with told(self.root):
            place.mkdir(exist_ok=True, mode=0o700)
            trust.check_folder(place)
        return place / name

    def prune(self, max_bytes: int, keep: str = "") -> list[str]:
        """Removes quarantined engines, then the least recently used, until the rest fits. Returns their keys, in order.

        The engine `keep` stays whatever its size, and so does what is no engine of ours.
        """
        found = [*sorted(self.quarantined.iterdir()), *(item.folder for item in reversed(self.entries()))]
        folders = [folder for folder in found if marker.KEY.fullmatch(folder.name) and marker.is_engine(folder)]
        sizes = {folder: folder_bytes(folder) for folder in folders}
        total, removed = sum(sizes.values()), []
        for folder in folders:
            if total > max_bytes and folder != self.engines / keep:
                self._discard(folder)
                total -= sizes[folder]
                removed.append(folder.name)
        return removed

    def _discard(self, path: Path) -> None:
        if not os.path.lexists(path):
            return
        if not marker.is_engine(path):
            log.warning("%s: not removed, it holds more than an engine", path)
            return
        trash = self.tmp / f"{path.name}.{secrets.token_hex(4)}"
        with suppress(FileNotFoundError):  # another process was quicker
            path.rename(trash)
            delete(trash)

    def _sweep(self) -> None:
        for left in self.tmp.iterdir():
            if marker.LEFT.fullmatch(left.name) and not left.is_symlink():
                delete(left)
