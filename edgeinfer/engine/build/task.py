"""What is to be built, named and described before anything is."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgeinfer.engine.build import samples
from edgeinfer.engine.build.builder import BuildLimits, available_bytes
from edgeinfer.engine.build.protocol import BuildRequest
from edgeinfer.engine.build.samples import SampleSource
from edgeinfer.engine.options import BuildOptions, Precision, check_dla
from edgeinfer.engine.store.cache import Cache
from edgeinfer.engine.store.key import KeyFields, Target, engine_key, key_fields
from edgeinfer.engine.store.manifest import Tolerance
from edgeinfer.errors import UnavailableError, UsageError
from edgeinfer.guard.limits import MAX_CACHE_BYTES
from edgeinfer.guard.memory import total_bytes
from edgeinfer.models.conversion import REMEDY, missing, needs_conversion
from edgeinfer.models.onnxfile import OnnxModel, read_model

MIN_WORKSPACE_BYTES = 64 << 20
"""The least that it gets, however little is left."""


class Extras(msgspec.Struct, frozen=True, kw_only=True):
    """What a build needs beside its options, and what does not change which engine comes out (but for `calibration`).

    calibration: inputs for int8. verification: inputs to compare on; None for the calibration's, else noise.
    tolerance: None for the default of the precision. timing_cache: None for the one in the engine cache.
    max_cache_bytes: what the cache is pruned to after a build, None for no limit.
    """

    calibration: SampleSource | None = None
    verify: bool = True
    verification: SampleSource | None = None
    tolerance: Tolerance | None = None
    keep_beyond_tolerance: bool = False
    timing_cache: str | None = None
    limits: BuildLimits = BuildLimits()
    max_cache_bytes: int | None = MAX_CACHE_BYTES


@dataclass(frozen=True, slots=True)
class Task:
    """A build to do, with its key."""

    model: OnnxModel
    options: BuildOptions
    machine: Target
    extras: Extras
    fields: KeyFields

    @property
    def key(self) -> str:
        """The key of the engine that it gives."""
        return engine_key(self.fields)

    def precisions(self) -> tuple[Precision, ...]:
        """What is built: the precision asked for, or for "best" all that can be, fastest first."""
        if self.options.precision != "best":
            return (self.options.precision,)
        lowest: tuple[Precision, ...] = ("int8",) if self.model.quantized or self.extras.calibration else ()
        highest: tuple[Precision, ...] = ("fp32",) if self.options.dla_core is None else ()
        return *lowest, "fp16", *highest

    def lack_of_tools(self) -> UnavailableError | None:
        """The error for a package that is missing, without which the build would fail halfway; None where none is."""
        model, here = self.model, self.machine
        for precision in self.precisions():
            needed = needs_conversion(here.tensorrt, here.flavour, precision, model.half, model.quantized)
            if lacking := missing(needed):
                return UnavailableError(
                    f"{model.path.name}: this TensorRT takes {precision} from the ONNX file, and to convert that "
                    f"{' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} missing",
                    f"{REMEDY}, or take fp32",
                )
        return None

    def _pools(self) -> dict[str, int]:
        """The memory pools' limits. TensorRT would take all memory for its workspace, on a Jetson the daemon's too.

        The one that is chosen here is no part of the key: it is another one at each start.
        """
        default = {"WORKSPACE": shared_workspace_bytes()} if self.machine.integrated else {}
        return {**default, **self.options.pools}

    def _timed_on(self) -> bytes:
        """What the times of kernels hold for."""
        return msgspec.json.encode(msgspec.structs.replace(self.machine, cuda=None))

    def request(self, precision: Precision, work: Path, cache: Cache) -> BuildRequest:
        """The request to the child that builds in the folder `work`."""
        extras, version = self.extras, ".".join(map(str, self.machine.tensorrt))
        timing = extras.timing_cache or str(cache.file("timing", _name(self._timed_on())))
        fields = self.fields
        calibration = f"{fields.model} {fields.external_data} {fields.profiles} {fields.calibration} {version}"
        return BuildRequest(
            model=str(self.model.path),
            model_sha256=self.model.sha256,
            flavour=self.machine.flavour,
            tensorrt=self.machine.tensorrt,
            options=msgspec.structs.replace(self.options, pools=self._pools()),
            precision=precision,
            work=str(work),
            workspace=str(work.parent),
            calibration=extras.calibration,
            calibration_cache=str(cache.file("calibration", _name(calibration.encode()))),
            timing_cache=timing,
            verify=extras.verify,
            verification=extras.verification,
            tolerance=extras.tolerance,
        )


def shared_workspace_bytes() -> int:
    """What TensorRT may use for its workspace where it shares the memory with everything else.

    A quarter of all, and half of what is there now: CUDA's own account leaves out what the kernel would free for us.
    """
    return max(MIN_WORKSPACE_BYTES, min(total_bytes() // 4, available_bytes() // 2))


def make_task(model: Path, options: BuildOptions, machine: Target, extras: Extras | None = None) -> Task:
    """The build of this model on this machine. Raises InputError and UsageError for what can't be built as asked."""
    extras = extras or Extras()
    check_dla(options)
    if options.hardware_compatibility != "none" and machine.l4t is not None:
        raise UsageError(
            "TensorRT has no hardware compatibility on a Jetson",
            "leave --hardware-compatibility out: build on each kind",
        )
    network = read_model(model.resolve())
    needs_data = options.precision == "int8" and not network.quantized
    if needs_data and extras.calibration is None:
        raise UsageError(
            f"{model}: int8 needs inputs to calibrate with", "give --calibration-data DIR, or an ONNX file with Q/DQ"
        )
    wants_data = needs_data or (options.precision == "best" and not network.quantized)
    digest = samples.digest(extras.calibration, options.calibrator) if wants_data and extras.calibration else None
    return Task(network, options, machine, extras, key_fields(network, options, machine, digest))


def _name(identity: bytes) -> str:
    return hashlib.sha256(identity).hexdigest()[:32]
