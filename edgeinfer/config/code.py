"""Imports plugins from source that nobody else could have written; bytecode beside it is neither read nor written.

A .pyc is run unread in place of its source, and may lie in a folder of its own with an owner of its own.
"""

from __future__ import annotations

import importlib.util
import os
import stat
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from edgeinfer.errors import ConfigError
from edgeinfer.guard.files import open_anything
from edgeinfer.guard.ownership import folder_writers, writers


class _Source(SourceFileLoader):
    """Compiles what it has checked: the file that was opened, not one that has taken its place since."""

    def get_code(self, fullname: str) -> CodeType:
        """See `importlib.abc.InspectLoader.get_code`."""
        path = Path(self.get_filename(fullname))
        try:
            with open_anything(path) as file:
                status = os.fstat(file.fileno())
                if not stat.S_ISREG(status.st_mode):
                    raise _refused(fullname, path, "it is no regular file")
                if who := writers(status, _ours()):
                    raise _refused(fullname, path, who)
                return self.source_to_code(file.read(), str(path))
        except OSError as error:
            raise _refused(fullname, path, f"it can't be read ({error.strerror})") from error


class _Finder(MetaPathFinder):
    """Stands before the others for the packages that plugins are in, whoever imports from them, and whenever."""

    def __init__(self) -> None:
        self.packages: dict[str, str] = {}
        """Outermost package of a plugin → the config key that names it, for errors."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder.find_spec`. Raises ConfigError."""
        if fullname.partition(".")[0] not in self.packages:
            return None
        for finder in [finder for finder in sys.meta_path if finder is not self]:
            find = getattr(finder, "find_spec", None)  # finders of old have none
            spec = None if find is None else find(fullname, path, target)
            if spec is not None:
                return self.checked(spec)
        return None

    def checked(self, spec: ModuleSpec) -> ModuleSpec:
        """The module, to be compiled from its source. Raises ConfigError where somebody else could have written it."""
        for path in _files_of(spec):
            who = folder_writers(path, _ours()) if path.is_dir() else writers(path.stat(), _ours())
            if who:
                raise _refused(spec.name, path, who)
        if isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Source(spec.loader.name, spec.loader.path)
            spec.cached = None
        return spec


_finder = _Finder()


def check_code(name: str, where: str) -> None:
    """Raises ConfigError where somebody else could have written a module that is about to be run as us.

    Whoever owns edgeinfer's own files is trusted with this too: he could have changed those. From the outermost package
    inwards, because finding a module runs the packages around it. All that is ever imported from its outermost package
    is looked at in the same way.
    """
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    parts = name.split(".")
    _finder.packages[parts[0]] = where
    for depth in range(1, len(parts) + 1):
        inner = ".".join(parts[:depth])
        if inner in sys.modules and depth < len(parts):
            continue
        spec = importlib.util.find_spec(inner)
        if spec is not None and inner in sys.modules:  # the finder was not asked
            _finder.checked(spec)


def _ours() -> set[int]:
    return {Path(__file__).stat().st_uid}


def _files_of(spec: ModuleSpec) -> list[Path]:
    """A module's file, the folder that it lies in, and the one in which a package's folder could be replaced.

    Of what lies in an archive it is the archive.
    """
    folders = [Path(place) for place in spec.submodule_search_locations or ()]
    file = [_there(Path(spec.origin))] if spec.has_location and spec.origin else []
    places = (*file, *(path.parent for path in file), *folders, *(path.parent for path in folders))
    return [path for path in places if path.exists()]


def _there(path: Path) -> Path:
    return next((place for place in (path, *path.parents) if place.exists()), path)


def _refused(name: str, path: Path, who: str) -> ConfigError:
    where = _finder.packages.get(name.partition(".")[0], "")
    return ConfigError(
        f"{where}plugin {name}: {path}: {who}, and it would run with our rights",
        "only its owner, root or the owner of edgeinfer should: chown and chmod go-w it",
    )
