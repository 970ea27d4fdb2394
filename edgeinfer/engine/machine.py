"""This machine, as far as an engine depends on it."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from edgeinfer.cuda import access
from edgeinfer.engine.store.key import Target
from edgeinfer.engine.toolkit import Toolkit
from edgeinfer.environment import formats
from edgeinfer.errors import UnavailableError
from edgeinfer.gpu.device import open_device


def detect(toolkit: Toolkit, root: Path = Path("/"), *, needs_gpu: bool = False) -> Target:
    """What is known here. Without a GPU, or a way to reach it, what only it can tell stays None.

    Where the caller `needs_gpu`, raises UnavailableError or OutOfMemoryError with the reason instead.
    """
    return Target(
        flavour=toolkit.flavour,
        tensorrt=toolkit.version,
        os=platform.system().lower(),
        arch=platform.machine(),
        l4t=l4t(root),
        **_gpu(needs_gpu),
    )


def l4t(root: Path) -> str | None:
    """The Jetson release, like "36.4.3"; None off a Jetson."""
    path = root / "etc/nv_tegra_release"
    return formats.l4t_release(path.read_text(errors="replace")) if path.is_file() else None


def _gpu(needed: bool) -> dict[str, Any]:
    try:
        access.try_out(access.find())
        with open_device() as device:
            return device.facts()
    except UnavailableError:
        if needed:
            raise
        return {}
