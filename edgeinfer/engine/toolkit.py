"""Finds TensorRT and asks it what it can. A version is asked what it has, never judged by its number."""

from __future__ import annotations

import ctypes
import importlib
import mmap
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edgeinfer.engine.store import trust
from edgeinfer.engine.store.plan import Version
from edgeinfer.errors import UnavailableError
from edgeinfer.guard.limits import MAX_LOG_TEXT

MODULES = {
    "tensorrt": ("tensorrt", "tensorrt_bindings"),
    "tensorrt_rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings"),
}

DTYPES = {
    "FLOAT": np.float32,
    "HALF": np.float16,
    "INT8": np.int8,
    "INT32": np.int32,
    "INT64": np.int64,
    "BOOL": np.bool_,
    "UINT8": np.uint8,
}
"""TensorRT's name of an element type → NumPy's. What is missing here NumPy can't hold."""

Importer = Callable[[str], ModuleType]


@dataclass(frozen=True, slots=True)
class Toolkit:
    """An imported TensorRT with its full version."""

    trt: Any
    flavour: str
    version: Version

    def __str__(self) -> str:
        name = "TensorRT" if self.flavour == "tensorrt" else "TensorRT-RTX"
        return f"{name} {'.'.join(map(str, self.version))}"


def load(flavour: str = "tensorrt", importer: Importer = importlib.import_module) -> Toolkit:
    """Imports TensorRT. Raises UnavailableError that says whether it is missing, or something that it needs."""
    module = _imported(flavour, importer)
    if module is None:
        raise _missing(flavour)
    return _toolkit(module, flavour)


def find(importer: Importer = importlib.import_module) -> Toolkit:
    """TensorRT, or TensorRT-RTX where only that can be loaded. Raises UnavailableError as `load` does."""
    broken: UnavailableError | None = None
    for flavour in MODULES:
        try:
            module = _imported(flavour, importer)
        except UnavailableError as error:
            broken = broken or error
            continue
        if module is not None:
            return _toolkit(module, flavour)
    raise broken or _missing("tensorrt")


def _imported(flavour: str, importer: Importer) -> ModuleType | None:
    """The Python module; None where it is not installed. Raises UnavailableError where it can't be loaded."""
    for name in MODULES[flavour]:
        try:
            return importer(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise _broken(name, error) from error
        except (ImportError, OSError, AttributeError) as error:
            raise _broken(name, error) from error
    return None


def _toolkit(module: ModuleType, flavour: str) -> Toolkit:
    return Toolkit(module, flavour, full_version(module.__version__, loaded_libraries(flavour)))


def _missing(flavour: str) -> UnavailableError:
    return UnavailableError(
        f"the Python module {flavour} is not installed",
        "on a Jetson make the venv with --system-site-packages; elsewhere `edgeinfer doctor` names the package",
    )


def _broken(name: str, error: Exception) -> UnavailableError:
    return UnavailableError(
        f"the Python module {name} is there, but can't be loaded: {error}",
        "install the library it names, of the same CUDA and TensorRT version, or set LD_LIBRARY_PATH",
    )


def full_version(text: str, libraries: Iterator[Path]) -> Version:
    """All four parts. Modules up to 10.7 name three; the build is in a symbol of the loaded library."""
    parts = [int(part) for part in re.findall(r"\d+", text)[:4]]
    if len(parts) == 4:
        return parts[0], parts[1], parts[2], parts[3]
    for library in libraries:
        found = library_version(library)
        if found and list(found[: len(parts)]) == parts:
            return found
    raise UnavailableError(
        f"TensorRT {text} does not tell its build number", "install libnvinfer and its Python module together"
    )


def library_version(path: Path) -> Version | None:
    """The version in the symbol `tensorrt_version_M_m_p_b` that every libnvinfer exports; None where there is none."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        match = re.search(rb"tensorrt_version_(\d+)_(\d+)_(\d+)_(\d+)\0", data)
        if match is None:
            return None
        major, minor, patch, build = (int(part) for part in match.groups())
        return major, minor, patch, build


def loaded_libraries(flavour: str, maps: Path = Path("/proc/self/maps")) -> Iterator[Path]:
    """Paths of the TensorRT libraries that this process has mapped."""
    stem = "libnvinfer.so" if flavour == "tensorrt" else "libtensorrt_rtx.so"
    lines = maps.read_text().splitlines() if maps.exists() else []
    paths = {line.split(maxsplit=5)[5] for line in lines if stem in line}
    return (Path(path) for path in sorted(paths) if Path(path).name.startswith(stem))


def member(enum: Any, name: str) -> Any | None:
    """The member of a TensorRT enum, or None where this version lacks it (or the whole enum)."""
    return getattr(enum, name, None)


def make_runtime(toolkit: Toolkit, logger: Any, dla_core: int | None = None) -> Any:
    """TensorRT's runtime; for a plan with parts on a DLA it must know the core before it loads the plan.

    Raises UnavailableError where that core is not there.
    """
    runtime = toolkit.trt.Runtime(logger)
    if dla_core is not None:
        require_dla(toolkit, dla_core, runtime.num_DLA_cores)
        runtime.DLA_core = dla_core
    return runtime


def require_dla(toolkit: Toolkit, core: int, cores: int) -> None:
    """Raises UnavailableError where core number `core` is not among the `cores` that TensorRT counts."""
    if cores == 0:
        raise UnavailableError(
            f"{toolkit} sees no DLA here: Xavier, Orin NX and AGX Orin have some, Orin Nano and Thor none",
            "leave out --dla (backend.dla)",
        )
    if core >= cores:
        raise UnavailableError(
            f"DLA core {core} does not exist: {toolkit} sees {cores} here, counted from 0", "name another with --dla"
        )


def make_logger(
    trt: Any,
    log: deque[str],
    hear: Callable[[str], None] = lambda _: None,
    overhear: Callable[[str], None] = lambda _: None,
) -> Any:
    """TensorRT's logger: keeps the last lines in `log`, each with its severity, and tells them; not the VERBOSE ones.

    `overhear` gets the text of every line, those as well.

    TensorRT calls it from several threads.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]  # a base class known only at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            overhear(text)
            if severity != trt.ILogger.Severity.VERBOSE:
                line = f"{str(severity).rsplit('.', 1)[-1]} {text[:MAX_LOG_TEXT].strip()}"
                log.append(line)
                hear(line)

    return Logger()


def load_plugins(toolkit: Toolkit, logger: Any, libraries: tuple[str, ...]) -> None:
    """Loads TensorRT's own plugins and the given libraries.

    Raises UnsafeError where somebody else may write one, and UnavailableError where one can't be loaded.
    """
    toolkit.trt.init_libnvinfer_plugins(logger, "")
    for library in libraries:
        trust.check_file(Path(library))
        try:
            _load_plugin(toolkit.trt, library)
        except (OSError, RuntimeError) as error:
            raise UnavailableError(
                f"plugin {library} can't be loaded: {error}", "check that it was built for this TensorRT"
            ) from error


def _load_plugin(trt: Any, library: str) -> None:
    registry = trt.get_plugin_registry()
    if not hasattr(registry, "load_library"):
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    elif registry.load_library(library) is None:
        raise OSError("TensorRT found no plugin in it")
