"""What the daemon and its build child say to each other: one JSON line each, a request in, events out."""

from __future__ import annotations

import msgspec

from edgeinfer.engine.build.samples import SampleSource
from edgeinfer.engine.options import BuildOptions, Precision
from edgeinfer.engine.store.manifest import DlaShare, Tolerance, Verification
from edgeinfer.engine.store.plan import Version


class BuildRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One build. All paths are absolute; the plan goes to `work`/engine.plan.

    model_sha256: of the network that is meant (see `onnxfile.Identity`), "" for whichever lies there.
    workspace: holds `work`; the child removes it when its parent dies.
    precision: a concrete one, also where `options.precision` is "best". verification: None for noise as input.
    calibration_cache, timing_cache: read if there, and written afterwards.
    """

    model: str
    model_sha256: str = ""
    flavour: str
    tensorrt: Version
    options: BuildOptions
    precision: Precision
    work: str
    workspace: str
    calibration: SampleSource | None = None
    calibration_cache: str | None = None
    timing_cache: str | None = None
    verify: bool = True
    verification: SampleSource | None = None
    tolerance: Tolerance | None = None


class Step(msgspec.Struct, frozen=True, tag=True):
    """The build got on. `fraction`: of TensorRT's own phases, None for the ones around them."""

    phase: str
    fraction: float | None = None


class Warned(msgspec.Struct, frozen=True, tag=True):
    """Something was asked for that has no effect, or was left out."""

    text: str


class Logged(msgspec.Struct, frozen=True, tag=True):
    """A line of TensorRT's log, with its severity."""

    text: str


class Built(msgspec.Struct, frozen=True, tag=True, kw_only=True):
    """The plan is written."""

    seconds: float
    how: str
    plan_bytes: int
    plan_sha256: str
    peak_rss_bytes: int
    verification: Verification
    dla: DlaShare | None = None


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The build failed. `kind`: name of an error class of ours, "" for anything unforeseen."""

    kind: str
    message: str
    hint: str = ""


Event = Step | Warned | Logged | Built | Failed
