"""Which way leads to CUDA, and what is said where none does."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgeinfer.cuda import access, library
from edgeinfer.errors import EdgeinferError, OutOfMemoryError, StickyError, UnavailableError
from tests.cuda import recorder


class Bindings(ModuleType):
    """cuda-python, of which only the statuses matter here."""

    def __init__(self, count: int = 0, stream: int = 0) -> None:
        super().__init__("cuda.bindings.runtime")
        self.cudaGetDeviceCount = lambda: (count, 0)
        self.cudaStreamCreateWithFlags = lambda flags: (stream, 5) if flags == 1 else (1,)
        self.cudaStreamDestroy = lambda stream: (0,)


class Machine:
    """What CUDA finds here: no cuda-python, no libraries, until a test puts them there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self._monkeypatch, self.folder = monkeypatch, folder
        monkeypatch.setattr(access, "FOLDERS", (f"{folder}/",))
        monkeypatch.setattr(access, "on_jetson", lambda: True)
        monkeypatch.setattr(access, "_version", lambda: "13.4.4")
        self.drivers_version(None)
        self.cuda_python(None)

    def drivers_version(self, number: tuple[int, int] | None) -> None:
        self._monkeypatch.setattr(access, "served", lambda: number)

    def cuda_python(self, module: Any) -> None:
        for name in (*access.RUNTIME_MODULES, *access.DRIVER_MODULES):
            self._monkeypatch.setitem(sys.modules, name, module)

    def libraries(self, major: int = 12) -> None:
        recorder.runtime(self.folder, f"libcudart.so.{major}")
        driver = recorder.driver(self.folder)
        self._monkeypatch.setattr(access, "DriverLibrary", lambda: library.DriverLibrary(str(driver)))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path)


def refusal() -> str:
    with pytest.raises(UnavailableError) as caught:
        access.find()
    return str(caught.value)


def test_cuda_python_is_taken_where_it_works(machine: Machine) -> None:
    machine.drivers_version((13, 0))
    machine.libraries(13)
    machine.cuda_python(own := Bindings())
    found = access.find()
    assert (found.runtime, found.driver, found.name, found.instead) == (own, own, "cuda-python 13.4.4", "")


def test_without_cuda_python_it_is_cudas_own_library(machine: Machine) -> None:
    machine.drivers_version((12, 6))
    machine.libraries()
    found = access.find()
    assert (found.name, found.instead) == ("libcudart.so.12", "cuda-python is not installed")
    assert found.runtime.cudaMalloc(4) == (0, 7)
    assert found.driver.cuInit(0) == (0,)


def test_a_cuda_python_that_is_too_new_for_the_driver_is_passed_over(machine: Machine) -> None:
    machine.drivers_version((12, 6))
    machine.libraries()
    machine.cuda_python(Bindings(count=35))
    found = access.find()
    assert found.name == "libcudart.so.12"
    assert found.instead == "cuda-python 13.4.4 needs a newer driver: this one serves CUDA 12.6"


def test_one_that_fails_otherwise_is_passed_over_where_the_library_does_better(machine: Machine) -> None:
    machine.drivers_version((12, 6))
    machine.libraries()
    machine.cuda_python(Bindings(count=500))
    found = access.find()
    assert (found.name, found.instead) == ("libcudart.so.12", "cuda-python 13.4.4 fails with error 500 (500)")


def test_where_no_way_finds_a_gpu_it_is_cuda_pythons_word_that_counts(machine: Machine) -> None:
    machine.drivers_version((12, 6))
    machine.libraries()
    recorder.value(machine.folder / "libcudart.so.12", "status").value = 100
    machine.cuda_python(Bindings(count=100))
    assert access.find().name == "cuda-python 13.4.4"


@pytest.mark.parametrize(("served", "extra"), [((12, 6), "jetpack6"), ((13, 0), "jetpack7"), ((14, 1), "jetpack7")])
def test_what_is_missing_and_what_brings_it_on_a_jetson(machine: Machine, served: tuple[int, int], extra: str) -> None:
    machine.drivers_version(served)
    library_name = f"libcudart.so.{served[0]}"
    why = f"cuda-python is not installed, and there is no {library_name} to use instead"
    assert refusal() == f"{why}; pip install 'edgeinfer[{extra}]'"


@pytest.mark.parametrize(("served", "range_"), [((12, 4), ">=12.9.8,<13"), ((13, 1), ">=13,<14")])
def test_and_elsewhere(machine: Machine, monkeypatch: pytest.MonkeyPatch, served: tuple[int, int], range_: str) -> None:
    monkeypatch.setattr(access, "on_jetson", lambda: False)
    machine.drivers_version(served)
    assert refusal().endswith(f"; pip install 'cuda-python{range_}'")


def test_a_cuda_python_of_the_wrong_major_and_nothing_else(machine: Machine) -> None:
    machine.drivers_version((12, 6))
    machine.cuda_python(Bindings(count=35))
    assert refusal() == (
        "cuda-python 13.4.4 needs a newer driver: this one serves CUDA 12.6, and there is no libcudart.so.12 to use "
        "instead; pip install 'edgeinfer[jetpack6]'"
    )


def test_a_driver_that_is_too_old_for_all(machine: Machine) -> None:
    machine.drivers_version((11, 4))
    machine.cuda_python(Bindings(count=35))
    assert refusal() == (
        "cuda-python 13.4.4 needs a newer driver: this one serves CUDA 11.4; 12 is the oldest that edgeinfer works "
        "with; update the driver, or JetPack"
    )


def test_without_a_driver_that_is_what_is_said(machine: Machine) -> None:
    machine.libraries()
    assert refusal() == "there is no CUDA driver here (libcuda.so.1); see edgeinfer doctor"
    machine.cuda_python(Bindings(count=35, stream=35))
    with pytest.raises(UnavailableError, match="there is no CUDA driver here"):
        access.try_out(access.find())


def test_a_cuda_python_that_does_not_load(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.drivers_version((12, 6))

    def broken(name: str) -> Any:
        raise ImportError(f"{name}: libfoo.so: cannot open shared object file")

    monkeypatch.setattr("importlib.import_module", broken)
    assert refusal().startswith("cuda-python can't be imported: cuda.bindings.runtime: libfoo.so: cannot open")


@pytest.mark.parametrize(
    ("status", "kind", "text"),
    [
        (2, OutOfMemoryError, "the GPU has no memory left"),
        (100, UnavailableError, "CUDA finds no GPU (error 100"),
        (35, UnavailableError, "cuda-python 13.4.4 needs a newer driver: this one serves CUDA 12.6"),
        (700, StickyError, "CUDA can't make a stream (error 700"),
        (802, UnavailableError, "CUDA can't make a stream (error 802"),
        (999, UnavailableError, "CUDA can't make a stream (error 999"),
        (1, UnavailableError, "CUDA can't make a stream (error 1"),
    ],
)
def test_trying_it_out_says_what_really_happened(
    machine: Machine, status: int, kind: type[EdgeinferError], text: str
) -> None:
    machine.drivers_version((12, 6))
    machine.cuda_python(Bindings(stream=status))
    with pytest.raises(EdgeinferError) as caught:
        access.try_out(access.find())
    assert type(caught.value) is kind
    assert caught.value.message.startswith(text)
    assert caught.value.hint


def test_a_stream_that_could_be_made_is_freed(machine: Machine) -> None:
    freed = []
    own = Bindings()
    own.cudaStreamDestroy = lambda stream: freed.append(stream) or (0,)  # type: ignore[func-returns-value]
    machine.drivers_version((12, 6))
    machine.cuda_python(own)
    access.try_out(access.find())
    assert freed == [5]
