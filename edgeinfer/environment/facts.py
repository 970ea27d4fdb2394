"""What is known about a machine: every value with where it came from, and what the other sources said."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Generic, Literal, NamedTuple, TypeVar

T = TypeVar("T")
Flavour = Literal["tensorrt", "tensorrt_rtx"]


@dataclass(frozen=True)
class Reading(Generic[T]):
    """One source's answer.

    `exact` is False where the source gives only the first parts of a version, so that "10.3.0" from it and
    "10.3.0.30" from another are no disagreement.
    """

    value: T
    source: str
    exact: bool = True

    def agrees(self, other: Reading[T]) -> bool:
        """Whether both can be true."""
        return self.value == other.value or _is_start(self, other) or _is_start(other, self)


def _is_start(short: Reading[Any], long: Reading[Any]) -> bool:
    return not short.exact and str(long.value).startswith(f"{short.value}.")


@dataclass(frozen=True)
class Fact(Generic[T]):
    """Every reading of one thing, the most trusted first. No readings: unknown, and it stays so."""

    readings: tuple[Reading[T], ...] = ()

    @property
    def chosen(self) -> Reading[T] | None:
        """The most trusted reading, or the first one that completes it where it lacks version parts."""
        if not self.readings:
            return None
        first = self.readings[0]
        return next((reading for reading in self.readings if _is_start(first, reading)), first)

    @property
    def value(self) -> T | None:
        """The chosen value; None: unknown."""
        return self.chosen.value if self.chosen else None

    @property
    def source(self) -> str | None:
        """Where the chosen value came from; None: unknown."""
        return self.chosen.source if self.chosen else None

    @property
    def disagreements(self) -> tuple[Reading[T], ...]:
        """The readings that can't be true beside the chosen one."""
        chosen = self.chosen
        return tuple(other for other in self.readings if chosen and not other.agrees(chosen))


@dataclass(frozen=True)
class Fault:
    """A source that is there and could not be used: a file that can't be read, an import that failed.

    `remedy`: how to mend it, where the source itself says so.
    """

    source: str
    message: str
    remedy: str = ""


