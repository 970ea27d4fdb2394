"""What can go wrong with an engine, as a branch of the error tree."""

from __future__ import annotations

from edgeinfer.errors import EdgeinferError, InputError, TemporaryError, UnavailableError


class PlanError(InputError):
    """A plan is damaged, of another TensorRT, or none at all. Building it again mends that."""


class UnsafeError(InputError):
    """A file that holds native code could have been written by somebody else. Building again does not mend that."""


class CrashLoopError(UnavailableError):
    """An engine ends its process again and again, also after it was built anew."""


class CacheError(TemporaryError):
    """The cache can't be used as it stands: no space, not writable, wrong owner."""


class NoCacheError(CacheError):
    """The folder that is named as the cache is somebody's, and holds other things."""

    exit_code = 64


class BuildError(EdgeinferError):
    """TensorRT refused the network or the options. Trying again would not help."""

    exit_code = 70


class ToleranceError(BuildError):
    """The engine's results are too far from those of ONNX Runtime."""


class BuildKilledError(TemporaryError):
    """The build ran out of memory, or something killed it."""


class BuildCancelledError(TemporaryError):
    """The caller gave up waiting."""
