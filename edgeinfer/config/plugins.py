"""Name → plugin module, imported when it is chosen and not before.

A plugin's file name is its name in the config. A dotted name ("mypackage.mysource") loads code from elsewhere. The
module holds an `Options` struct and an `open` function:

    sources   open(uri: str, options) -> Source
    backends  open(model: Model, max_batch: int | None, options) -> Backend
    decoders  open(options) -> Decoder
    sinks     open(options) -> Sink
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from types import ModuleType
from typing import Any, Literal

import msgspec

from edgeinfer import recipe
from edgeinfer.config import strict
from edgeinfer.config.code import check_code
from edgeinfer.errors import ConfigError, TemporaryError, UnavailableError
from edgeinfer.guard.scarcity import lack_of_descriptors

_imports: ContextVar[bool] = ContextVar("imports", default=True)

Kind = Literal["sources", "backends", "decoders", "sinks"]

_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")

EXTRAS = {"av": "rtsp", "onnxruntime": "cpu"}
"""Which optional extra of the package brings a library."""


def names(kind: Kind) -> list[str]:
    """The plugins of a kind that ship with edgeinfer, without importing one."""
    package = importlib.import_module(f"edgeinfer.{kind}")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if module.name[0] != "_")


@contextlib.contextmanager
def no_new_code() -> Iterator[None]:
    """Within this context a plugin from elsewhere is refused unless it has been imported: whoever only asks may name
    one, and have none run.
    """
    token = _imports.set(False)
    try:
        yield
    finally:
        _imports.reset(token)


def load(kind: Kind, name: str, path: str = "") -> ModuleType:
    """The plugin's module. `path` is the config key that chose it, for errors.

    Raises ConfigError where there is no such plugin, UnavailableError where a library that it needs is missing, and
    TemporaryError where no file can be opened now.
    """
    where = f"{path}: " if path else ""
    if lack := lack_of_descriptors():
        raise TemporaryError(f"{where}{kind[:-1]} {name!r} can't be loaded: {lack}")
    if not (_DOTTED.fullmatch(name) or name in names(kind)):
        raise ConfigError.at(path, f"no {kind[:-1]} called {name!r}", strict.nearest(name, names(kind)))
    target = name if "." in name else f"edgeinfer.{kind}.{name}"
    if "." in name and not _imports.get() and target not in sys.modules:
        said = f"{kind[:-1]} {name!r} is code that the daemon does not use, and is not imported to look at it"
        raise ConfigError.at(path, said, "edgeinfer check does, and so does a reload")
    try:
        if "." in name:
            check_code(name, where)
        module = importlib.import_module(target)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if target == missing or target.startswith(f"{missing}."):
            said = f"no module called {name!r} for a {kind[:-1]}"
            raise ConfigError.at(path, said, "is it on PYTHONPATH?") from None
        raise UnavailableError.at(
            path, f"{kind[:-1]} {name!r} needs {missing!r}, which is not installed", _install_hint(missing)
        ) from error
    except ImportError as error:
        said = f"{kind[:-1]} {name!r} can't be loaded: {error}"
        raise UnavailableError.at(path, said, "install it again") from error
    return _checked(module, kind, path)


def options(module: ModuleType, table: dict[str, Any], path: str) -> msgspec.Struct:
    """The plugin's options from its config table. Raises ConfigError with the key's path."""
    chosen: msgspec.Struct = strict.convert(table, module.Options, path)
    return chosen


def _checked(module: ModuleType, kind: Kind, path: str) -> ModuleType:
    struct = getattr(module, "Options", None)
    if not (
        isinstance(struct, type) and issubclass(struct, msgspec.Struct) and callable(getattr(module, "open", None))
    ):
        raise ConfigError.at(
            path,
            f"{module.__name__} is not a {kind[:-1]}",
            "a plugin module has an Options struct and an open function",
        )
    return module


def _install_hint(missing: str) -> str:
    extra = EXTRAS.get(missing)
    return recipe.pip(f"install 'edgeinfer[{extra}]'") if extra else f"install {missing} into this Python"
