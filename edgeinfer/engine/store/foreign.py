"""Plans that somebody else built and names as the model: taken if they fit here, refused with the reason otherwise."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from edgeinfer.engine.errors import PlanError
from edgeinfer.engine.store import manifest, trust
from edgeinfer.engine.store.cache import MANIFEST
from edgeinfer.engine.store.key import KeyFields, Target
from edgeinfer.engine.store.manifest import Manifest
from edgeinfer.engine.store.plan import PlanHeader, parse_header

HINT = "build it on this machine: `edgeinfer build MODEL.onnx`"
BINDING = ("compute_capability", "gpu", "sm_count", "integrated", "os", "arch", "l4t")


@dataclass(frozen=True, slots=True)
class ForeignPlan:
    """A plan that fits. `plan`: without the wrapper in front of it. `warnings`: what could not be made sure."""

    plan: bytes
    header: PlanHeader
    sidecar: Manifest | None
    warnings: tuple[str, ...]


def accept(path: Path, machine: Target) -> ForeignPlan:
    """Reads a plan and holds it against this machine. Raises PlanError or UnsafeError with the reason.

    The side-car is FILE.json, or manifest.json in the same folder. Without it only the header can be held against
    the machine: TensorRT itself says the rest when it loads the plan.
    """
    data = trust.read_private(path)
    header = parse_header(io.BytesIO(data), len(data), str(path))
    _check_header(path, header, machine)
    sidecar = _sidecar(path)
    if sidecar is None:
        warning = f"{path}: no side-car ({path.name}.json): whether it was built for this GPU shows when it is loaded"
        return ForeignPlan(data[header.offset :], header, None, (warning,))
    if hashlib.sha256(data).hexdigest() != sidecar.plan_sha256:
        raise PlanError(f"{path}: its checksum is not the one in its side-car", HINT)
    _check_fields(path, sidecar.fields, machine)
    return ForeignPlan(data[header.offset :], header, sidecar, ())


def _check_header(path: Path, header: PlanHeader, machine: Target) -> None:
    here = f"{machine.flavour} {_dotted(machine.tensorrt)}"
    if header.flavour != machine.flavour or not header.built_by(machine.tensorrt):
        built = _dotted(header.version) if header.version else "of unknown version"
        raise PlanError(f"{path}: built by {header.flavour} {built}, and here is {here}", HINT)
    if header.capabilities and machine.compute_capability and machine.compute_capability not in header.capabilities:
        built = ", ".join(header.capabilities)
        raise PlanError(
            f"{path}: built for compute capabilities {built}, and here is {machine.compute_capability}", HINT
        )


def _check_fields(path: Path, fields: KeyFields, machine: Target) -> None:
    for name in BINDING:
        theirs, ours = getattr(fields, name), getattr(machine, name)
        if theirs != ours and theirs is not None:
            raise PlanError(f"{path}: built for {name.replace('_', ' ')} {theirs}, and here is {ours}", HINT)


def _sidecar(path: Path) -> Manifest | None:
    for place in (path.with_name(path.name + ".json"), path.with_name(MANIFEST)):
        if place.exists():
            return manifest.decode(trust.read_private(place), str(place))
    return None


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
