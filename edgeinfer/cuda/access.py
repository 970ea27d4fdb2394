"""Which way leads to CUDA on this machine: cuda-python, or else CUDA's own libraries. And whether it can be used.

A cuda-python brings a CUDA runtime of its own. Where that is newer than the driver serves, every call ends with error
35; JetPack's runtime, which fits, lies beside it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

from edgeinfer.cuda import status as cudastatus
from edgeinfer.cuda.library import DRIVER, DriverLibrary, RuntimeLibrary, served
from edgeinfer.errors import EdgeinferError, OutOfMemoryError, StickyError, UnavailableError
from edgeinfer.recipe import JETPACK_6, JETPACK_7, on_jetson, pip

RUNTIME_MODULES = ("cuda.bindings.runtime", "cuda.cudart")
DRIVER_MODULES = ("cuda.bindings.driver", "cuda.cuda")
"""cuda-python's modules: their names have changed."""
DISTRIBUTIONS = ("cuda-bindings", "cuda-python")
FOLDERS = ("", "/usr/local/cuda/lib64/", "/usr/local/cuda/targets/aarch64-linux/lib/")
"""Where the runtime's library is: where the loader looks, and where JetPack puts it."""
NO_DRIVER = f"there is no CUDA driver here ({DRIVER})"
NON_BLOCKING = 1
"""cudaStreamNonBlocking."""
INSUFFICIENT_DRIVER, NO_DEVICE, UNKNOWN = 35, 100, 999
"""cudaErrorUnknown is what the first call gets on a machine whose GPU can't be reached; nothing is lost then."""
OLDEST_MAJOR = 12
"""Of CUDA: cudaGraphInstantiate has had its arguments since then."""


@dataclass(frozen=True, slots=True)
class Access:
    """`runtime` and `driver` have cuda-python's functions. `name` says whose they are, with the version.

    `instead`: why cuda-python was passed over, empty where it was not.
    """

    runtime: Any
    driver: Any
    name: str
    instead: str = ""


def find() -> Access:
    """The way that works here. Raises UnavailableError, which says why there is none, and what to install."""
    own, driver = _bindings(), served()
    if driver is None:
        raise UnavailableError(NO_DRIVER, "see edgeinfer doctor")
    if isinstance(own, Access):
        status, *_ = own.runtime.cudaGetDeviceCount()
        return own if int(status) == 0 else _better(own, status, driver)
    found = _libraries(driver[0])
    if isinstance(found, str):
        raise UnavailableError(f"{own}{found}", _remedy(driver[0]))
    return replace(found, instead=own)


def _better(own: Access, status: Any, driver: tuple[int, int]) -> Access:
    """The library where cuda-python fails, if that does better. Raises UnavailableError."""
    reason, found = _failing(own, status, driver), _libraries(driver[0])
    if isinstance(found, Access) and int(found.runtime.cudaGetDeviceCount()[0]) == 0:
        return replace(found, instead=reason)
    if int(status) != INSUFFICIENT_DRIVER:
        return own  # it will say itself what is wrong: where there is no GPU, no other way finds one
    if isinstance(found, str):
        raise UnavailableError(f"{reason}{found}", _remedy(driver[0]))
    return replace(found, instead=reason)


def try_out(access: Access) -> None:
    """Makes a stream, as all work begins, and frees it. Raises what says why CUDA can't be used, as `status.check`."""
    status, *stream = access.runtime.cudaStreamCreateWithFlags(NON_BLOCKING)
    if int(status):
        raise _explained(access, status)
    access.runtime.cudaStreamDestroy(stream[0])


def _bindings() -> Access | str:
    """Through cuda-python; or why not."""
    try:
        runtime, driver = _imported(RUNTIME_MODULES), _imported(DRIVER_MODULES)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "cuda":
            return "cuda-python is not installed"
        return f"cuda-python can't be imported: {error}"
    except (ImportError, OSError, RuntimeError) as error:
        return f"cuda-python can't be imported: {error}"
    return Access(runtime, driver, f"cuda-python {_version()}")


def _imported(names: tuple[str, ...]) -> Any:
    """The first that is there. Raises what the last one raises, or the first that is there and broken."""
    for name in names[:-1]:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    return importlib.import_module(names[-1])


def _version() -> str:
    for name in DISTRIBUTIONS:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "of unknown version"


def _failing(own: Access, status: Any, driver: tuple[int, int]) -> str:
    """Why cuda-python is no way. Error 35 comes from a runtime that is too new for the driver."""
    if int(status) == INSUFFICIENT_DRIVER:
        return f"{own.name} needs a newer driver: this one serves CUDA {driver[0]}.{driver[1]}"
    return f"{own.name} fails with error {int(status)} ({getattr(status, 'name', status)})"


def _libraries(major: int) -> Access | str:
    """The machine's own runtime for a driver of this major version, and the driver; or what to add to the reason."""
    if major < OLDEST_MAJOR:
        return f"; {OLDEST_MAJOR} is the oldest that edgeinfer works with"
    name = f"libcudart.so.{major}"
    for folder in FOLDERS:
        try:
            return Access(RuntimeLibrary(f"{folder}{name}"), DriverLibrary(), name)
        except (OSError, AttributeError):
            continue
    return f", and there is no {name} to use instead"


def _remedy(major: int) -> str:
    """What brings a cuda-python that fits a driver of this major version."""
    if major < OLDEST_MAJOR:
        return "update the driver, or JetPack"
    if on_jetson():
        return pip(f"install 'edgeinfer[{(JETPACK_6 if major == OLDEST_MAJOR else JETPACK_7).extras[-1]}]'")
    return pip(f"install 'cuda-python>={'12.9.8' if major == OLDEST_MAJOR else major},<{major + 1}'")


def _explained(access: Access, status: Any) -> EdgeinferError:
    number, name = int(status), str(getattr(status, "name", status))
    if number == cudastatus.OUT_OF_MEMORY:
        return OutOfMemoryError(
            f"the GPU has no memory left: CUDA can't make a stream (error {number}, {name})", cudastatus.MORE_MEMORY
        )
    if number == NO_DEVICE:
        return UnavailableError(f"CUDA finds no GPU (error {number}, {name})", "see edgeinfer doctor")
    if number == INSUFFICIENT_DRIVER:
        return _unserved(access)
    lost = cudastatus.is_sticky(number) and number != UNKNOWN
    kind = StickyError if lost else UnavailableError
    return kind(f"CUDA can't make a stream (error {number}, {name})", "see edgeinfer doctor")


def _unserved(access: Access) -> UnavailableError:
    """Error 35: CUDA says so too where there is no driver at all."""
    driver = served()
    if driver is None:
        return UnavailableError(NO_DRIVER, "see edgeinfer doctor")
    return UnavailableError(_failing(access, INSUFFICIENT_DRIVER, driver), _remedy(driver[0]))
