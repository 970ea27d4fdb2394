"""CUDA's own libraries: what goes in is handed over in CUDA's order, what comes out is brought back."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeinfer.cuda import library
from edgeinfer.cuda.library import DRIVER_CALLS, RUNTIME_CALLS, DriverLibrary, Out, RuntimeLibrary
from tests.cuda import recorder


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> RuntimeLibrary:
    return RuntimeLibrary(str(recorder.runtime(tmp_path_factory.mktemp("runtime"))))


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> DriverLibrary:
    return DriverLibrary(str(recorder.driver(tmp_path_factory.mktemp("driver"))))


@pytest.fixture(autouse=True)
def fresh(runtime: RuntimeLibrary, driver: DriverLibrary) -> Iterator[None]:
    yield
    for opened in (runtime, driver):
        recorder.value(Path(opened.path), "status").value = 0


def samples(slots: tuple[Any, ...]) -> tuple[list[int], list[int]]:
    """Arguments that differ in every place, some beyond 32 bits, and what comes back."""
    given = {ctypes.c_int: 3, ctypes.c_uint: 0xFFFFFFF0, ctypes.c_size_t: 1 << 33, ctypes.c_uint64: 1 << 62}
    arguments = [given.get(slot, 1 << 45) + place for place, slot in enumerate(slots) if not isinstance(slot, Out)]
    return arguments, [7 + place for place, slot in enumerate(slots) if isinstance(slot, Out)]


@pytest.mark.parametrize("name", sorted(RUNTIME_CALLS))
def test_the_runtime_gets_its_arguments_and_gives_its_results(runtime: RuntimeLibrary, name: str) -> None:
    arguments, results = samples(RUNTIME_CALLS[name])
    assert getattr(runtime, name)(*arguments) == (0, *results)
    assert recorder.arguments(Path(runtime.path)) == arguments


@pytest.mark.parametrize(
    "name", sorted(DRIVER_CALLS.keys() - {"cuDriverGetVersion", "cuModuleGetFunction", "cuModuleLoadData"})
)
def test_the_driver_too(driver: DriverLibrary, name: str) -> None:
    arguments, results = samples(DRIVER_CALLS[name])
    assert getattr(driver, name)(*arguments) == (0, *results)
    assert recorder.arguments(Path(driver.path)) == arguments


def test_code_and_names_are_handed_over_as_they_are(driver: DriverLibrary) -> None:
    code = b"\x7fELF\0binary\0"
    assert driver.cuModuleLoadData(code) == (0, 7)
    (address,) = recorder.arguments(Path(driver.path))
    assert ctypes.string_at(address, len(code)) == code
    assert driver.cuModuleGetFunction(1 << 40, b"letterbox_half") == (0, 7)
    module, name = recorder.arguments(Path(driver.path))
    assert (module, ctypes.string_at(name)) == (1 << 40, b"letterbox_half")
    assert driver.cuDeviceGetName(256, 0) == (0, b"O")


def test_a_status_has_cudas_name(runtime: RuntimeLibrary, driver: DriverLibrary) -> None:
    recorder.value(Path(runtime.path), "status").value = 35
    status, *_ = runtime.cudaMalloc(4)
    assert (int(status), status.name) == (35, "cudaErrorInsufficientDriver")
    recorder.value(Path(driver.path), "status").value = 1
    status, *_ = driver.cuInit(0)
    assert (int(status), status.name) == (1, "CUDA_ERROR_OTHER")


def test_what_is_not_in_the_table_is_not_there(runtime: RuntimeLibrary) -> None:
    with pytest.raises(AttributeError, match="cudaMallocManaged"):
        runtime.cudaMallocManaged(4)


def test_a_library_without_one_of_the_functions_is_not_used(tmp_path: Path) -> None:
    lacking = {name: slots for name, slots in RUNTIME_CALLS.items() if name != "cudaGraphLaunch"}
    path = recorder.build(tmp_path, "libcudart.so.12", lacking)
    with pytest.raises(AttributeError, match="cudaGraphLaunch"):
        RuntimeLibrary(str(path))


@pytest.mark.parametrize(("number", "version"), [(12060, (12, 6)), (13000, (13, 0)), (11040, (11, 4)), (0, None)])
def test_what_the_driver_serves(
    monkeypatch: pytest.MonkeyPatch, driver: DriverLibrary, number: int, version: tuple[int, int] | None
) -> None:
    monkeypatch.setattr(library, "DRIVER", driver.path)
    recorder.value(Path(driver.path), "version").value = number
    assert library.served() == version


def test_without_a_driver_nothing_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "DRIVER", "libcuda-that-is-not-there.so.1")
    assert library.served() is None