class Note(NamedTuple):
    """What a source function yields: a reading for the Environment field of that name."""

    field: str
    value: Any
    source: str
    exact: bool = True


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A machine, or a captured tree of one. Versions are dotted strings as their makers write them.

    Each field but `live` and `faults` is a Fact; `live` says whether running code was asked, or only files.
    """

    live: bool
    faults: tuple[Fault, ...] = ()

    jetpack: Fact[str] = Fact()
    """Such as "6.2.1", from NVIDIA's package or from the table of L4T releases; unknown for one not in it."""
    l4t: Fact[str] = Fact()
    """Jetson Linux release, "36.4.7"."""
    board: Fact[str] = Fact()
    """Model name in the device tree."""
    module: Fact[str] = Fact()
    """Part number of the compute module, "p3767-0005"."""
    soc: Fact[str] = Fact()
    """Such as "tegra234"."""

    unfinished: Fact[str] = Fact()
    """Debian packages of NVIDIA's whose installation has been broken off, with their states."""
    cuda: Fact[str] = Fact()
    """The toolkit."""
    cuda_runtime: Fact[str] = Fact()
    """libcudart."""
    cuda_driver: Fact[str] = Fact()
    """The newest CUDA that the driver serves, major.minor."""
    driver: Fact[str] = Fact()
    """Kernel driver. On JetPack 5 it carries the L4T number."""
    cuda_python: Fact[str] = Fact()
    """The installed cuda-python, whether or not it fits the driver."""
    cuda_access: Fact[str] = Fact()
    """What Python reached CUDA through when it made a stream: "cuda-python 12.9.10", "libcudart.so.12"."""
    video_decoder: Fact[str] = Fact()
    """What decodes video where nobody has chosen. The source is why."""
    closed_nodes: Fact[tuple[str, ...]] = Fact()
    """The GPU's device nodes that this user may not open. The source is their group: "group video"."""
    user: Fact[str] = Fact()
    """Who runs this, where that matters."""
    cudnn: Fact[str] = Fact()

    tensorrt: Fact[str] = Fact()
    """Four parts where any source has them."""
    tensorrt_module: Fact[str] = Fact()
    """Where the Python bindings are that the probed Python imports."""
    tensorrt_system_module: Fact[str] = Fact()
    """Where bindings lie in the system Python's folders, whether or not the probed Python sees them."""
    tensorrt_rtx: Fact[str] = Fact()
    tensorrt_rtx_module: Fact[str] = Fact()
    onnx: Fact[str] = Fact()
    onnxconverter_common: Fact[str] = Fact()
    onnxruntime: Fact[str] = Fact()
    onnxruntime_providers: Fact[tuple[str, ...]] = Fact()

    gpu: Fact[str] = Fact()
    """Name of the first GPU."""
    gpu_count: Fact[int] = Fact()
    compute_capability: Fact[str] = Fact()
    """Such as "8.7"."""
    sm_count: Fact[int] = Fact()
    """Streaming multiprocessors of the first GPU."""
    gpu_memory: Fact[int] = Fact()
    """Bytes that the first GPU can address; on Jetson that is the system's memory."""
    integrated: Fact[bool] = Fact()
    """Whether the GPU shares the system's memory."""
    dla_cores: Fact[int] = Fact()
    cuda_visible_devices: Fact[str] = Fact()
    """The environment variable, where it is set."""

    python: Fact[str] = Fact()
    """The running interpreter; in a captured tree its /usr/bin/python3."""
    python_venv: Fact[bool] = Fact()
    system_python: Fact[str] = Fact()
    """/usr/bin/python3."""
    memory: Fact[int] = Fact()
    """Bytes of RAM that the kernel manages."""
    power_mode: Fact[str] = Fact()
    arch: Fact[str] = Fact()
    """As the kernel calls it: "aarch64", "x86_64"."""
    os: Fact[str] = Fact()
    packaging: Fact[str] = Fact()
    """What the system's software comes in: "dpkg", "rpm", "opkg", "nix". An image of Yocto may have none of them."""
    container: Fact[bool] = Fact()
    """True in a container that says so; unknown otherwise."""
    jetson_stats: Fact[str] = Fact()

    @property
    def is_jetson(self) -> bool:
        """Whether this is a Jetson or an IGX, which run L4T, or a container made for one."""
        return self.l4t.value is not None or (self.is_tegra and "DRIVE" not in (self.board.value or ""))

    @property
    def is_tegra(self) -> bool:
        """Whether the chip is a Tegra: a Jetson's, an IGX's or a DRIVE's. Grace and GB10 are none."""
        return (self.soc.value or "").startswith("tegra")

    @property
    def has_apt(self) -> bool:
        """Whether NVIDIA's Debian packages can be installed, as far as is known."""
        if self.packaging.value is not None or self.os.value is None:
            return self.packaging.value in (None, "dpkg")
        return self.os.value.startswith(("Ubuntu", "Debian"))

    @property
    def flavour(self) -> Flavour | None:
        """The TensorRT that Python can import, else the one whose library is there; `tensorrt` before RTX."""
        found: list[tuple[Flavour, Fact[str]]] = [
            ("tensorrt", self.tensorrt_module),
            ("tensorrt_rtx", self.tensorrt_rtx_module),
            ("tensorrt", self.tensorrt),
            ("tensorrt_rtx", self.tensorrt_rtx),
        ]
        return next((flavour for flavour, fact in found if fact.value is not None), None)

    @property
    def tensorrt_in_use(self) -> Fact[str]:
        """The version of the TensorRT that `flavour` names."""
        return self.tensorrt_rtx if self.flavour == "tensorrt_rtx" else self.tensorrt

    def facts(self) -> dict[str, Fact[Any]]:
        """Every fact by its name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Fact)}
